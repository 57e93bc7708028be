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
from jaxtyping import Array, Bool, Float, Int

from influence_jax.estimators.scan import products
from influence_jax.estimators.scan.contract import (
    EDGES,
    SummaryRequest,
    SummaryResult,
    Targets,
    error_of_entries,
)
from influence_jax.estimators.scan.products import Product
from influence_jax.types import AnyArray

_EXACT_ENOUGH = 1e-4  # rounding of a fixed-point sum, in standard errors of an entry
_CANDIDATES = 2**14  # of a device's share of a block, at first
_ENTRIES = 2**14  # looked up at once
_AXIS = 'target'
_NO_TARGET = -2  # where the last device's share is filled up


class DeviceScan:
    """A `Scan` for accelerators.

    Args:
      masks: `[M N]`.
      product: how to multiply; by default what is fastest here, found by trying. Fixed-point
        numbers are used only for targets whose losses they hold well enough.
      devices: by default all of this process's.
    """

    def __init__(
        self,
        masks: Bool[np.ndarray, 'M N'],
        *,
        product: Product | None = None,
        devices: list[jax.Device] | None = None,
    ) -> None:
        self._masks = masks
        self._product = products.fastest(masks) if product is None else product
        self._mesh = Mesh(np.array(devices or jax.local_devices()), (_AXIS,))
        self._width = 0
        self._capacity = _CANDIDATES
        self._prepared = functools.cache(self._prepare)
        self._by_example = jnp.asarray(masks.T)

    def columns(self, targets: Targets, request: SummaryRequest) -> SummaryResult:
        """See `Scan`."""
        product, masks, padded = self._arguments(targets)
        while True:
            scan = _compiled(_columns, self._mesh, product, request, self._capacity)
            found: _Found = jax.device_get(scan(masks, padded))
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
        product, masks, padded = self._arguments(targets)
        scan = _compiled(_candidate_regressors, self._mesh, product, count)
        found = jax.device_get(scan(masks, padded))
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
        return values, error_of_entries(self._masks, losses, targets, examples, values, within)

    def _prepare(self, product: Product) -> '_Masks':
        halves = self._masks[0::2], self._masks[1::2]
        return _Masks(
            tuple(products.prepare(product, half) for half in halves),
            jnp.asarray([half.sum(axis=0) for half in halves], jnp.float32),
        )

    def _arguments(self, targets: Targets) -> tuple[Product, '_Masks', Targets]:
        product = self._product
        rounding = products.ROUNDING * 2 / np.sqrt(len(self._masks))
        known = targets.null_error > 0
        if product is Product.FIXED_POINT and np.any(
            rounding > _EXACT_ENOUGH * targets.null_error[known]
        ):
            product = Product.FLOAT32
        # One width for all blocks, so that a last one that is narrower is not compiled again.
        self._width = max(
            self._width, -(-len(targets.self_index) // self._mesh.size) * self._mesh.size
        )
        filling = self._width - len(targets.self_index)
        padded = Targets(
            np.pad(targets.losses, [(0, 0), (0, filling)]).astype(np.float32),
            np.pad(targets.null_error, (0, filling)).astype(np.float32),
            np.pad(targets.self_index, (0, filling), constant_values=_NO_TARGET).astype(np.int32),
            np.pad(targets.floor, (0, filling), constant_values=np.inf).astype(np.float32),
            np.pad(targets.fixed_examples, [(0, filling), (0, 0)], constant_values=-1).astype('i4'),
            np.pad(targets.fixed_values, [(0, filling), (0, 0)]).astype(np.float32),
        )
        return product, self._prepared(product), padded


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


def _columns(
    product: Product, request: SummaryRequest, capacity: int, masks: _Masks, targets: Targets
) -> _Found:
    values = _differences(product, masks, targets.losses)[2]
    fixed = jnp.where(targets.fixed_examples < 0, values.shape[1], targets.fixed_examples)
    rows = jnp.arange(len(values))[:, None]
    values = values.at[rows, fixed].set(targets.fixed_values, mode='drop')
    z = values * _inverse(targets.null_error)[:, None]
    ascending = jnp.sort(values, axis=1)
    self_index = targets.self_index[:, None]
    left_out = (self_index == jnp.arange(values.shape[1])[None]) | (self_index == _NO_TARGET)
    beyond = jnp.abs(values) > targets.floor[:, None]
    row, example = jnp.nonzero(beyond, size=capacity, fill_value=-1)
    first = lax.axis_index(_AXIS) * len(values)
    return _Found(
        lax.top_k(values, request.strongest)[1],
        lax.top_k(-values, request.strongest)[1],
        jnp.stack([(z**power).mean(axis=1) for power in (1, 2, 3, 4)], axis=1),
        ascending[:, np.asarray(request.ranks, int)],
        jnp.where(row >= 0, row + first, -1),
        example,
        beyond.sum(keepdims=True)[0],
        _histogram(jnp.sort(jnp.where(left_out, jnp.inf, z), axis=1), left_out.sum()),
    )


def _histogram(z: Float[Array, 't N'], left_out: Int[Array, '']) -> Int[Array, '1 E']:
    """Of ascending rows, at the end of which stand infinities instead of what is left out."""
    inner = jnp.asarray(EDGES[1:-1], jnp.float32)
    below = jax.vmap(lambda row: jnp.searchsorted(row, inner, side='left'))(z).sum(axis=0)
    # The outermost bins hold all that is beyond.
    return jnp.diff(below, prepend=0, append=z.size - left_out)[None]


def _candidate_regressors(
    product: Product, count: int, masks: _Masks, targets: Targets
) -> Int[Array, 't 3 K']:
    differences = _differences(product, masks, targets.losses)
    members = jnp.asarray([half.shape[0] for half in masks.halves], jnp.float32)
    included = jnp.concatenate([masks.included, masks.included.sum(axis=0, keepdims=True)])
    members = jnp.concatenate([members, members.sum(keepdims=True)])[:, None]
    # The t statistic of two groups of one variance grows with this, whatever that variance is.
    root = jnp.sqrt(included * (members - included) / members)
    is_own = targets.self_index[:, None] == jnp.arange(included.shape[1])[None]
    score = jnp.where(is_own[None], jnp.inf, jnp.abs(differences) * root[:, None])
    return lax.top_k(score, count)[1].transpose(1, 0, 2)


def _differences(
    product: Product, masks: _Masks, losses: Float[AnyArray, 'M t']
) -> Float[Array, '3 t N']:
    """Mean without - mean with; by even members, odd members, and all. 0 where one is of nobody."""
    split = jnp.asarray(losses[0::2]), jnp.asarray(losses[1::2])
    sums = jnp.stack(
        [products.sums(product, *pair) for pair in zip(masks.halves, split, strict=True)]
    )
    total = jnp.stack([half.sum(axis=0) for half in split])
    members = jnp.asarray([len(half) for half in split], jnp.float32)

    def with_all(halves: Array) -> Array:
        return jnp.concatenate([halves, halves.sum(axis=0, keepdims=True)])

    sums, total, included = with_all(sums), with_all(total), with_all(masks.included)[:, None]
    outside = with_all(members)[:, None, None] - included
    means = (total[..., None] - sums) * _inverse(outside) - sums * _inverse(included)
    return jnp.where((included > 0) & (outside > 0), means, 0)


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
