"""The scan on a CPU: sums over members by table lookup, and one pass over values still in cache.

Masks are bits, so a sum over 7 members has only 128 possible values. These are tabulated for 64
targets at a time and each example looks its own up (the 'method of four Russians'): no
multiplication is left, sums stay float32, and it beats a matrix product on the same cores.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from influence_jax.estimators.scan.contract import (
    BINS_A_SIDE,
    REACH,
    SummaryRequest,
    SummaryResult,
    Targets,
    error_of_entries,
)
from influence_jax.types import AnyArray

_BITS = 7  # members a lookup: four tables of 2^7 rows fill an eighth of a usual L2 cache
_TABLES = 4  # looked up together, so that a sum is loaded and stored once for all of them
_LANES = 64  # targets side by side, wide enough for any vector unit
_BLOCK = 1024  # examples whose sums stay in the cache while all members are added
_BINS = 2 * BINS_A_SIDE
_CANDIDATES = 64  # of a target, at first

_STAGE = _BITS * _TABLES


class HostScan:
    """A `Scan` for CPUs."""

    def __init__(self, masks: Bool[np.ndarray, 'M N']) -> None:
        halves = masks[0::2], masks[1::2]
        self._even_stages = -(-len(halves[0]) // _STAGE)
        self._index = np.concatenate([_index(half) for half in halves])
        rows = [np.arange(first, len(masks), 2) for first in (0, 1)]
        self._rows = np.concatenate(
            [np.pad(half, (0, -len(half) % _STAGE), constant_values=-1) for half in rows]
        )
        self._by_example = np.ascontiguousarray(masks.T)
        self._included = np.stack([m.sum(axis=0) for m in (*halves, masks)]).astype(np.float64)
        self._members = np.array([len(m) for m in (*halves, masks)], np.float64)

    def columns(self, targets: Targets, request: SummaryRequest) -> SummaryResult:
        """See `Scan`."""
        included, members = self._included[2], self._members[2]
        known = targets.null_error > 0
        arguments = (
            self._index,
            self._arranged(targets.losses),
            (1 / included + 1 / (members - included)).astype(np.float32),
            (1 / (members - included)).astype(np.float32),
            np.divide(1, targets.null_error, where=known, out=np.zeros(len(known))).astype('f4'),
            targets.self_index.astype(np.int64),
            targets.floor.astype(np.float32),
            targets.fixed_examples.astype(np.int64),
            targets.fixed_values.astype(np.float32),
            request.strongest,
            np.asarray(request.ranks, np.int64),
        )
        capacity = _CANDIDATES
        while True:
            top, bottom, moments, ranked, count, listed, histogram = _columns(*arguments, capacity)
            if count.max() <= capacity:
                break
            capacity = int(count.max())
        taken = np.arange(capacity) < count[:, None]
        return SummaryResult(
            top, bottom, moments, ranked, np.nonzero(taken)[0], listed[taken], histogram.sum(axis=0)
        )

    def candidate_regressors(
        self, losses: Float[np.ndarray, 'M t'], self_index: Int[np.ndarray, ' t'], count: int
    ) -> Int[np.ndarray, '3 t K']:
        """See `Scan`."""
        return _candidate_regressors(
            self._index,
            self._even_stages,
            self._arranged(losses),
            self._included,
            self._members,
            self_index.astype(np.int64),
            count,
        )

    def entries(
        self,
        losses: Float[AnyArray, 'M t'],
        targets: Int[np.ndarray, ' C'],
        examples: Int[np.ndarray, ' C'],
    ) -> tuple[Float[np.ndarray, ' C'], Float[np.ndarray, ' C']]:
        """See `Scan`."""
        values, within = _entries(
            self._by_example,
            np.ascontiguousarray(losses.T, np.float32),
            targets.astype(np.int64),
            examples.astype(np.int64),
        )
        masks = self._by_example.T
        return values, error_of_entries(masks, losses, targets, examples, values, within)

    def _arranged(self, losses: Float[AnyArray, 'M t']) -> Float[np.ndarray, 'rows lanes']:
        """Rows in the order of the index, with zeros where it was filled up."""
        arranged = np.zeros((len(self._rows), -(-losses.shape[1] // _LANES) * _LANES), np.float32)
        used = self._rows >= 0
        arranged[used, : losses.shape[1]] = np.asarray(losses)[self._rows[used]]
        return arranged


def _index(masks: Bool[np.ndarray, 'm N']) -> UInt8[np.ndarray, 'S N tables']:
    """Which row of each table an example looks up."""
    filled = np.zeros((-(-len(masks) // _STAGE) * _STAGE, masks.shape[1]), np.uint8)
    filled[: len(masks)] = masks
    bits = filled.reshape(-1, _TABLES, _BITS, masks.shape[1])
    weights = (1 << np.arange(_BITS, dtype=np.uint8))[:, None]
    rows = np.stack([(stage * weights).sum(axis=1, dtype=np.uint8) for stage in bits])
    return np.ascontiguousarray(rows.transpose(0, 2, 1))


def _compiled(**options: Any) -> Callable[[Callable], Callable]:
    """`numba.njit`, kept on disk for the next process where there is a place for it."""

    def compiled(function: Callable) -> Callable:
        function = inspect.unwrap(function)  # numba compiles no wrapper, such as a type checker's
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # numba's own, on import: no such place
            return numba.njit(**options)(function)

    return compiled


@_compiled()
def _tables(losses, lane):
    stages = losses.shape[0] // _STAGE
    tables = np.zeros((stages, _TABLES, 1 << _BITS, _LANES), np.float32)
    for stage in range(stages):
        for table in range(_TABLES):
            rows = tables[stage, table]
            for bit in range(_BITS):
                member = losses[(stage * _TABLES + table) * _BITS + bit]
                for row in range(1 << bit):
                    for k in range(_LANES):
                        rows[(1 << bit) + row, k] = rows[row, k] + member[lane + k]
    return tables


@_compiled()
def _add_stage(tables, index, first, last, sums):
    a, b, c, d = tables[0], tables[1], tables[2], tables[3]
    for i in range(first, last):
        p, q, r, s = index[i, 0], index[i, 1], index[i, 2], index[i, 3]
        row = sums[i - first]
        for k in range(_LANES):
            row[k] += (a[p, k] + b[q, k]) + (c[r, k] + d[s, k])


@_compiled(parallel=True)
def _columns(
    index,
    losses,
    both_sides,
    outside,
    inverse_error,
    self_index,
    floor,
    fixed_examples,
    fixed_values,
    strongest,
    ranks,
    capacity,
):
    targets, examples = len(self_index), index.shape[1]
    top = np.empty((targets, strongest), np.int64)
    bottom = np.empty((targets, strongest), np.int64)
    moments = np.zeros((targets, 4))
    ranked = np.empty((targets, len(ranks)), np.float32)
    counts = np.zeros(targets, np.int64)
    listed = np.empty((targets, capacity), np.int64)
    chunks = losses.shape[1] // _LANES
    histograms = np.zeros((chunks, _BINS), np.int64)
    for chunk in numba.prange(chunks):
        lane = chunk * _LANES
        used = min(_LANES, targets - lane)
        scale = np.zeros(_LANES, np.float32)
        scale[:used] = inverse_error[lane : lane + used]
        values = np.zeros((examples, _LANES), np.float32)
        bins = np.empty((examples, _LANES), np.int16)
        _values_and_bins(
            _tables(losses, lane),
            index,
            losses,
            lane,
            both_sides,
            outside,
            scale,
            values,
            bins,
            moments[lane : lane + used],
        )
        for k in range(used):
            target = lane + k
            for j in range(fixed_examples.shape[1]):
                example = fixed_examples[target, j]
                if example >= 0:
                    old, new = values[example, k], fixed_values[target, j]
                    values[example, k] = new
                    bins[example, k] = _bin(new * scale[k])
                    for power in range(4):
                        gain = np.float64(new * scale[k]) ** (power + 1)
                        gain -= np.float64(old * scale[k]) ** (power + 1)
                        moments[target, power] += gain / examples
        occupied = np.zeros((_LANES, _BINS), np.int32)
        for i in range(examples):
            for k in range(_LANES):
                occupied[k, bins[i, k]] += 1
        for k in range(used):
            target = lane + k
            for b in range(_BINS):
                histograms[chunk, b] += occupied[k, b]
            if self_index[target] >= 0:
                histograms[chunk, bins[self_index[target], k]] -= 1
        needed = np.zeros((_LANES, _BINS), np.bool_)
        sizes = np.zeros(_LANES, np.int64)
        for k in range(used):
            beyond = floor[lane + k] * scale[k]
            sizes[k] = _mark(occupied[k], ranks, strongest, examples, beyond, needed[k])
        found = np.empty((_LANES, sizes.max()), np.int64)
        filled = np.zeros(_LANES, np.int64)
        for i in range(examples):
            for k in range(used):
                if needed[k, bins[i, k]]:
                    found[k, filled[k]] = i
                    filled[k] += 1
        for k in range(used):
            target = lane + k
            _read_off(
                found[k, : sizes[k]],
                values[:, k],
                occupied[k],
                needed[k],
                ranks,
                floor[target],
                top[target],
                bottom[target],
                ranked[target],
                listed[target],
                counts[target : target + 1],
            )
    return top, bottom, moments, ranked, counts, listed, histograms


@_compiled()
def _values_and_bins(
    tables, index, losses, lane, both_sides, outside, scale, values, bins, moments
):
    total = np.zeros(_LANES, np.float32)
    for member in range(losses.shape[0]):
        for k in range(_LANES):
            total[k] += losses[member, lane + k]
    powers = np.empty((4, _LANES), np.float32)
    for first in range(0, len(values), _BLOCK):
        last = min(first + _BLOCK, len(values))
        sums = values[first:last]
        for stage in range(len(tables)):
            _add_stage(tables[stage], index[stage], first, last, sums)
        powers[:] = 0
        for i in range(first, last):
            row, places = values[i], bins[i]
            one_side, two_sides = outside[i], both_sides[i]
            for k in range(_LANES):
                value = one_side * total[k] - two_sides * row[k]
                row[k] = value
                z = value * scale[k]
                powers[0, k] += z
                powers[1, k] += z * z
                powers[2, k] += z * z * z
                powers[3, k] += z * z * z * z
                places[k] = _bin(z)
        for k in range(len(moments)):
            for power in range(4):
                moments[k, power] += powers[power, k] / len(values)


@_compiled()
def _bin(z):
    place = (z + np.float32(REACH)) * np.float32(BINS_A_SIDE / REACH)
    return np.int16(min(max(place, np.float32(0)), np.float32(_BINS - 1)))


@_compiled()
def _mark(occupied, ranks, strongest, examples, beyond, needed):
    """Marks the bins that hold an entry that is asked for; how many entries these hold."""
    lowest, highest = _bin(-beyond), _bin(beyond)
    below, rank, size = 0, 0, 0
    for b in range(_BINS):
        above = below + occupied[b]
        needed[b] = b <= lowest or b >= highest
        needed[b] |= below < strongest or above > examples - strongest
        while rank < len(ranks) and ranks[rank] < above:
            needed[b] = True
            rank += 1
        if needed[b]:
            size += occupied[b]
        below = above
    return size


@_compiled()
def _read_off(found, values, occupied, needed, ranks, floor, top, bottom, ranked, listed, count):
    """What is asked of one column, from the entries in the bins that were marked."""
    kept = values[found]
    order = np.argsort(kept, kind='mergesort')
    for j in range(len(bottom)):
        bottom[j] = found[order[j]]
        top[j] = found[order[len(order) - 1 - j]]
    below, skipped, b = 0, 0, 0
    for j in range(len(ranks)):
        while below + occupied[b] <= ranks[j]:
            below += occupied[b]
            if not needed[b]:
                skipped += occupied[b]
            b += 1
        ranked[j] = kept[order[ranks[j] - skipped]]
    for j in range(len(order)):
        if abs(kept[j]) > floor:
            if count[0] < len(listed):
                listed[count[0]] = found[j]
            count[0] += 1


@_compiled(parallel=True)
def _candidate_regressors(index, even_stages, losses, included, members, self_index, strongest):
    targets, examples = len(self_index), index.shape[1]
    chosen = np.zeros((3, targets, strongest), np.int64)
    weight = np.zeros((3, examples, 3), np.float32)
    for half in range(3):
        for i in range(examples):
            inside, outside = included[half, i], members[half] - included[half, i]
            if inside > 0 and outside > 0:  # else nothing is known of it
                root = np.sqrt(inside * outside / members[half])
                weight[half, i, 0] = root / outside
                weight[half, i, 1] = root * (1 / inside + 1 / outside)
    for chunk in numba.prange(losses.shape[1] // _LANES):
        lane = chunk * _LANES
        used = min(_LANES, targets - lane)
        tables = _tables(losses, lane)
        total = np.zeros((3, _LANES), np.float32)
        for member in range(losses.shape[0]):
            half = 0 if member < even_stages * _STAGE else 1
            for k in range(_LANES):
                total[half, k] += losses[member, lane + k]
        total[2] = total[0] + total[1]
        least = np.full((3, _LANES), np.float32(-1))
        best = np.full((3, _LANES, strongest), np.float32(-1))
        sums = np.empty((3, _BLOCK, _LANES), np.float32)
        score = np.empty(_LANES, np.float32)
        for first in range(0, examples, _BLOCK):
            last = min(first + _BLOCK, examples)
            sums[:2] = 0
            for stage in range(len(tables)):
                half = 0 if stage < even_stages else 1
                _add_stage(tables[stage], index[stage], first, last, sums[half])
            sums[2] = sums[0] + sums[1]
            for half in range(3):
                for i in range(first, last):
                    row = sums[half, i - first]
                    one_side, two_sides = weight[half, i, 0], weight[half, i, 1]
                    for k in range(_LANES):
                        score[k] = abs(one_side * total[half, k] - two_sides * row[k])
                    for k in range(used):
                        if score[k] > least[half, k] and self_index[lane + k] != i:
                            _insert(score[k], i, best[half, k], chosen[half, lane + k])
                            least[half, k] = best[half, k, strongest - 1]
        for k in range(used):
            if self_index[lane + k] >= 0:
                for half in range(3):
                    for j in range(strongest - 1, 0, -1):
                        chosen[half, lane + k, j] = chosen[half, lane + k, j - 1]
                    chosen[half, lane + k, 0] = self_index[lane + k]
    return chosen


@_compiled()
def _insert(score, example, best, chosen):
    j = len(best) - 1
    while j > 0 and best[j - 1] < score:
        best[j], chosen[j] = best[j - 1], chosen[j - 1]
        j -= 1
    best[j], chosen[j] = score, example


# Sums of one entry may be added in any order, so that they can be vectorized.
@_compiled(parallel=True, fastmath={'reassoc', 'contract'})
def _entries(by_example, losses, targets, examples):
    values, within = np.empty(len(targets)), np.empty((2, len(targets)))
    members = losses.shape[1]
    whole = np.zeros((len(losses), 2))
    for t in numba.prange(len(losses)):
        total, squares = 0.0, 0.0
        for m in range(members):
            loss = np.float64(losses[t, m])
            total += loss
            squares += loss * loss
        whole[t, 0], whole[t, 1] = total, squares
    for j in numba.prange(len(targets)):
        included, of_target = by_example[examples[j]], losses[targets[j]]
        inside, total, squares = 0.0, 0.0, 0.0
        for m in range(members):
            loss = np.float64(of_target[m]) * included[m]
            inside += included[m]
            total += loss
            squares += loss * loss
        outside = members - inside
        rest, rest_squares = whole[targets[j], 0] - total, whole[targets[j], 1] - squares
        values[j] = rest / outside - total / inside
        within[0, j] = max(squares - total * total / inside, 0.0)
        within[1, j] = max(rest_squares - rest * rest / outside, 0.0)
    return values, within
