"""Columns of the masks, eight members a byte: an eighth of their memory, looked up by example."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, UInt8

from influence_jax.threads import in_threads

_AT_ONCE = 2**11


def differ_early(rows: Bool[np.ndarray, 'n k']) -> bool:
    """Whether their first 64 entries already tell all rows apart, as those of random masks do."""
    first = np.packbits(rows[:, :64], axis=1)
    key = np.zeros((len(rows), 8), np.uint8)
    key[:, : first.shape[1]] = first
    return len(np.unique(key.view(np.uint64))) == len(rows)


class PackedColumns(NamedTuple):
    """The members that each example is in.

    bits: `[N b]` eight members a byte, the first in the highest bit.
    members: M.
    """

    bits: UInt8[np.ndarray, 'N b']
    members: int

    @classmethod
    def of(cls, masks: Bool[np.ndarray, 'M N']) -> 'PackedColumns':
        """Packs the columns of masks, by pieces: transposed as a whole they would be copied."""
        members, examples = masks.shape

        def of_some(some: slice) -> UInt8[np.ndarray, 'n b']:
            return np.packbits(np.ascontiguousarray(masks[:, some].T), axis=1)

        return cls(np.concatenate(in_threads(of_some, examples, step=_AT_ONCE)), members)

    def columns(self, examples: Int[np.ndarray, '*shape']) -> Bool[np.ndarray, '*shape M']:
        """Returns the columns of some examples, a byte an entry."""
        bits = self.bits[examples]
        return np.unpackbits(bits, axis=-1, count=self.members).view(bool)
