"""The scan on a CPU: products by numpy's BLAS, then columns read piece by piece in the cache.

Nothing is sorted but what is chosen: the strongest entries are those beyond a threshold that the
largest entries of chunks give, and quantiles are looked for in the bins of the histogram.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.scan.contract import (
    BINS_A_SIDE,
    REACH,
    SummaryRequest,
    SummaryResult,
    Targets,
)
from influence_jax.estimators.scan.single_entries import ByColumns
from influence_jax.threads import in_threads
from influence_jax.types import AnyArray

_IN_CACHE = 2**16  # entries that a thread works on at once; with their copies they fit in a cache
_PRODUCT = 2**12  # examples that a thread multiplies at once
_BINS = 2 * BINS_A_SIDE
_CHUNKS, _LONGEST = 8, 32  # how many chunks for an entry that is wanted, and of how many entries

_EVEN, _ODD, _ALL = range(3)
_MEMBERS = slice(0, None, 2), slice(1, None, 2), slice(None)


class Factors(NamedTuple):
    """A difference of means is total * of_total + (sum with the example) * of_inside.

    Rows: by the members of even number, by those of odd number, by all. 0 where one of the means is
    of nobody.
    """

    of_total: Float[np.ndarray, '3 N']
    of_inside: Float[np.ndarray, '3 N']


def included_in_parts(masks: Bool[np.ndarray, 'M N']) -> Float[np.ndarray, '3 N']:
    """How many members of even number have each example, of odd number, and of all."""
    halves = [masks[members].sum(axis=0) for members in (_MEMBERS[_EVEN], _MEMBERS[_ODD])]
    return np.stack([*halves, halves[0] + halves[1]]).astype(np.float32)


def factors(included: Float[np.ndarray, '3 N'], members: int, as_t_statistics: bool) -> Factors:
    """As t statistics: of two groups of one variance, whatever that is."""
    size = np.array([[len(range(members)[part])] for part in _MEMBERS], np.float32)
    outside = size - included
    both = (included > 0) & (outside > 0)
    unit = np.sqrt(included * outside) if as_t_statistics else both.astype(np.float32)
    of_total = unit * inverse(outside)
    return Factors(of_total, -(of_total + unit * inverse(included)))


class HostScan:
    """A `Scan` for CPUs."""

    blocks_at_once = 1

    def __init__(self, masks: Bool[np.ndarray, 'M N']) -> None:
        self.single = ByColumns(masks)
        self._masks = masks
        included = included_in_parts(masks)
        self._factors = [factors(included, len(masks), scaled) for scaled in (False, True)]

    def columns(self, targets: Targets, request: SummaryRequest) -> SummaryResult:
        """See `Scan`."""
        losses = np.asarray(targets.losses, np.float32)
        values = self._sums(losses, _ALL)

        total = losses.sum(axis=0)

        def finish(rows: slice) -> None:
            self._differences(values[rows], total[rows], _ALL)

        in_threads(finish, len(values), step=_rows(values.shape[1]))
        rows, place = np.nonzero(targets.fixed_examples >= 0)
        values[rows, targets.fixed_examples[rows, place]] = targets.fixed_values[rows, place]
        return read_columns(
            values,
            unit=targets.null_error,
            floor=targets.floor[:, None],
            self_index=np.asarray(targets.self_index),
            request=request,
        )

    def candidate_regressors(
        self,
        losses: Float[np.ndarray, 'M t'],
        self_index: Int[np.ndarray, ' t'],
        count: int,
        *,
        parts: int = 3,
    ) -> Int[np.ndarray, '{parts} t K']:
        """See `Scan`."""
        losses = np.asarray(losses, np.float32)
        even, odd = (self._sums(losses, half) for half in (_EVEN, _ODD))
        total = [losses[members].sum(axis=0) for members in _MEMBERS]

        def of_some(rows: slice) -> Int[np.ndarray, 'P r K']:
            sums = [even[rows], odd[rows]]
            # Before those of the halves become differences, in their place.
            sums += [even[rows] + odd[rows]] * (parts > len(sums))
            found = []
            for part, of in enumerate(sums):
                scores = self._differences(of, total[part][rows], part, as_t_statistics=True)
                found.append(_strongest(scores, self_index[rows], count))
            return np.stack(found)

        pieces = in_threads(of_some, len(even), step=_rows(even.shape[1]))
        return np.concatenate(pieces, axis=1)

    def _sums(self, losses: Float[np.ndarray, 'M t'], part: int) -> Float[np.ndarray, 't N']:
        """Sums of the losses of those of the members that include each example."""
        masks, losses = self._masks[_MEMBERS[part]], losses[_MEMBERS[part]].T
        sums = np.empty((len(losses), masks.shape[1]), np.float32)

        def of_some(examples: slice) -> None:
            # By pieces: as float32 the masks would take four times their memory for good.
            np.matmul(losses, masks[:, examples].astype(np.float32), out=sums[:, examples])

        in_threads(of_some, masks.shape[1], step=_PRODUCT)
        return sums

    def _differences(
        self,
        sums: Float[np.ndarray, 'r N'],
        total: Float[np.ndarray, ' r'],
        part: int,
        *,
        as_t_statistics: bool = False,
    ) -> Float[np.ndarray, 'r N']:
        """Means without - means with, in the place of the sums; 0 where one is of nobody.

        As t statistics, their absolute values: of two groups of one variance, whatever that is.
        """
        of_total, of_inside = (some[part] for some in self._factors[as_t_statistics])
        sums *= of_inside
        sums += total[:, None] * of_total
        return np.abs(sums, out=sums) if as_t_statistics else sums


def _strongest(
    scores: Float[np.ndarray, 'r N'], self_index: Int[np.ndarray, ' r'], count: int
) -> Int[np.ndarray, 'r K']:
    """Of each row, its own example before all others."""
    own = np.flatnonzero(self_index >= 0)
    scores[own, self_index[own]] = np.inf
    least = _of_chunks(scores, count, np.maximum)
    return _sorted_entries(scores, scores >= least).last(count)


def _of_chunks(
    values: Float[np.ndarray, 'r N'], count: int, most: np.ufunc
) -> Float[np.ndarray, 'r 1']:
    """A threshold that at least `count` entries of each row reach, and few others.

    The largest entries of that many chunks do.

    Args:
      values: at least so many a row.
      count: see above.
      most: np.maximum; or np.minimum, for a threshold that the smallest entries reach from above.
    """
    examples = values.shape[1]
    length = int(np.clip(examples // (_CHUNKS * count), 1, _LONGEST))
    chunks = examples // length
    # Far-off entries together: whole rows of chunks are compared at once.
    of_chunk = most.reduce(values[:, : length * chunks].reshape(-1, length, chunks), axis=1)
    of_chunk = np.concatenate([of_chunk, values[:, length * chunks :]], axis=1)
    place = count - 1 if most is np.minimum else of_chunk.shape[1] - count
    return np.partition(of_chunk, place, axis=1)[:, place, None]


def read_columns(
    values: Float[np.ndarray, 't N'],
    *,
    unit: Float[AnyArray, ' t'],
    floor: Float[AnyArray, 't _'],
    self_index: Int[np.ndarray, ' t'],
    request: SummaryRequest,
    counted: Bool[np.ndarray, ' t'] | None = None,
) -> SummaryResult:
    """Answers the request about columns that are there; of equal entries the first is the lowest.

    Args:
      values: one column of the matrix a row.
      unit: by which entries are divided for moments and histogram; 0 for a column of zeros.
      floor: candidates are the entries of larger absolute value.
      self_index: as in `Targets`.
      request: what is asked about each column.
      counted: which columns the histogram counts; all by default.
    """
    per_unit = inverse(np.asarray(unit, np.float32))
    ranks, strongest = np.asarray(request.ranks, int), request.strongest

    def of_some(rows: slice) -> SummaryResult:
        some = values[rows]
        least = _of_chunks(some, strongest, np.maximum)
        most = _of_chunks(some, strongest, np.minimum)
        listed = _sorted_entries(some, (some >= least) | (some <= most))
        row, example = np.divmod(np.flatnonzero(np.abs(some) > floor[rows]), some.shape[1])
        z = some * per_unit[rows, None]
        bins = _bins(z)
        counts, ranked = _counted(some, bins, ranks)
        own, of_histogram = self_index[rows] >= 0, counts
        if counted is not None:
            own, of_histogram = own & counted[rows], counts[counted[rows]]
        of_own = bins[own, self_index[rows][own]]
        histogram = of_histogram.sum(axis=0) - np.bincount(of_own, minlength=_BINS)
        power, moments = z.copy(), []
        for _ in range(4):
            moments.append(power.mean(axis=1, dtype=np.float64))
            power *= z
        return SummaryResult(
            listed.last(strongest),
            listed.first(strongest),
            np.stack(moments, axis=1),
            ranked,
            row + rows.start,
            example,
            histogram[None],
        )

    pieces = in_threads(of_some, len(values), step=_rows(values.shape[1]))
    whole = SummaryResult(*map(np.concatenate, zip(*pieces, strict=True)))
    return whole._replace(histogram=whole.histogram.sum(axis=0))


def _bins(z: Float[np.ndarray, 'r N']) -> Int[np.ndarray, 'r N']:
    """The bin of `EDGES` that each lies in; exact, since edges are multiples of a power of two."""
    bins = z * np.float32(BINS_A_SIDE / REACH)
    np.floor(bins, out=bins)
    np.clip(bins, -BINS_A_SIDE, BINS_A_SIDE - 1, out=bins)
    bins += BINS_A_SIDE
    return bins.astype(np.intp)


def _counted(
    values: Float[np.ndarray, 'r N'], bins: Int[np.ndarray, 'r N'], ranks: Int[np.ndarray, ' R']
) -> tuple[Int[np.ndarray, 'r E'], Float[np.ndarray, 'r R']]:
    """Entries of each row in each bin, and those of some ranks: of a few bins alone, sorted."""
    rows, examples = values.shape
    first = np.arange(rows)[:, None]
    # Bins of all rows, one row behind the other.
    flat = (bins + first * _BINS).ravel()
    counts = np.bincount(flat, minlength=rows * _BINS)
    up_to = np.cumsum(counts)
    rank = ranks + first * examples
    of_rank = np.searchsorted(up_to, rank.ravel(), side='right').reshape(rank.shape)
    wanted = np.zeros(len(counts), bool)
    wanted[of_rank] = True
    chosen = values.ravel()[np.flatnonzero(wanted[flat])]
    kept = np.cumsum(np.where(wanted, counts, 0))
    bounds = [0, *kept[_BINS - 1 :: _BINS].tolist()]
    for start, stop in itertools.pairwise(bounds):
        chosen[start:stop].sort()
    place = kept[of_rank] - (up_to[of_rank] - rank)
    return counts.reshape(rows, _BINS), chosen[place]


class _SortedEntries(NamedTuple):
    """Some entries of each row, in ascending order.

    column: `[E]` row after row.
    bounds: `[r + 1]` where each row begins.
    """

    column: Int[np.ndarray, ' E']
    bounds: Int[np.ndarray, ' r+1']

    def first(self, count: int) -> Int[np.ndarray, 'r K']:
        """Columns of the smallest entries of each row, smallest first."""
        return self.column[self.bounds[:-1, None] + np.arange(count)]

    def last(self, count: int) -> Int[np.ndarray, 'r K']:
        """Columns of the largest entries of each row, largest first."""
        return self.column[self.bounds[1:, None] - 1 - np.arange(count)]


def _sorted_entries(
    values: Float[np.ndarray, 'r N'], taken: Bool[np.ndarray, 'r N']
) -> _SortedEntries:
    flat = np.flatnonzero(taken)
    row, column = np.divmod(flat, values.shape[1])
    order = np.lexsort((values.ravel()[flat], row))
    return _SortedEntries(column[order], np.searchsorted(row, np.arange(len(values) + 1)))


def _rows(width: int) -> int:
    """How many rows of this width a thread works on at once."""
    return max(1, _IN_CACHE // width)


def inverse(x: Float[np.ndarray, '...']) -> Float[np.ndarray, '...']:
    """One over x, 0 where that is 0."""
    return np.divide(1, x, where=x > 0, out=np.zeros_like(x))
