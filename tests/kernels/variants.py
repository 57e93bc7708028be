"""Kernels as another CPU would compile them."""

import ctypes
import functools
from pathlib import Path
from unittest import mock

from influence_jax.kernels import library

EMULATED_TILES = ('-include', str(Path(__file__).with_name('emulated_tiles.h')))
"""What a CPU with AMX runs, its tiles in plain C++."""

WITHOUT_TILES = ('-U__AMX_TILE__', '-U__AMX_INT8__', '-U__AMX_BF16__')


@functools.cache
def loaded(source: str, *options: str) -> ctypes.CDLL | None:
    """A source file compiled with these options besides; None where it cannot be."""
    command = library._command
    with mock.patch.object(library, '_command', lambda compiler: [*command(compiler), *options]):
        try:
            return library._loaded(Path(library.__file__).with_name(source))
        except library.Unavailable:
            return None
