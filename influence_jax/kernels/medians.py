"""Medians, and largest absolute values, of the columns of a matrix: `medians.cc`."""

import numpy as np
from jaxtyping import Float

from influence_jax.kernels import library
from influence_jax.kernels.calls import FLOATS, INT, ROWS_OF_FLOATS, Function, Work
from influence_jax.threads import in_threads

_COLUMNS = 16  # of a call

_DECLARED = (INT, ROWS_OF_FLOATS, INT, FLOATS)
_MEDIANS = Function('medians.cc', 'medians_of_columns', _DECLARED)
_LARGEST = Function('medians.cc', 'medians_largest', _DECLARED)


def serves(matrix: Float[np.ndarray, 'N t']) -> bool:
    """Whether this can be called, of float32 and rows in one piece."""
    rows = matrix.dtype == np.float32 and matrix.strides[1] == 4 and matrix.strides[0] % 4 == 0
    return rows and library.loaded('medians.cc') is not None


def medians(matrix: Float[np.ndarray, 'N t']) -> Float[np.ndarray, ' t']:
    """The median of each column; NaN where a number is."""
    return _of_columns(_MEDIANS, matrix)


def largest(matrix: Float[np.ndarray, 'N t']) -> Float[np.ndarray, ' t']:
    """The largest absolute value of each column; NaN where a number is."""
    return _of_columns(_LARGEST, matrix)


def _of_columns(function: Function, matrix: Float[np.ndarray, 'N t']) -> Float[np.ndarray, ' t']:
    rows, columns = matrix.shape
    found = np.empty(columns, np.float32)
    work: Work = function.bound(rows, matrix, matrix.strides[0] // 4, found)
    in_threads(work, columns, step=_COLUMNS)
    return found
