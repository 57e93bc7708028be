"""Difference of means with each target's own inclusion and strongest influencers regressed out.

Most of what a target's loss varies by from member to member is whether it, or its near-duplicates,
were in the subset. Taken out of the losses first, that is no longer noise in everything else.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.difference_of_means import strongest_other, without_self
from influence_jax.estimators.ensemble import problem
from influence_jax.estimators.estimator import Fit, Tiles, estimator
from influence_jax.estimators.least_squares import COUNTS, fit_regressors
from influence_jax.estimators.mask_columns import nearly_equal
from influence_jax.estimators.mask_products import MaskProducts
from influence_jax.estimators.packed import PackedColumns
from influence_jax.estimators.residual_columns import ResidualColumns
from influence_jax.estimators.scan import scan_for
from influence_jax.estimators.self_influence import unseen_error, widened_error
from influence_jax.estimators.tiling import TILE, padded, standardized_tiles
from influence_jax.estimators.uncertainty import z_of_p
from influence_jax.types import AnyArray, Masks, Measurement

_CHANCE = 0.05  # that the strongest of all examples is taken for a regressor by noise alone


@estimator(
    name='adjusted',
    title='adjusted difference of means',
    description=(
        'the mean loss of members without the example minus that of members with it, after what '
        'the target itself and its strongest influencers explain has been taken out of the losses'
    ),
    least_members=3 * COUNTS[-1],
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
        products = MaskProducts(ensemble.masks)
        columns_of = ResidualColumns(ensemble.masks, fit.scan.single, products)
        for columns, losses, scale in standardized_tiles(ensemble.losses, tile=tile):
            of_block = padded(ensemble.self_index[columns], len(scale), fill=-1)
            fitted = fit(losses, of_block, columns, scale)
            yield columns, columns_of(fitted, scale, width=columns.stop - columns.start)

    return blocks()


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
                f'{len(masks)} complete members are too few to regress on up to {COUNTS[-1]} '
                f'examples: use at least {adjusted.least_members}, or difference_in_means'
            )
        self._masks, self._packed = masks, PackedColumns.of(masks)
        self._unseen = unseen_error(masks, losses, self_index)
        self._clusters = nearly_equal(masks)
        # Of examples that go together one is a regressor, and none stands in for another.
        first = self._clusters.first
        self.scan = self._scan_of_clusters = scan_for(masks)
        if not self._clusters.trivial:
            self._scan_of_clusters = scan_for(masks[:, first])
        self._most = min(COUNTS[-1], len(first))
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
        candidate_regressors = self.candidate_regressors(left, self_index)
        fitted = self.regressions(losses, candidate_regressors, self_index, columns, scale)
        cross_fitted = self._cross_fitted(losses, left, candidate_regressors, self_index)
        return fitted._replace(other_cross_fitted=cross_fitted)

    def regressions(
        self,
        losses: Float[np.ndarray, 'M t'],
        candidate_regressors: Int[np.ndarray, '3 t K'],
        self_index: Int[np.ndarray, ' t'],
        columns: slice | Int[np.ndarray, ' _'],
        scale: Float[np.ndarray, ' t'],
    ) -> Fit:
        """On some of the candidates, chosen before; `other_cross_fitted` is NaN."""
        found = fit_regressors(
            losses,
            candidate_regressors,
            self._packed.bits[candidate_regressors],
            self_index >= 0,
            self._least_z,
        )
        residual, examples, values, inflation, reliability = found
        is_self = (examples == self_index[:, None]) & (examples >= 0)
        unseen = padded(self._unseen[columns], len(scale)) / np.where(scale > 0, scale, 1)
        added = is_self * unseen[:, None]
        fitted = Fit(
            residual.T,
            examples,
            values,
            widened_error(reliability, added, members=len(losses)).astype(np.float32),
            inflation,
            np.where(self_index >= 0, reliability.effective_members[:, 0], np.nan),
            np.full(len(self_index), np.nan),
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
            return strongest_other(self.scan.single, left, candidate_regressors[:2], self_index)
        # What the own example does, those that go with it do.
        candidates = self.scan.candidate_regressors(losses, self_index, self._most, parts=2)
        return strongest_other(self.scan.single, losses, candidates, self_index)

    def candidate_regressors(
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
