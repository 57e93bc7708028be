"""The scan on GPUs and TPUs: matrix products, targets spread over all devices."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from influence_jax.estimators.scan.contract import (
    EDGES,
    SummaryRequest,
    SummaryResult,
    Targets,
    error_of_entries,
)
from influence_jax.types import AnyArray

_CANDIDATES = 2**14  # of a device's share of a block, at first
_ENTRIES = 2**14  # looked up at once
_AXIS = 'target'
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
        self._by_example = jnp.asarray(masks.T)

    def columns(self, targets: Targets, request: SummaryRequest) -> SummaryResult:
        """See `Scan`."""
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
        self, losses: Float[np.ndarray, 'M t'], self_index: Int[np.ndarray, ' t'], count: int
    ) -> Int[np.ndarray, '3 t K']:
        """See `Scan`."""
        whatever, nothing = np.zeros(len(self_index), np.float32), np.empty((len(self_index), 0))
        targets = Targets(losses, whatever, self_index, whatever, nothing.astype(int), nothing)
        scan = _compiled(_candidate_regressors, self._mesh, count)
        found = jax.device_get(scan(self._prepared, self._padded(targets)))
        return found.transpose(1, 0, 2)[:, : len(self_index)].astype(np.int64)

    def entries(
        self,
        losses: Float[AnyArray, 'M t'],
        targets: Int[np.ndarray, ' C'],
        examples: Int[np.ndarray, ' C'],
    ) -> tuple[Float[np.ndarray, ' C'], Float[np.ndarray, ' C']]:
        """See `Scan`."""
        values, within = np.empty(len(targets)), np.empty((2, len(targets)))
        by_target = jnp.asarray(losses.T, jnp.float32)
        chunk = min(_ENTRIES, 1 << max(len(targets) - 1, 0).bit_length())
        for first in range(0, len(targets), chunk):
            some = slice(first, min(first + chunk, len(targets)))
            filling = (0, chunk - (some.stop - first))
            value, squares = _entries(
                self._by_example,
                by_target,
                np.pad(targets[some], filling).astype(np.int32),
                np.pad(examples[some], filling).astype(np.int32),
            )
            values[some] = value[: some.stop - first]
            within[:, some] = squares[:, : some.stop - first]
        included = np.asarray(self._prepared.included).sum(axis=0)
        return values, error_of_entries(included, losses, targets, examples, values, within)

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
    values = _differences(masks, targets.losses)[2]
    fixed = jnp.where(targets.fixed_examples < 0, values.shape[1], targets.fixed_examples)
    rows = jnp.arange(len(values))[:, None]
    values = values.at[rows, fixed].set(targets.fixed_values, mode='drop')
    positions = jnp.broadcast_to(jnp.arange(values.shape[1]), values.shape)
    # Sorting takes most of the time: once, then all else is read off.
    ascending, order = lax.sort((values, positions), num_keys=1)
    z = ascending * _inverse(targets.null_error)[:, None]
    beyond = jnp.abs(values) > targets.floor[:, None]
    row, example = jnp.nonzero(beyond, size=capacity, fill_value=-1)
    first = lax.axis_index(_AXIS) * len(values)
    return _Found(
        order[:, ::-1][:, : request.strongest],
        order[:, : request.strongest],
        jnp.stack([(z**power).mean(axis=1) for power in (1, 2, 3, 4)], axis=1),
        ascending[:, np.asarray(request.ranks, int)],
        jnp.where(row >= 0, row + first, -1),
        example,
        beyond.sum(keepdims=True)[0],
        _histogram(z, values, targets),
    )


def _histogram(
    ascending_z: Float[Array, 't N'], values: Float[Array, 't N'], targets: Targets
) -> Int[Array, '1 E']:
    """Of all entries but own ones; the outermost bins hold all that is beyond."""
    inner = jnp.asarray(EDGES[1:-1], jnp.float32)
    is_target = targets.self_index != _NO_TARGET
    below = jax.vmap(lambda row: jnp.searchsorted(row, inner))(ascending_z)
    counts = jnp.diff(below, prepend=0, append=values.shape[1], axis=1)
    at = jnp.maximum(targets.self_index, 0)[:, None]
    own = jnp.take_along_axis(values, at, axis=1)[:, 0] * _inverse(targets.null_error)
    of_own = jnp.searchsorted(inner, own, side='right')
    whole = (counts * is_target[:, None]).sum(axis=0)
    return whole.at[of_own].add(-(targets.self_index >= 0).astype(whole.dtype))[None]


def _candidate_regressors(count: int, masks: _Masks, targets: Targets) -> Int[Array, 't 3 K']:
    differences = _differences(masks, targets.losses)
    members = jnp.asarray([half.shape[0] for half in masks.halves], jnp.float32)
    included = jnp.concatenate([masks.included, masks.included.sum(axis=0, keepdims=True)])
    members = jnp.concatenate([members, members.sum(keepdims=True)])[:, None]
    # The t statistic of two groups of one variance grows with this, whatever that variance is.
    root = jnp.sqrt(included * (members - included) / members)
    is_own = targets.self_index[:, None] == jnp.arange(included.shape[1])[None]
    score = jnp.where(is_own[None], jnp.inf, jnp.abs(differences) * root[:, None])
    return lax.top_k(score, count)[1].transpose(1, 0, 2)


def _differences(masks: _Masks, losses: Float[AnyArray, 'M t']) -> Float[Array, '3 t N']:
    """Mean without - mean with; by even members, odd members, and all. 0 where one is of nobody."""
    split = jnp.asarray(losses[0::2]), jnp.asarray(losses[1::2])
    sums = jnp.stack([_sums(*pair) for pair in zip(masks.halves, split, strict=True)])
    total = jnp.stack([half.sum(axis=0) for half in split])
    members = jnp.asarray([len(half) for half in split], jnp.float32)

    def with_all(halves: Array) -> Array:
        return jnp.concatenate([halves, halves.sum(axis=0, keepdims=True)])

    sums, total, included = with_all(sums), with_all(total), with_all(masks.included)[:, None]
    outside = with_all(members)[:, None, None] - included
    means = (total[..., None] - sums) * _inverse(outside) - sums * _inverse(included)
    return jnp.where((included > 0) & (outside > 0), means, 0)


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


@jax.jit
def _entries(
    by_example: Bool[Array, 'N M'],
    by_target: Float[Array, 't M'],
    targets: Int[Array, ' C'],
    examples: Int[Array, ' C'],
) -> tuple[Float[Array, ' C'], Float[Array, '2 C']]:
    """Differences of means, and the sums of squares within both groups of members."""
    included, losses = by_example[examples].astype(jnp.float32), by_target[targets]

    def mean_and_squares_about_it(weights: Array) -> tuple[Array, Array]:
        mean = (weights * losses).sum(axis=1) / weights.sum(axis=1)
        return mean, (weights * (losses - mean[:, None]) ** 2).sum(axis=1)

    mean_in, within_in = mean_and_squares_about_it(included)
    mean_out, within_out = mean_and_squares_about_it(1 - included)
    return mean_out - mean_in, jnp.stack([within_in, within_out])
