"""The scan on a CPU: products by numpy's BLAS, then columns sorted piece by piece in the cache."""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.packed import PackedColumns
from influence_jax.estimators.scan.contract import (
    EDGES,
    SummaryRequest,
    SummaryResult,
    Targets,
    error_of_entries,
)
from influence_jax.estimators.tiling import in_threads
from influence_jax.types import AnyArray

_IN_CACHE = 2**18  # entries that a thread works on at once; with their copies they fit in a cache
_PRODUCT = 2**12  # examples that a thread multiplies at once
_INNER_EDGES = EDGES[1:-1].astype(np.float32)  # the outermost bins hold all that is beyond

_EVEN, _ODD, _ALL = range(3)
_MEMBERS = slice(0, None, 2), slice(1, None, 2), slice(None)


class HostScan:
    """A `Scan` for CPUs."""

    def __init__(self, masks: Bool[np.ndarray, 'M N']) -> None:
        self._masks = masks
        self._packed = PackedColumns.of(masks)
        included = [masks[members].sum(axis=0) for members in _MEMBERS]
        self._included = np.stack(included).astype(np.float32)

    def columns(self, targets: Targets, request: SummaryRequest) -> SummaryResult:
        """See `Scan`."""
        losses = np.asarray(targets.losses, np.float32)
        values = self._differences(self._sums(losses, _ALL), losses, _ALL)
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
        self, losses: Float[np.ndarray, 'M t'], self_index: Int[np.ndarray, ' t'], count: int
    ) -> Int[np.ndarray, '3 t K']:
        """See `Scan`."""
        losses = np.asarray(losses, np.float32)
        even, odd = (self._sums(losses, half) for half in (_EVEN, _ODD))
        whole = even + odd
        found = []
        for part, sums in ((_EVEN, even), (_ODD, odd), (_ALL, whole)):
            scores = self._differences(sums, losses, part, as_t_statistics=True)
            found.append(_strongest(scores, self_index, count))
        return np.stack(found)

    def entries(
        self,
        losses: Float[AnyArray, 'M t'],
        targets: Int[np.ndarray, ' C'],
        examples: Int[np.ndarray, ' C'],
    ) -> tuple[Float[np.ndarray, ' C'], Float[np.ndarray, ' C']]:
        """See `Scan`."""
        by_target = np.asarray(losses.T, np.float64)
        powers = np.stack([by_target, by_target**2], axis=-1)
        inside = np.empty((len(targets), 2))
        order = np.argsort(targets, kind='stable')

        def of_some(these: Int[np.ndarray, ' c'], piece: slice) -> None:
            """Sums of the losses of one target, and of their squares, with some examples."""
            these = these[piece]
            included = self._packed.columns(examples[these]).astype(np.float64)
            inside[these] = included @ powers[targets[these[0]]]

        for these in np.split(order, np.flatnonzero(np.diff(targets[order])) + 1):
            if not these.size:
                continue
            # Of a whole column, the masks as float64 would take eight times their memory.
            work = functools.partial(of_some, these)
            in_threads(work, len(these), step=_rows(len(losses)))
        count = self._included[_ALL][examples]
        outside = powers.sum(axis=1)[targets] - inside
        means, within = [], []
        for n, (total, squares) in ((count, inside.T), (len(losses) - count, outside.T)):
            means.append(total / n)
            within.append(np.maximum(squares - total * means[-1], 0))
        values, included = means[1] - means[0], self._included[_ALL]
        errors = error_of_entries(included, losses, targets, examples, values, np.stack(within))
        return values, errors

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
        sums: Float[np.ndarray, 't N'],
        losses: Float[np.ndarray, 'M t'],
        part: int,
        *,
        as_t_statistics: bool = False,
    ) -> Float[np.ndarray, 't N']:
        """Means without - means with, in the place of the sums; 0 where one is of nobody.

        As t statistics, their absolute values: of two groups of one variance, whatever that is.
        """
        members, inside = _MEMBERS[part], self._included[part]
        outside = len(self._masks[members]) - inside
        unit = np.sqrt(inside * outside) if as_t_statistics else (inside > 0) & (outside > 0)
        of_total = unit * _inverse(outside)
        of_inside = of_total + unit * _inverse(inside)
        total = losses[members].sum(axis=0)[:, None]

        def finish(rows: slice) -> None:
            some = sums[rows]
            some *= -of_inside
            some += total[rows] * of_total
            if as_t_statistics:
                np.abs(some, out=some)

        in_threads(finish, len(sums), step=_rows(sums.shape[1]))
        return sums


def _strongest(
    scores: Float[np.ndarray, 't N'], self_index: Int[np.ndarray, ' t'], count: int
) -> Int[np.ndarray, 't K']:
    """Of each row, its own example before all others."""
    own = np.flatnonzero(self_index >= 0)
    scores[own, self_index[own]] = np.inf

    def of_some(rows: slice) -> Int[np.ndarray, 'r K']:
        some = scores[rows]
        least = np.partition(some, -count, axis=1)[:, -count, None]
        return _sorted_entries(some, some >= least).last(count)

    return np.concatenate(in_threads(of_some, len(scores), step=_rows(scores.shape[1])))


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
    per_unit = _inverse(np.asarray(unit, np.float32))
    ranks, strongest = list(request.ranks), request.strongest

    def of_some(rows: slice) -> SummaryResult:
        some = values[rows]
        ascending = np.sort(some, axis=1)
        beyond = np.abs(some) > floor[rows]
        least, most = ascending[:, -strongest, None], ascending[:, strongest - 1, None]
        listed = _sorted_entries(some, (some >= least) | (some <= most))
        row, example = np.nonzero(beyond)
        ranked = ascending[:, ranks]
        z = np.multiply(ascending, per_unit[rows, None], out=ascending)
        of_histogram = z if counted is None else z[counted[rows]]
        below = sum(
            (np.searchsorted(column, _INNER_EDGES) for column in of_histogram),
            np.zeros(len(_INNER_EDGES), int),
        )
        histogram = np.diff(below, prepend=0, append=of_histogram.size)
        own = self_index[rows] >= 0
        if counted is not None:
            own &= counted[rows]
        z_of_own = some[own, self_index[rows][own]] * per_unit[rows][own]
        histogram -= np.bincount(
            np.searchsorted(_INNER_EDGES, z_of_own, side='right'), minlength=len(histogram)
        )
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


def _inverse(x: Float[np.ndarray, '...']) -> Float[np.ndarray, '...']:
    """One over x, 0 where that is 0."""
    return np.divide(1, x, where=x > 0, out=np.zeros_like(x))
