"""Kernels as another CPU would compile them."""

import ctypes
import functools
from pathlib import Path
from unittest import mock

import pytest

from influence_jax.kernels import library

EMULATED_TILES = ('-include', str(Path(__file__).with_name('emulated_tiles.h')))
"""What a CPU with AMX runs, its tiles in plain C++."""

WITHOUT_TILES = ('-U__AMX_TILE__', '-U__AMX_INT8__', '-U__AMX_BF16__')

OF_SUMS = {'by lookup': WITHOUT_TILES, 'by tiles': EMULATED_TILES}


@functools.cache
def loaded(source: str, *options: str) -> ctypes.CDLL | None:
    """A source file compiled with these options besides; None where it cannot be."""
    command = library._command
    with mock.patch.object(library, '_command', lambda compiler: [*command(compiler), *options]):
        try:
            return library._loaded(Path(library.__file__).with_name(source))
        except library.Unavailable:
            return None


def use(options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of losses are computed by lookup, or by tiles, whatever this CPU has."""
    as_it_is = library.loaded
    of_sums = {source: loaded(source, *options) for source in ('columns.cc', 'mask_sums.cc')}
    assert of_sums['columns.cc'].columns_by_tiles() == (options is EMULATED_TILES)
    monkeypatch.setattr(
        library, 'loaded', lambda source: of_sums[source] if source in of_sums else as_it_is(source)
    )
