"""The entries of the influence matrix that are not noise, as a sparse matrix."""

from collections import deque
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import scipy
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.uncertainty import (
    SURE,
    benjamini_hochberg,
    p_values,
    selected_intervals,
    z_of_p,
    z_scores,
)
from influence_jax.threads import side_by_side
from influence_jax.types import AnyArray

LEAST_ON_A_SIDE = 10
"""Members with, and without, an example from which on its pairs are tested."""

_MOST_PAIRS = 2**20
# The exact p-value hardly ever lies below this power of Student's, whose tail it may undercut.
_LENIENT = 1.2
_LEAST_P = 1e-300

_FOLDS_ROOT = 2.0  # square root of the number of folds less one: five folds


@runtime_checkable
class PValues(Protocol):
    """Two-sided p-values of entries of a block."""

    def __call__(
        self,
        targets: Int[np.ndarray, ' C'],
        examples: Int[np.ndarray, ' C'],
        z: Float[np.ndarray, ' C'],
        *,
        sure: float = SURE,
    ) -> Float[np.ndarray, ' C']:
        """From positions of targets in the block, examples and z-scores.

        Where a p-value is certainly no larger than `sure`, it may be an upper bound.
        """


class SignificantPairs(NamedTuple):
    """Pairs of an example and another target that are discoveries; smallest p-value first.

    Benjamini and Hochberg (1995) over all pairs but those of a target with itself: at most `level`
    of those listed are false on average. Positive and negative influences both. P-values are from
    the randomness of the masks (`randomization_p_values`), for ridge and LASSO the larger of
    that, of what the own example leaves of the losses, and Student's t.

    Being listed for their size, values are on average too large (the winner's curse);
    `cross_fitted` are not, and `low` .. `high` hold the truth of all but `level` of them.

    examples: `[P]` int32 positions.
    targets: `[P]` int32 positions.
    values: `[P]` influences, in the unit of the measurement.
    standard_errors: `[P]` of these.
    p_values: `[P]` two-sided, float64.
    cross_fitted: `[P]` influences by members that had no part in the listing, see
        `cross_fitted_values`.
    low: `[P]` lower ends of intervals adjusted for the selection, see `selected_intervals`.
    high: `[P]` upper ends of the same.
    level: the false discovery rate.
    tests: how many pairs were tested.
    untested_examples: how many examples are in, or out of, fewer than 10 members, of which no
        pair was tested: noise cannot be distinguished from influence there.
    complete: False where there are more discoveries than memory was kept for (2^20 at least);
        those of smallest p-value are listed then.
    """

    examples: Int[np.ndarray, ' P']
    targets: Int[np.ndarray, ' P']
    values: Float[np.ndarray, ' P']
    standard_errors: Float[np.ndarray, ' P']
    p_values: Float[np.ndarray, ' P']
    cross_fitted: Float[np.ndarray, ' P']
    low: Float[np.ndarray, ' P']
    high: Float[np.ndarray, ' P']
    level: float
    tests: int
    untested_examples: int
    complete: bool

    def matrix(self, *, examples: int, targets: int) -> 'scipy.sparse.csr_array':
        """The influences as a sparse matrix `[N T]`, 0 where a pair is no discovery."""
        places = (self.examples, self.targets)
        return scipy.sparse.coo_array((self.values, places), shape=(examples, targets)).tocsr()


class Candidates(NamedTuple):
    """Entries of a block that may be discoveries.

    first_target: of the block.
    entries: structured, as `_CANDIDATE`.
    p_values_of: see `Discoveries.candidates`.
    """

    first_target: int
    entries: np.ndarray
    p_values_of: PValues


