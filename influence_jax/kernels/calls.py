"""Calls of C++ functions that do some rows of a piece of work, from threads."""

import ctypes
import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from influence_jax.kernels import library

INT, DOUBLE = ctypes.c_int64, ctypes.c_double
FLOATS, DOUBLES, INTS, SHORT_INTS, BYTES = (
    np.ctypeslib.ndpointer(dtype, flags='C_CONTIGUOUS')
    for dtype in (np.float32, np.float64, np.int64, np.int32, np.uint8)
)
ROWS_OF_FLOATS = np.ctypeslib.ndpointer(np.float32, ndim=2)
"""Not all of one piece: the function is passed how far the rows are apart."""
STRUCTURE = ctypes.Structure
"""Passed by its address; what it points to, it keeps itself."""

Work: TypeAlias = Callable[..., int]
"""Does what it was made for, for some of the rows; Python's lock is free meanwhile.

Takes a slice, and arrays of the call's own; returns what the function of C++ returns."""


@dataclasses.dataclass(frozen=True)
class Function:
    """A function of the first row, the row after the last, and what is declared.

    Attributes:
      source: file of the library, see `library.loaded`.
      name: of the function.
      declared: types of its other arguments.
      of_call: types of those that each call brings along, after these.
    """

    source: str
    name: str
    declared: tuple[Any, ...]
    of_call: tuple[Any, ...] = ()

    def there(self) -> bool:
        """Whether it can be called: there is a compiler, and the CPU has AVX-512."""
        return library.loaded(self.source) is not None

    def bound(self, *arguments: Any, of: ctypes.CDLL | None = None) -> Work:
        """The function with what is the same for all rows.

        Arrays are looked at once, and kept as long as the function; None is none.

        Args:
          arguments: as declared.
          of: the library; by default that of `library.loaded`, which must be there.

        Raises:
          TypeError: an array of another type than declared, which would be read as garbage.
        """
        function = getattr(of or library.loaded(self.source), self.name)
        function.restype = INT
        passed = [_passed(*one) for one in zip(self.declared, arguments, strict=True)]

        def of_rows(rows: slice, *more: np.ndarray) -> int:
            of_call = [_passed(*one) for one in zip(self.of_call, more, strict=True)]
            found = function(INT(rows.start), INT(rows.stop), *passed, *of_call)
            if found < 0:
                raise MemoryError(f'no memory for what {self.source} holds of a few rows')
            return int(found)

        of_rows.alive = arguments  # type: ignore[attr-defined]  # passed are addresses alone
        return of_rows


def _passed(declared: Any, argument: Any) -> Any:
    if declared in (INT, DOUBLE):
        return declared(argument)
    if argument is None:
        return ctypes.c_void_p(None)
    if declared is STRUCTURE:
        return ctypes.byref(argument)
    declared.from_param(argument)
    return ctypes.c_void_p(argument.ctypes.data)
