"""Difference of means with each target's own inclusion and strongest influencers regressed out.

Most of what a target's loss varies by from member to member is whether it, or its near-duplicates,
were in the subset. Taken out of the losses first, that is no longer noise in everything else.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from influence_jax.estimators import standard_errors
from influence_jax.estimators.difference_of_means import estimate, strongest_other, without_self
from influence_jax.estimators.ensemble import problem
from influence_jax.estimators.estimator import Fit, Tiles, estimator
from influence_jax.estimators.mask_columns import nearly_equal
from influence_jax.estimators.scan import scan_for
from influence_jax.estimators.standard_errors import unseen_error
from influence_jax.estimators.tiling import TILE, cut, padded, standardized_tiles
from influence_jax.estimators.uncertainty import z_of_p
from influence_jax.types import AnyArray, Influence, Masks, Measurement

_COUNTS = (0, 1, 2, 3, 5, 8)
"""Numbers of regressors among which cross-validation chooses."""

_CHANCE = 0.05  # that the strongest of all examples is taken for a regressor by noise alone

_COLLINEAR = 2.0
"""How many times the variance of a coefficient must be that of its column alone (its variance
inflation factor) for the columns to be called collinear."""

_AXIS = 'target'

# By default accelerators round products of float32 to 10 bits.
_einsum = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)


@estimator(
    name='adjusted',
    title='adjusted difference of means',
    description=(
        'the mean loss of members without the example minus that of members with it, after what '
        'the target itself and its strongest influencers explain has been taken out of the losses'
    ),
    least_members=3 * _COUNTS[-1],
    block_fit=lambda *ensemble: Fitting(*ensemble),
)
def adjusted(
    masks: Masks,
    losses: Measurement,
    *,
    target_examples: Int[AnyArray, ' T'] | None = None,
    tile: int = TILE,
) -> Tiles:
    """Influence of every example on every target, with less noise than `difference_in_means`.

    The losses of a target are regressed (least squares) on the mask columns of its own example
    and of its strongest influencers, which are looked for in what the own example leaves. Their
    values are minus the fitted coefficients, with heteroscedasticity-consistent errors (HC2,
    which is Welch's for one column; MacKinnon and White 1985), widened where few members carry
    the effect (`estimators.standard_errors`); those of all other examples are the difference of
    means of the residual. How many influencers, up to 8, is chosen for each target by two-fold
    cross-validation in which each half of the members selects its own; never one that the
    strongest of N examples without influence would pass for in more than 5 of 100 targets, since
    regressors made of noise make the residual, and with it all errors, too small.

    Where examples are included independently of one another this converges, as the members grow,
    to the quantity of `difference_in_means`. Subsets of exact size k of N make inclusions
    correlated by -1 / (N - 1), and this estimates the effect of an example among others: its
    difference of means is lower by the sum of all others' effects / (N - 1). Examples of one
    group, whose columns are (nearly) equal, are never adjusted for one another: each has the
    influence of what goes with it, as in `difference_in_means`.

    Args:
      masks: as in `difference_in_means`.
      losses: as in `difference_in_means`.
      target_examples: `[T]` position of the example that each target is, -1 where it is none.
        By default target t is example t if T == N, and otherwise no target is an example.
      tile: how many targets are estimated at once.

    Raises:
      ValueError: as in `difference_in_means`, or fewer than 24 complete members.
    """
    ensemble = problem(masks, losses, target_examples, tile=tile)
    fit = Fitting(*ensemble)

    def blocks() -> Tiles:
        weights = jnp.asarray(ensemble.masks, jnp.float32)
        for columns, losses, scale in standardized_tiles(ensemble.losses, tile=tile):
            of_block = padded(ensemble.self_index[columns], len(scale), fill=-1)
            fitted = fit(losses, of_block, columns, scale)
            yield columns, cut(completed(weights, scale, fitted), columns)

    return blocks()


class _Fitted(NamedTuple):
    """What is computed of a block on the devices; K regressors a target, not all used.

    reliability: `[t K]` each, of the regressors' values.
    """

    residual: Float[Array, 'M t']
    examples: Int[Array, 't K']
    values: Float[Array, 't K']
    inflation: Float[Array, ' t']
    reliability: standard_errors.Reliability


class Fitting:
    """Regressions of block after block of targets, spread over this process's devices.

    scan: of the masks.

    Raises:
      ValueError: fewer than 24 members.
    """

    def __init__(
        self,
        masks: Bool[np.ndarray, 'M N'],
        losses: Float[np.ndarray, 'M T'],
        self_index: Int[np.ndarray, ' T'],
    ) -> None:
        if len(masks) < adjusted.least_members:
            raise ValueError(
                f'{len(masks)} complete members are too few to regress on up to {_COUNTS[-1]} '
                f'examples: use at least {adjusted.least_members}, or difference_in_means'
            )
        self._masks = masks
        self._unseen = unseen_error(masks, losses, self_index)
        self._by_example = jnp.asarray(masks.T)
        self._clusters = nearly_equal(masks)
        # Of examples that go together one is a regressor, and none stands in for another.
        first = self._clusters.first
        self.scan = self._scan_of_clusters = scan_for(masks)
        if not self._clusters.trivial:
            self._scan_of_clusters = scan_for(masks[:, first])
        self._most = min(_COUNTS[-1], len(first))
        self._least_z = np.float32(z_of_p(_CHANCE / len(first), members=len(masks) - 1))
        order = np.argsort(self._clusters.cluster, kind='stable')
        self._likes = np.split(order, np.cumsum(np.bincount(self._clusters.cluster))[:-1])

    def __call__(
        self,
        losses: Float[np.ndarray, 'M t'],
        self_index: Int[np.ndarray, ' t'],
        columns: slice | Int[np.ndarray, ' _'],
        scale: Float[np.ndarray, ' t'],
    ) -> Fit:
        """See `BlockFit`."""
        left = without_self(self._masks, losses, self_index)
        candidate_regressors = self._candidate_regressors(left, self_index)
        fit, devices = _fit_on_all_devices()
        filling = (0, -losses.shape[1] % devices)
        found = fit(
            self._by_example,
            np.pad(losses, [(0, 0), filling]),
            np.pad(candidate_regressors, [(0, 0), filling, (0, 0)]).astype(np.int32),
            np.pad(self_index >= 0, filling),
            self._least_z,
        )
        given = losses.shape[1]
        residual, examples, values, inflation, (variance, freedom, effective) = jax.tree.map(
            np.asarray, found
        )
        widening = standard_errors.widened(freedom, members=len(losses)).astype(np.float32)
        is_self = (examples == padded(self_index, len(examples), fill=-2)[:, None]) & (
            examples >= 0
        )
        unseen = padded(self._unseen[columns], len(scale)) / np.where(scale > 0, scale, 1)
        added = is_self * padded(unseen, len(examples))[:, None]
        fitted = Fit(
            residual[:, :given],
            examples[:given],
            values[:given],
            (widening * np.hypot(np.sqrt(variance), added))[:given].astype(np.float32),
            inflation[:given],
            np.where(self_index >= 0, effective[:given, 0], np.nan),
            self._cross_fitted(losses, left, candidate_regressors, self_index),
        )
        return fitted if self._clusters.trivial else self._with_likes(fitted)

    def _cross_fitted(
        self,
        losses: Float[np.ndarray, 'M t'],
        left: Float[np.ndarray, 'M t'],
        candidate_regressors: Int[np.ndarray, '3 t K'],
        self_index: Int[np.ndarray, ' t'],
    ) -> Float[np.ndarray, ' t']:
        if self._clusters.trivial:
            return strongest_other(self._masks, left, candidate_regressors[:2], self_index)
        # What the own example does, those that go with it do.
        candidates = self.scan.candidate_regressors(losses, self_index, self._most)[:2]
        return strongest_other(self._masks, losses, candidates, self_index)

    def _candidate_regressors(
        self, left: Float[np.ndarray, 'M t'], self_index: Int[np.ndarray, ' t']
    ) -> Int[np.ndarray, '3 t K']:
        """As `Scan.candidate_regressors`; the target's example itself, not one that equals it."""
        if self._clusters.trivial:
            return self._scan_of_clusters.candidate_regressors(left, self_index, self._most)
        cluster, first = self._clusters
        found = first[
            self._scan_of_clusters.candidate_regressors(
                left, np.where(self_index >= 0, cluster[self_index], -1), self._most
            )
        ]
        found[:, self_index >= 0, 0] = self_index[self_index >= 0]
        return found

    def _with_likes(self, fit: Fit) -> Fit:
        """Entries of all examples that go with a regressor: each as if it had been the regressor.

        Adjusted for all other regressors, that is, but not for the one that (nearly) equals it.
        """
        rows = []
        for regressors in fit.examples:
            used = np.flatnonzero(regressors >= 0)
            likes = [self._likes[self._clusters.cluster[regressors[k]]] for k in used]
            rows.append((used, [np.setdiff1d(like, regressors[used]) for like in likes]))
        most = fit.examples.shape[1] + max(sum(map(len, others)) for _, others in rows)
        filling = [(0, 0), (0, most - fit.examples.shape[1])]
        examples = np.pad(fit.examples, filling, constant_values=-1)
        values, errors = np.pad(fit.values, filling), np.pad(fit.errors, filling)
        for target, (used, others) in enumerate(rows):
            place = fit.examples.shape[1]
            for k, like in zip(used, others, strict=True):
                at = slice(place, place + len(like))
                examples[target, at] = like
                of = self._like(fit, target, int(k), like)
                values[target, at], errors[target, at] = of
                place = at.stop
        return fit._replace(examples=examples, values=values, errors=errors)

    def _like(
        self, fit: Fit, target: int, k: int, like: Int[np.ndarray, ' L']
    ) -> tuple[Float[np.ndarray, ' L'], Float[np.ndarray, ' L']]:
        """Values and errors of examples that go with the k-th regressor of a target."""
        value, error = fit.values[target, k], fit.errors[target, k]
        regressor, columns = self._masks[:, fit.examples[target, k]], self._masks[:, like]
        # Without the regressor among the regressors; equal columns then have its value.
        partial = fit.residual[:, target] - value * (regressor - regressor.mean())
        included = columns.sum(axis=0)
        inside = columns.T.astype(np.float32) @ partial
        values = (partial.sum() - inside) / (len(columns) - included) - inside / included
        same = (columns == regressor[:, None]).all(axis=0)
        return np.where(same, value, values), np.full(len(like), error)


@functools.cache
def _fit_on_all_devices() -> tuple[jax.stages.Wrapped, int]:
    devices = jax.local_devices()
    mesh = Mesh(np.array(devices), (_AXIS,))
    of_members: Any = P(None, _AXIS)
    of_targets: Any = P(_AXIS)
    sharded = jax.shard_map(
        _fit,
        mesh=mesh,
        in_specs=(P(), of_members, of_members, of_targets, P()),
        out_specs=_Fitted(
            of_members,
            of_targets,
            of_targets,
            of_targets,
            standard_errors.Reliability(*[of_targets] * 3),
        ),
    )
    return jax.jit(sharded), len(devices)


def _fit(
    by_example: Bool[Array, 'N M'],
    losses: Float[Array, 'M t'],
    candidate_regressors: Int[Array, '3 t K'],
    has_self: Bool[Array, ' t'],
    least_z: Float[Array, ''],
) -> _Fitted:
    members = len(losses)
    of_even, of_odd, chosen = candidate_regressors
    even, odd = slice(0, None, 2), slice(1, None, 2)
    counts = jnp.array([count for count in _COUNTS if count <= chosen.shape[1]])
    wrong = _held_out_errors(by_example, losses, of_even, counts, train=even, test=odd)
    wrong += _held_out_errors(by_example, losses, of_odd, counts, train=odd, test=even)
    # The own example is always among the regressors: its error is to be that of one.
    wrong = jnp.where((counts == 0)[:, None] & has_self[None], jnp.inf, wrong)
    count = counts[jnp.argmin(wrong, axis=0)]

    columns = by_example[chosen].astype(jnp.float32)
    columns -= columns.mean(axis=-1, keepdims=True)
    used = jnp.arange(chosen.shape[1])[None] < count[:, None]
    used &= _beyond_noise(columns, losses, has_self, least_z)
    count = used.sum(axis=1)
    columns *= used[..., None]
    products, right = _products(columns, losses)
    coefficients, inverse = _least_squares(products, right, used, members)
    residual = losses - _einsum('tk,tkm->mt', coefficients, columns)

    freedom = jnp.maximum(members - 1 - count, 1)
    weights = _einsum('tkl,tlm->tkm', inverse, columns)
    leverage = (weights * columns).sum(axis=1) + 1 / members
    corrected = residual.T / jnp.sqrt(jnp.maximum(1 - leverage, 1 / members))
    of = standard_errors.reliability(weights * corrected[:, None], members=members, axis=2, xp=jnp)
    # Where other regressors nearly explain a column, what is left of it rests on a few members,
    # which the fit follows: then at least the variance of least squares.
    squares = (residual**2).sum(axis=0) / freedom
    alone = 1 / jnp.maximum(jnp.diagonal(products, axis1=1, axis2=2), 1)
    plain = jnp.diagonal(inverse, axis1=1, axis2=2)
    variance = jnp.where(
        plain > _COLLINEAR * alone, jnp.maximum(of.variance, squares[:, None] * plain), of.variance
    )
    return _Fitted(
        residual,
        jnp.where(used, chosen, -1),
        -coefficients,
        jnp.sqrt((members - 1) / freedom),
        of._replace(variance=variance),
    )


def _beyond_noise(
    columns: Float[Array, 't K M'],
    losses: Float[Array, 'M t'],
    has_self: Bool[Array, ' t'],
    least_z: Float[Array, ''],
) -> Bool[Array, 't K']:
    """Own columns, and those whose difference of means, the own effect left out, is beyond."""
    squares = jnp.maximum((columns**2).sum(axis=2), 1e-6)
    self_index = columns[:, 0] * has_self[:, None]
    effect = _einsum('tm,mt->t', self_index, losses) / squares[:, 0]
    left = losses - effect[None] * self_index.T
    explained = _einsum('tkm,mt->tk', columns, left) ** 2 / squares
    rest = jnp.maximum((left**2).sum(axis=0)[:, None] - explained, 0)
    beyond = explained * (len(losses) - 3) > least_z**2 * rest
    is_self = (jnp.arange(columns.shape[1]) == 0)[None] & has_self[:, None]
    return beyond | is_self


def _held_out_errors(
    by_example: Bool[Array, 'N M'],
    losses: Float[Array, 'M t'],
    chosen: Int[Array, 't K'],
    counts: Int[Array, ' c'],
    *,
    train: slice,
    test: slice,
) -> Float[Array, 'c t']:
    """Squared errors of predicting members that had no part in choosing or fitting.

    Less the squares of what is predicted, which no regressor changes.
    """
    columns = by_example[chosen].astype(jnp.float32)
    columns -= columns[..., train].mean(axis=-1, keepdims=True)
    losses = losses - losses[train].mean(axis=0, keepdims=True)
    products, right = _products(columns[..., train], losses[train])
    test_products, test_right = _products(columns[..., test], losses[test])

    def error(count: Int[Array, '']) -> Float[Array, ' t']:
        used = jnp.broadcast_to(jnp.arange(chosen.shape[1])[None] < count, chosen.shape)
        fitted, _ = _least_squares(products, right, used, len(losses[train]))
        squares = _einsum('tk,tkl,tl->t', fitted, test_products, fitted)
        return squares - 2 * _einsum('tk,tk->t', fitted, test_right)

    return lax.map(error, counts)


def _products(
    columns: Float[Array, 't K m'], losses: Float[Array, 'm t']
) -> tuple[Float[Array, 't K K'], Float[Array, 't K']]:
    return _einsum('tkm,tlm->tkl', columns, columns), _einsum('tkm,mt->tk', columns, losses)


def _least_squares(
    products: Float[Array, 't K K'],
    right: Float[Array, 't K'],
    used: Bool[Array, 't K'],
    members: int,
) -> tuple[Float[Array, 't K'], Float[Array, 't K K']]:
    """Coefficients, 0 where not used, and the inverse of the columns' products."""
    both = used[:, :, None] & used[:, None, :]
    # A 1 on the diagonal keeps what is not used apart from the rest. The small ridge is for
    # columns of which others are a sum: equal ones are not used together.
    ridge = jnp.where(used, 1e-5 * members, 1.0)
    diagonal = ridge[:, None] * jnp.eye(used.shape[1])[None]
    inverse = jnp.linalg.inv(jnp.where(both, products, 0) + diagonal)
    return _einsum('tkl,tl->tk', inverse, jnp.where(used, right, 0)), inverse


def completed(
    masks: Float[Array, 'M N'],
    scale: Float[np.ndarray, ' t'],
    fit: Fit,
) -> Influence:
    """Returns all entries: of the residual, and in their places those of the regressors."""
    rest = estimate(masks, jnp.asarray(fit.residual), jnp.asarray(scale))
    targets, places = np.nonzero(fit.examples >= 0)
    at = fit.examples[targets, places], targets
    values = np.array(rest.values)
    errors = np.asarray(rest.standard_error) * fit.inflation
    values[at] = fit.values[targets, places] * scale[targets]
    errors[at] = fit.errors[targets, places] * scale[targets]
    return Influence(values, errors)
