"""The scan on GPUs and TPUs: matrix products, targets spread over all devices."""

import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, UInt32

from influence_jax.estimators.scan.compiled import single_entries_of
from influence_jax.estimators.scan.contract import (
    BINS_A_SIDE,
    REACH,
    SummaryRequest,
    SummaryResult,
    Targets,
)
from influence_jax.threads import num_cores
from influence_jax.types import AnyArray

_CANDIDATES = 2**14  # of a device's share of a block, at first
_BLOCKS = 4
_AXIS = 'target'
_BINS, _DIGIT = 2 * BINS_A_SIDE, 32
_KEY_BITS, _KEY_DIGITS = 8, 2**8  # of a digit of the keys that stand for values
_CHUNK = 64  # entries looked through for one that is listed
_NO_TARGET = -2  # where the last device's share is filled up


class DeviceScan:
    """A `Scan` for accelerators.

    Args:
      masks: `[M N]`.
      dtype: in which masks are multiplied. float32 in full precision, or, by default where there
        is a matrix unit, bfloat16: losses are then the exact sum of three bfloat16, summed up in
        float32, which is as accurate as float32.
      devices: by default all of this process's.
    """

    def __init__(
        self,
        masks: Bool[np.ndarray, 'M N'],
        *,
        dtype: DTypeLike | None = None,
        devices: list[jax.Device] | None = None,
    ) -> None:
        self.single = single_entries_of(masks)
        # The devices compute one block after another; what is asked of its entries takes longer.
        self.blocks_at_once = min(num_cores(), _BLOCKS)
        self._devices_are_mine = threading.Lock()
        devices = devices or jax.local_devices()
        if dtype is None:
            dtype = jnp.float32 if devices[0].platform == 'cpu' else jnp.bfloat16
        halves = masks[0::2], masks[1::2]
        self._prepared = _Masks(
            tuple(jnp.asarray(half, dtype) for half in halves),
            jnp.asarray([half.sum(axis=0) for half in halves], jnp.float32),
        )
        self._mesh = Mesh(np.array(devices), (_AXIS,))
        self._width = 0
        self._capacity = _CANDIDATES

    def columns(self, targets: Targets, request: SummaryRequest) -> SummaryResult:
        """See `Scan`."""
        with self._devices_are_mine:
            padded = self._padded(targets)
            while True:
                scan = _compiled(_columns, self._mesh, request, self._capacity)
                found: _Found = jax.device_get(scan(self._prepared, padded))
                most = int(found.candidates.max())
                if most <= self._capacity:
                    break
                self._capacity = 1 << most.bit_length()
        given = len(targets.self_index)
        listed = found.target >= 0
        return SummaryResult(
            found.top[:given],
            found.bottom[:given],
            found.moments[:given],
            found.ranked[:given],
            found.target[listed].astype(np.int64),
            found.example[listed].astype(np.int64),
            found.histogram.sum(axis=0, dtype=np.int64),
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
        whatever, nothing = np.zeros(len(self_index), np.float32), np.empty((len(self_index), 0))
        targets = Targets(losses, whatever, self_index, whatever, nothing.astype(int), nothing)
        scan = _compiled(_candidate_regressors, self._mesh, count, parts)
        with self._devices_are_mine:
            padded = self._padded(targets)
            found = jax.device_get(scan(self._prepared, padded))
        return found.transpose(1, 0, 2)[:, : len(self_index)].astype(np.int64)

    def _padded(self, targets: Targets) -> Targets:
        # One width for all blocks, so that a last one that is narrower is not compiled again.
        self._width = max(
            self._width, -(-len(targets.self_index) // self._mesh.size) * self._mesh.size
        )
        filling = self._width - len(targets.self_index)
        return Targets(
            np.pad(targets.losses, [(0, 0), (0, filling)]).astype(np.float32),
            np.pad(targets.null_error, (0, filling)).astype(np.float32),
            np.pad(targets.self_index, (0, filling), constant_values=_NO_TARGET).astype(np.int32),
            np.pad(targets.floor, (0, filling), constant_values=np.inf).astype(np.float32),
            np.pad(targets.fixed_examples, [(0, filling), (0, 0)], constant_values=-1).astype('i4'),
            np.pad(targets.fixed_values, [(0, filling), (0, 0)]).astype(np.float32),
        )


class _Masks(NamedTuple):
    """Even and odd members, as prepared for a product, and how many of each include an example."""

    halves: tuple[Array, ...]
    included: Float[Array, '2 N']


class _Found(NamedTuple):
    top: Int[Array, 't K']
    bottom: Int[Array, 't K']
    moments: Float[Array, 't 4']
    ranked: Float[Array, 't R']
    target: Int[Array, ' C']  # -1 where there is none
    example: Int[Array, ' C']
    candidates: Int[Array, ' D']
    histogram: Int[Array, 'D E']


@functools.cache
def _compiled(function: Callable[..., Array], mesh: Mesh, *static: object) -> Callable[..., Array]:
    """The function on every device's share of the targets; nothing is exchanged between them."""
    others: Any = [P(_AXIS)] * (len(Targets._fields) - 1)
    of_members: Any = P(None, _AXIS)
    of_targets = Targets(of_members, *others)
    return jax.jit(
        jax.shard_map(
            functools.partial(function, *static),
            mesh=mesh,
            in_specs=(P(), of_targets),
            out_specs=P(_AXIS),
        )
    )


def _columns(request: SummaryRequest, capacity: int, masks: _Masks, targets: Targets) -> _Found:
    values = _differences(_sums_of_halves(masks, targets.losses).sum(axis=0), masks, targets.losses)
    fixed = jnp.where(targets.fixed_examples < 0, values.shape[1], targets.fixed_examples)
    rows = jnp.arange(len(values))[:, None]
    values = values.at[rows, fixed].set(targets.fixed_values, mode='drop')
    z = values * _inverse(targets.null_error)[:, None]
    counts = _bin_counts(_bins(z), values.shape[1])
    beyond = jnp.abs(values) > targets.floor[:, None]
    row, example = _positions(beyond, capacity)
    first = lax.axis_index(_AXIS) * len(values)
    return _Found(
        _largest(values, request.strongest, last_first=True),
        _largest(-values, request.strongest),
        jnp.stack([(z**power).mean(axis=1) for power in (1, 2, 3, 4)], axis=1),
        _ranked(values, request.ranks),
        jnp.where(row >= 0, row + first, -1),
        example,
        beyond.sum(keepdims=True)[0],
        _histogram(counts, values, targets),
    )


def _bins(z: Float[Array, '*shape']) -> Int[Array, '*shape']:
    """The bin of `EDGES` that each lies in; exact, since edges are multiples of a power of two."""
    return jnp.clip(jnp.floor(z * (BINS_A_SIDE / REACH)) + BINS_A_SIDE, 0, _BINS - 1).astype('i4')


def _bin_counts(bins: Int[Array, 't N'], examples: int) -> Int[Array, 't E']:
    """How many entries of each row are in each bin."""
    if examples > 2**24:  # beyond the integers of float32
        return _bins_by_scattering(bins)
    return lax.platform_dependent(bins, default=_bins_by_scattering, tpu=_bins_by_products)


def _bins_by_scattering(bins: Int[Array, 't N']) -> Int[Array, 't E']:
    rows = jnp.arange(len(bins))[:, None]
    return jnp.zeros((len(bins), _BINS), jnp.int32).at[rows, bins].add(1)


def _bins_by_products(bins: Int[Array, 't N']) -> Int[Array, 't E']:
    """A bin is one of 32 rows and one of 32 columns: counts are sums of 0 and 1, exact."""
    digit = jnp.arange(_DIGIT)
    high, low = (
        (part[..., None] == digit[None, None]).astype(jnp.bfloat16)
        for part in (bins // _DIGIT, bins % _DIGIT)
    )
    counts = jnp.einsum('tnh,tnl->thl', high, low, preferred_element_type=jnp.float32)
    return counts.reshape(len(bins), _BINS).astype(jnp.int32)


def _histogram(
    counts: Int[Array, 't E'], values: Float[Array, 't N'], targets: Targets
) -> Int[Array, '1 E']:
    """Of all entries but own ones; the outermost bins hold all that is beyond."""
    is_target = targets.self_index != _NO_TARGET
    at = jnp.maximum(targets.self_index, 0)[:, None]
    own = jnp.take_along_axis(values, at, axis=1)[:, 0] * _inverse(targets.null_error)
    whole = (counts * is_target[:, None]).sum(axis=0)
    return whole.at[_bins(own)].add(-(targets.self_index >= 0).astype(whole.dtype))[None]


def _ranked(values: Float[Array, 't N'], ranks: tuple[int, ...]) -> Float[Array, 't R']:
    """The entries of these ranks in ascending order, exactly; nothing is sorted."""
    bits = lax.bitcast_convert_type(values, jnp.int32)
    # Integers in the order of the values, from 0.
    keys = (bits ^ ((bits >> 31) & jnp.int32(0x7FFFFFFF))).astype(jnp.uint32) ^ jnp.uint32(1 << 31)
    found = lax.platform_dependent(
        keys,
        default=functools.partial(_ranked_by_digits, ranks=ranks),
        tpu=functools.partial(_ranked_by_halving, ranks=ranks),
    )
    bits = (found ^ jnp.uint32(1 << 31)).astype(jnp.int32)
    return lax.bitcast_convert_type(bits ^ ((bits >> 31) & jnp.int32(0x7FFFFFFF)), jnp.float32)


def _ranked_by_digits(
    keys: UInt32[Array, 't N'], *, ranks: tuple[int, ...]
) -> UInt32[Array, 't R']:
    """Digit by digit: how often each occurs among the keys that share the digits so far."""
    rows = jnp.arange(len(keys))[:, None]
    # Keys that begin as some rank's does are in a slot, all others in none.
    slots, slot = 1, jnp.zeros(keys.shape, jnp.int32)
    left = jnp.broadcast_to(jnp.asarray(ranks, jnp.int32)[None], (len(keys), len(ranks)))
    slot_of, found = jnp.zeros_like(left), jnp.zeros(left.shape, jnp.uint32)
    for shift in range(32 - _KEY_BITS, -1, -_KEY_BITS):
        digit = ((keys >> shift) & (_KEY_DIGITS - 1)).astype(jnp.int32)
        none = slots * _KEY_DIGITS
        cell = jnp.where(slot < 0, none, slot * _KEY_DIGITS + digit)
        counts = jnp.zeros((len(keys), none), jnp.int32).at[rows, cell].add(1, mode='drop')
        up_to = jnp.cumsum(counts.reshape(len(keys), slots, _KEY_DIGITS), axis=2)
        of_rank = jnp.take_along_axis(up_to, slot_of[..., None], axis=1)
        is_below = of_rank <= left[..., None]
        chosen = is_below.sum(axis=2)
        left = left - jnp.where(is_below, of_rank, 0).max(axis=2)
        found = (found << _KEY_BITS) | chosen.astype(jnp.uint32)
        cell_of = slot_of * _KEY_DIGITS + chosen
        # Ranks of equal digits so far share the slot of the first of them.
        slot_of = jnp.argmax(cell_of[:, :, None] == cell_of[:, None, :], axis=2).astype(jnp.int32)
        slot_in = jnp.full((len(keys), none + 1), -1, jnp.int32).at[rows, cell_of].set(slot_of)
        slot, slots = jnp.take_along_axis(slot_in, cell, axis=1), len(ranks)
    return found


def _ranked_by_halving(
    keys: UInt32[Array, 't N'], *, ranks: tuple[int, ...]
) -> UInt32[Array, 't R']:
    """Bit by bit: how many keys are smaller; for devices on which scattering is slow."""
    rank = jnp.asarray(ranks, jnp.int32)[None]

    def of_bit(i: Array, found: Array) -> Array:
        larger = found | (jnp.uint32(1 << 31) >> i.astype(jnp.uint32))
        # Apart: one pass over the keys makes all these sums.
        below = [(keys < larger[:, r, None]).sum(axis=1) for r in range(len(ranks))]
        return jnp.where(jnp.stack(below, axis=1) <= rank, larger, found)

    start = jnp.zeros((len(keys), len(ranks)), jnp.uint32) + (keys[:, :1] & 0)
    return lax.fori_loop(0, 32, of_bit, start)


def _largest(
    values: Float[Array, 't N'], count: int, *, last_first: bool = False
) -> Int[Array, 't K']:
    """Positions of the largest entries of each row, largest first.

    By chunks: those whose largest entries are the largest of all chunks hold them. Chunks are of
    neighbors, so of equal entries the first, or the last, ones come first as in a sorted row.
    """
    rows, examples = values.shape
    length = 1 << max(0, round(np.log2(examples / count) / 2))
    chunks = -(-examples // length)
    filling = [(0, 0), (0, chunks * length - examples)]
    by_chunk = jnp.pad(values, filling, constant_values=-jnp.inf).reshape(rows, chunks, length)
    order = -1 if last_first else 1
    if chunks > count:
        _, taken = lax.top_k(by_chunk.max(axis=2)[:, ::order], count)
        taken = jnp.sort(taken, axis=1)
        taken = chunks - 1 - taken if last_first else taken
        by_chunk = jnp.take_along_axis(by_chunk, taken[..., None], axis=1)
    else:
        taken = jnp.broadcast_to(jnp.arange(chunks)[None, ::order], (rows, chunks))
        by_chunk = by_chunk[:, ::order]
    _, place = lax.top_k(by_chunk[..., ::order].reshape(rows, -1), count)
    within = place % length
    within = length - 1 - within if last_first else within
    return jnp.take_along_axis(taken, place // length, axis=1) * length + within


def _positions(
    is_listed: Bool[Array, 't N'], capacity: int
) -> tuple[Int[Array, ' C'], Int[Array, ' C']]:
    """Rows and columns of what is listed, in order; -1 behind the last.

    Chunks are counted; each place of the list looks its chunk up, and itself within it.
    """
    rows, examples = is_listed.shape
    chunks = -(-examples // _CHUNK)
    filling = [(0, 0), (0, chunks * _CHUNK - examples)]
    by_chunk = jnp.pad(is_listed, filling).reshape(rows * chunks, _CHUNK)
    up_to = jnp.cumsum(by_chunk.sum(axis=1))
    place = jnp.arange(capacity)
    chunk = jnp.searchsorted(up_to, place, side='right', method='scan')
    is_there, chunk = chunk < len(up_to), jnp.minimum(chunk, len(up_to) - 1)
    of_chunk = jnp.cumsum(by_chunk[chunk], axis=1)
    before = up_to[chunk] - of_chunk[:, -1]
    within = (of_chunk <= (place - before)[:, None]).sum(axis=1)
    row, column = chunk // chunks, chunk % chunks * _CHUNK + within
    return jnp.where(is_there, row, -1), jnp.where(is_there, column, -1)


def _candidate_regressors(
    count: int, parts: int, masks: _Masks, targets: Targets
) -> Int[Array, 't {parts} K']:
    sums = _sums_of_halves(masks, targets.losses)
    is_own = targets.self_index[:, None] == jnp.arange(sums.shape[2])[None]
    found = []
    for part, of in ((0, sums[0]), (1, sums[1]), (None, sums[0] + sums[1]))[:parts]:
        included, members, _ = _of_part(masks, targets.losses, part)
        # The t statistic of two groups of one variance grows with this, whatever that variance is.
        root = jnp.sqrt(included * (members - included) / members)
        score = jnp.abs(_differences(of, masks, targets.losses, part)) * root[None]
        found.append(_largest(jnp.where(is_own, jnp.inf, score), count))
    return jnp.stack(found, axis=1)


def _of_part(
    masks: _Masks, losses: Float[AnyArray, 'M t'], part: int | None
) -> tuple[Float[Array, ' N'], int, Float[Array, ' t']]:
    """How many of a half of the members, or of all, have each example; of how many; their sums."""
    if part is None:
        return masks.included.sum(axis=0), len(losses), losses.sum(axis=0)
    return masks.included[part], masks.halves[part].shape[0], losses[part::2].sum(axis=0)


def _differences(
    sums: Float[Array, 't N'],
    masks: _Masks,
    losses: Float[AnyArray, 'M t'],
    part: int | None = None,
) -> Float[Array, 't N']:
    """Mean without - mean with; 0 where one is of nobody. By a half of the members, or by all."""
    included, members, total = _of_part(masks, losses, part)
    outside = members - included
    is_known = (included > 0) & (outside > 0)
    of_total = jnp.where(is_known, _inverse(outside), 0)
    of_sums = jnp.where(is_known, _inverse(outside) + _inverse(included), 0)
    return total[:, None] * of_total[None] - sums * of_sums[None]


def _sums_of_halves(masks: _Masks, losses: Float[AnyArray, 'M t']) -> Float[Array, '2 t N']:
    """Sums of the losses over the even, and over the odd members that include each example."""
    split = jnp.asarray(losses[0::2]), jnp.asarray(losses[1::2])
    return jnp.stack([_sums(*pair) for pair in zip(masks.halves, split, strict=True)])


def _sums(masks: Float[Array, 'm N'], losses: Float[Array, 'm t']) -> Float[Array, 't N']:
    """Sums of the losses over the members that include each example, accurate to float32."""
    if masks.dtype == jnp.float32:
        # By default accelerators round products of float32 to 10 bits.
        return jnp.matmul(losses.T, masks, precision=lax.Precision.HIGHEST)
    whole = jnp.zeros((losses.shape[1], masks.shape[1]), jnp.float32)
    for _ in range(3):
        # Not astype alone: compilers may keep the excess precision, and the rest would be 0.
        part = lax.reduce_precision(losses, exponent_bits=8, mantissa_bits=7)
        losses = losses - part
        whole += jnp.matmul(part.astype(masks.dtype).T, masks, preferred_element_type=jnp.float32)
    return whole


def _inverse(x: Float[AnyArray, '...']) -> Array:
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0)
