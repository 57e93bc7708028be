"""What a summary asks of whole matrices: `matrices.cc`."""

import numpy as np
from jaxtyping import Float, Int

from influence_jax.kernels.calls import FLOATS, INT, INTS, ROWS_OF_FLOATS, Function
from influence_jax.threads import in_threads

_COLUMNS = 16  # of a call
_ENTRIES = 2**16

_DECLARED = (INT, ROWS_OF_FLOATS, INT, FLOATS)
_MEDIANS = Function('matrices.cc', 'matrices_medians', _DECLARED)
_LARGEST = Function('matrices.cc', 'matrices_largest', _DECLARED)
_BEYOND = Function(
    'matrices.cc',
    'matrices_beyond',
    (INT, ROWS_OF_FLOATS, INT, ROWS_OF_FLOATS, INT),
    (INTS,),
)


def serves(*matrices: Float[np.ndarray, 'N t']) -> bool:
    """Whether these can be passed: float32, rows in one piece; and there is a library."""
    rows = (
        one.dtype == np.float32 and one.strides[1] == 4 and one.strides[0] % 4 == 0
        for one in matrices
    )
    return all(rows) and _MEDIANS.there()


def medians(matrix: Float[np.ndarray, 'N t']) -> Float[np.ndarray, ' t']:
    """The median of each column; NaN where a number is."""
    return _of_columns(_MEDIANS, matrix)


def largest(matrix: Float[np.ndarray, 'N t']) -> Float[np.ndarray, ' t']:
    """The largest absolute value of each column; NaN where a number is."""
    return _of_columns(_LARGEST, matrix)


def beyond(
    matrix: Float[np.ndarray, 'N t'], floors: Float[np.ndarray, 'N t']
) -> tuple[Int[np.ndarray, ' C'], Int[np.ndarray, ' C']]:
    """Rows and columns of the entries whose absolute value is above their floor; NaN is none."""
    rows, columns = matrix.shape
    work = _BEYOND.bound(columns, matrix, _stride(matrix), floors, _stride(floors))

    def of_some(some: slice) -> Int[np.ndarray, ' C']:
        listed = np.empty((some.stop - some.start) * columns, np.int64)
        return listed[: work(some, listed)].copy()

    found = in_threads(of_some, rows, step=max(1, _ENTRIES // columns))
    row, column = np.divmod(np.concatenate(found), columns)
    return row, column


def _of_columns(function: Function, matrix: Float[np.ndarray, 'N t']) -> Float[np.ndarray, ' t']:
    found = np.empty(matrix.shape[1], np.float32)
    work = function.bound(len(matrix), matrix, _stride(matrix), found)
    in_threads(work, matrix.shape[1], step=_COLUMNS)
    return found


def _stride(matrix: Float[np.ndarray, 'N t']) -> int:
    return matrix.strides[0] // matrix.itemsize
