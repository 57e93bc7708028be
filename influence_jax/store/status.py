"""What is known of each member of a run."""

import enum
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int, Int8


class MemberStatus(enum.IntEnum):
    """What is known of a member."""

    MISSING = 0
    COMPLETE = 1
    DIVERGED = 2


class Statuses:
    """Which members of a run are there."""

    _status: Int8[np.ndarray, ' M']

    @property
    def status(self) -> Int8[np.ndarray, ' M']:
        """Each member's `MemberStatus`."""
        return self._status.copy()

    @property
    def missing(self) -> Int[np.ndarray, ' R']:
        """Indices of the members still to be trained."""
        return np.flatnonzero(self._status == MemberStatus.MISSING)

    @property
    def complete(self) -> Int[np.ndarray, ' R']:
        """Indices of the members whose measurements are there and finite."""
        return np.flatnonzero(self._status == MemberStatus.COMPLETE)

    @property
    def diverged(self) -> Int[np.ndarray, ' R']:
        """Indices of the members with a measurement that is not finite."""
        return np.flatnonzero(self._status == MemberStatus.DIVERGED)


def of_rows(rows: Mapping[str, Float[np.ndarray, 'C T']]) -> Int8[np.ndarray, ' C']:
    """The status of members of whom this was measured."""
    finite = np.all([np.isfinite(values).all(axis=1) for values in rows.values()], axis=0)
    return np.where(finite, MemberStatus.COMPLETE, MemberStatus.DIVERGED).astype(np.int8)