class Discoveries:
    """Collects the candidates of block after block and finds the discoveries among all.

    Only p-values up to `level` times the kept share of all pairs can be discoveries as long as
    no more than that share is discovered, so all others may be forgotten at once. Exact p-values
    are computed at the end, of those alone that Student's t, taken leniently, would list.

    tested: `[N]` examples whose pairs are tested.
    """

    def __init__(
        self,
        *,
        level: float,
        tested: Bool[np.ndarray, ' N'],
        members: int | None,
        self_index: Int[np.ndarray, ' T'],
    ) -> None:
        if not 0 < level < 1:
            raise ValueError(f'{level=} of false discoveries must lie strictly between 0 and 1')
        self._level, self._members = level, members
        self.tested = tested
        tests = int(self.tested.sum()) * len(self_index)
        self._tests = tests - int(self.tested[self_index[self_index >= 0]].sum())
        self._most_p = level * min(1.0, _MOST_PAIRS / max(self._tests, 1))
        self._parts: list[np.ndarray] = []
        self._first_targets: list[int] = []
        self._p_values_of: list[PValues] = []
        self._complete = True

    @property
    def least_z(self) -> float:
        """The |z| from which on an entry may be a discovery."""
        return z_of_p(self._most_p ** (1 / _LENIENT), members=self._members)

    def candidates(
        self,
        examples: Int[np.ndarray, ' C'],
        targets: Int[np.ndarray, ' C'],
        values: Float[np.ndarray, ' C'],
        standard_errors: Float[np.ndarray, ' C'],
        *,
        first_target: int,
        p_values_of: PValues,
    ) -> Candidates:
        """Returns which entries of a block may be discoveries.

        Args:
          examples: positions; each pair once.
          targets: positions among all.
          values: influences.
          standard_errors: of these.
          first_target: of the block.
          p_values_of: exact p-values of the block's entries, targets counted from its first.
        """
        # Without any noise there is nothing to compare with: 0 / 0 is no discovery.
        p = p_values(z_scores(values, standard_errors), members=self._members)
        may = self.tested[examples] & (p**_LENIENT <= self._most_p)
        part = _nothing(int(may.sum()))
        columns = (examples, targets, values, standard_errors, p)
        for name, column in zip(part.dtype.names or (), columns, strict=True):
            part[name] = column[may]
        return Candidates(first_target, part, p_values_of)

    def add(self, of_block: Candidates) -> None:
        """Adds what may be discoveries of one block; blocks come in their order."""
        self._first_targets.append(of_block.first_target)
        self._p_values_of.append(of_block.p_values_of)
        self._parts.append(of_block.entries)
        if sum(map(len, self._parts)) > 4 * _MOST_PAIRS:
            kept = np.sort(np.concatenate(self._parts), order='p')[:_MOST_PAIRS]
            self._parts, self._complete = [kept], False

    def found(self) -> SignificantPairs:
        """The discoveries among everything added."""
        candidates = self._exact(self._likely())
        found = benjamini_hochberg(
            candidates['exact'], level=self._level, tests=max(self._tests, len(candidates))
        )
        # A threshold at the end of what was kept might have been passed by what was not.
        complete = self._complete and int(found.sum()) <= _MOST_PAIRS
        pairs = candidates[found]
        low, high, cross_fitted = self._selected(pairs)
        return SignificantPairs(
            pairs['example'],
            pairs['target'],
            pairs['value'],
            pairs['error'],
            pairs['exact'],
            cross_fitted,
            low,
            high,
            self._level,
            self._tests,
            int((~self.tested).sum()),
            complete,
        )

    def _likely(self) -> np.ndarray:
        """The candidates that would be discoveries by lenient p-values."""
        ascending = np.concatenate([part['p'] for part in (_nothing(0), *self._parts)])
        ascending.sort()
        most = np.arange(1, len(ascending) + 1, dtype=np.float32)
        most *= self._level / max(self._tests, len(ascending), 1)
        np.power(most, 1 / _LENIENT, out=most)
        below = np.flatnonzero(ascending <= most)
        least = ascending[below[-1]] if below.size else -1.0
        # Part by part: all candidates together need not be held twice.
        return np.concatenate([_nothing(0), *(part[part['p'] <= least] for part in self._parts)])

    def _exact(self, candidates: np.ndarray) -> np.ndarray:
        """The same with exact p-values, smallest first."""
        likely, candidates = candidates, np.empty(len(candidates), [*_CANDIDATE, ('exact', 'f8')])
        for name in likely.dtype.names or ():
            candidates[name] = likely[name]
        block = np.searchsorted(self._first_targets, candidates['target'], side='right') - 1

        def of_block(one: int) -> None:
            of = np.flatnonzero(block == one)
            some = candidates[of]
            z = z_scores(some['value'], some['error'])
            targets = some['target'].astype(int) - self._first_targets[one]
            candidates['exact'][of] = self._p_values_of[one](
                targets, some['example'].astype(int), z
            )

        deque(side_by_side(of_block, np.unique(block).tolist()), maxlen=0)
        keys = (candidates[name] for name in ('example', 'target', 'exact'))
        return candidates[np.lexsort(tuple(keys))]

    def _selected(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ends of the intervals, and cross-fitted values."""
        values, standard_errors = (pairs[name].astype(np.float64) for name in ('value', 'error'))
        low, high = selected_intervals(
            values,
            standard_errors,
            members=self._members,
            selected=len(pairs),
            candidates=max(self._tests, 1, len(pairs)),
            level=1 - self._level,
        )
        threshold = self._level * max(len(pairs), 1) / max(self._tests, 1)
        z = -scipy.special.ndtri(np.maximum(pairs['exact'], _LEAST_P) / 2)
        fitted = cross_fitted_values(
            values, z, least_z=float(-scipy.special.ndtri(min(threshold, 1) / 2))
        )
        return low.astype(np.float32), high.astype(np.float32), fitted.astype(np.float32)


_CANDIDATE = [('example', 'i4'), ('target', 'i4'), ('value', 'f4'), ('error', 'f4'), ('p', 'f4')]


def _nothing(rows: int) -> np.ndarray:
    return np.empty(rows, _CANDIDATE)


def cross_fitted_values(
    values: Float[AnyArray, ' P'], z: Float[AnyArray, ' P'], *, least_z: float
) -> Float[np.ndarray, ' P']:
    """Cross-fitted values of entries that were listed because |z| exceeds a threshold.

    What five-fold cross-fitting gives on average over all ways of drawing the folds, in closed
    form for normal errors: four fifths of the members list an entry, the remaining fifth tells
    its value (the estimate in two stages of Cohen and Sackrowitz 1989, Statistics and Probability
    Letters 8:273; the shift of the threshold, by which the mean over listed entries is right
    although the listing is by all members, is ours). Entries far beyond the threshold keep
    their value.

    Args:
      values: influences.
      z: in standard errors; of the same sign.
      least_z: the threshold.
    """
    size = np.abs(np.asarray(z, np.float64))
    shift = -scipy.special.ndtri(np.exp(-1))  # then what is taken off on average is the bias
    at = shift - _FOLDS_ROOT * (size - least_z)
    # The inverse Mills ratio.
    ratio = np.exp(-(at**2) / 2 - scipy.special.log_ndtr(-at)) / np.sqrt(2 * np.pi)
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.asarray(values) * (1 - np.where(size > 0, _FOLDS_ROOT * ratio / size, 0))
