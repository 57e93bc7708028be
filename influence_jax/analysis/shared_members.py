"""Which members two ensembles have in common, and what that means for the error of a difference."""

import hashlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


class SharedMembers(NamedTuple):
    """How many members two ensembles have, and how many of them are the same.

    first: of the first ensemble.
    second: of the second.
    shared: in both: same subset, same measurements.
    same_subset: of either, those whose subset is in the other ensemble with other measurements
        alone, as of other seeds, of another recipe, or of other targets.
    """

    first: int
    second: int
    shared: int
    same_subset: int

    @property
    def is_nested(self) -> bool:
        """Returns whether one ensemble is a part of the other, or all of it."""
        return self.shared == min(self.first, self.second)

    @property
    def is_testable(self) -> bool:
        """Returns whether the error of a difference is known, and is not zero."""
        return not self.same_subset and 2 * self.shared < self.first + self.second

    @property
    def error_factor(self) -> float:
        """Returns the error of a difference, over that of two ensembles with no common member.

        The variance of a difference of two means, of m and M members with k in common, is that of
        a member times 1/m + 1/M - 2k / (m M): sqrt(1/m - 1/M) where one is a part of the other.
        """
        return float(np.sqrt(1 - 2 * self.shared / (self.first + self.second)))


def member_digests(
    masks: Bool[np.ndarray, 'M N'], losses: Float[np.ndarray, 'M T']
) -> Int[np.ndarray, 'M 2']:
    """Returns 64 bits of SHA-256 of each member's mask, and of its measurements as float32."""
    return np.array(
        [
            (_digest(np.packbits(mask)), _digest(np.asarray(row, '<f4')))
            for mask, row in zip(masks, losses, strict=True)
        ],
        np.int64,
    ).reshape(-1, 2)


def shared_members(first: Int[np.ndarray, 'm 2'], second: Int[np.ndarray, 'M 2']) -> SharedMembers:
    """Compares ensembles by the `member_digests` of each; their order does not matter."""
    members = [set(map(tuple, digests.tolist())) for digests in (first, second)]
    shared = members[0] & members[1]
    subsets = [{mask for mask, _ in of} for of in members]
    same_subset = sum(
        mask in elsewhere
        for of, elsewhere in zip(members, reversed(subsets), strict=True)
        for mask, _ in of - shared
    )
    return SharedMembers(len(members[0]), len(members[1]), len(shared), same_subset)


def _digest(row: np.ndarray) -> int:
    found = hashlib.sha256(np.ascontiguousarray(row).data).digest()[:8]
    return int.from_bytes(found, 'little', signed=True)
