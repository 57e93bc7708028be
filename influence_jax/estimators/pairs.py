"""The entries of the influence matrix that are not noise, as a sparse matrix."""

from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.uncertainty import benjamini_hochberg, p_values, z_of_p, z_scores

_MOST_PAIRS = 2**20


class SignificantPairs(NamedTuple):
    """Pairs of an example and another target that are discoveries; smallest p-value first.

    Benjamini and Hochberg (1995) over all pairs but those of a target with itself: at most `level`
    of those listed are false on average. Positive and negative influences both.

    examples: `[P]` int32 positions.
    targets: `[P]` int32 positions.
    values: `[P]` influences, in the unit of the measurement.
    standard_errors: `[P]` of these.
    p_values: `[P]` two-sided, float64.
    level: the false discovery rate.
    tests: how many pairs were tested.
    complete: False where there are more discoveries than memory was kept for (2^20 at least);
        those of smallest p-value are listed then.
    """

    examples: Int[np.ndarray, 'P']
    targets: Int[np.ndarray, 'P']
    values: Float[np.ndarray, 'P']
    standard_errors: Float[np.ndarray, 'P']
    p_values: Float[np.ndarray, 'P']
    level: float
    tests: int
    complete: bool

    def matrix(self, *, examples: int, targets: int) -> scipy.sparse.csr_array:
        """The influences as a sparse matrix `[N T]`, 0 where a pair is no discovery."""
        places = (self.examples, self.targets)
        return scipy.sparse.coo_array((self.values, places), shape=(examples, targets)).tocsr()


class Discoveries:
    """Collects the candidates of block after block and finds the discoveries among all.

    Only p-values up to `level` times the kept share of all pairs can be discoveries as long as
    no more than that share is discovered, so all others may be forgotten at once.
    """

    def __init__(self, *, level: float, members: int, tests: int) -> None:
        if not 0 < level < 1:
            raise ValueError(f'{level=} of false discoveries must lie strictly between 0 and 1')
        self._level, self._members, self._tests = level, members, tests
        self._most_p = level * min(1.0, _MOST_PAIRS / max(tests, 1))
        self._parts: list[np.ndarray] = []
        self._complete = True

    @property
    def least_z(self) -> float:
        """The |z| from which on an entry may be a discovery."""
        return z_of_p(self._most_p, members=self._members)

    def add(
        self,
        examples: Int[np.ndarray, 'C'],
        targets: Int[np.ndarray, 'C'],
        values: Float[np.ndarray, 'C'],
        standard_errors: Float[np.ndarray, 'C'],
    ) -> None:
        """Adds candidates, each pair once."""
        # Without any noise there is nothing to compare with: 0 / 0 is no discovery.
        p = p_values(z_scores(values, standard_errors), members=self._members)
        self._keep(p <= self._most_p, examples, targets, values, standard_errors, p)
        if sum(map(len, self._parts)) > 4 * _MOST_PAIRS:
            kept = np.sort(np.concatenate(self._parts), order='p')[:_MOST_PAIRS]
            self._parts, self._complete = [kept], False

    def found(self) -> SignificantPairs:
        """The discoveries among everything added."""
        candidates = np.sort(np.concatenate([_nothing(0), *self._parts]), order='p')
        found = benjamini_hochberg(candidates['p'], level=self._level, tests=self._tests)
        # A threshold at the end of what was kept might have been passed by what was not.
        complete = self._complete and int(found.sum()) <= _MOST_PAIRS
        pairs = candidates[found]
        return SignificantPairs(
            pairs['example'],
            pairs['target'],
            pairs['value'],
            pairs['error'],
            pairs['p'],
            self._level,
            self._tests,
            complete,
        )

    def _keep(self, which: Bool[np.ndarray, 'C'], *columns: np.ndarray) -> None:
        part = _nothing(int(which.sum()))
        for name, column in zip(part.dtype.names or (), columns, strict=True):
            part[name] = column[which]
        self._parts.append(part)


def _nothing(rows: int) -> np.ndarray:
    fields = [('example', 'i4'), ('target', 'i4'), ('value', 'f4'), ('error', 'f4'), ('p', 'f8')]
    return np.empty(rows, fields)
