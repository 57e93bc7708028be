"""Influence of whole groups: a user, a source, a cluster of near-duplicates."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.difference_of_means import difference_in_means
from influence_jax.estimators.ensemble import (
    check_both_sides,
    complete_members,
    examples_of_targets,
)
from influence_jax.estimators.estimator import EstimatorLike, as_estimator
from influence_jax.estimators.standard_errors import error_of_weighted_sum
from influence_jax.types import AnyArray, Influence, Masks, Measurement

_TARGETS_AT_ONCE = 2048


class GroupInfluence(NamedTuple):
    """Influence of every group on every target; sign and unit as in `types.Influence`.

    ids: `[G]` of the groups, ascending.
    influence: values and standard errors `[G T]`.
    """

    ids: Int[np.ndarray, ' G']
    influence: Influence


class _Groups(NamedTuple):
    """ids: `[G]` ascending. of_example: `[N]` which of them. first: `[G]` an example of each."""

    ids: Int[np.ndarray, ' G']
    of_example: Int[np.ndarray, ' N']
    first: Int[np.ndarray, ' G']


def group_influence(
    masks: Masks,
    losses: Measurement,
    groups: Int[AnyArray, ' N'],
    *,
    estimator: EstimatorLike = difference_in_means,
    target_examples: Int[AnyArray, ' T'] | None = None,
) -> GroupInfluence:
    """Influence of including the whole of a group, for masks that were drawn over groups.

    Each group counts as one example, and the estimator is run on `[M G]`: positive where
    members trained with the group have the lower measurement of the target. What the
    examples of a group do together, such as near-duplicates that stand in for one another, is in
    it in full. The other groups are in or out at their rate. On a target of the group itself it
    holds the self-influence too.

    Args:
      masks: `[M N]`, from `subsets.draw(..., groups=groups)`: equal within each group.
      losses: `[M T]`, as in `difference_in_means`.
      groups: `[N]` id of each example's group; any integers.
      estimator: how, see `as_estimator`.
      target_examples: `[T]` position of the example that each target is, -1 where it is none; by
        default target t is example t if T == N. The adjusted estimate needs it.

    Raises:
      ValueError: masks were not drawn over these groups, or as the estimator.
    """
    masks, losses, found = _matched(masks, losses, groups)
    split = np.flatnonzero((masks != masks[:, found.first[found.of_example]]).any(axis=0))
    if split.size:
        lacking = np.unique(found.of_example[split])
        raise ValueError(
            f'masks were not drawn over these groups: in {lacking.size} of {len(found.ids)}, first '
            f'group {found.ids[lacking[0]]}, examples are in a subset one without another; '
            'give the groups of subsets.draw, or use additive_group_influence'
        )
    self_index = examples_of_targets(
        target_examples, examples=masks.shape[1], targets=losses.shape[1]
    )
    of_target = np.where(self_index >= 0, found.of_example[self_index], -1)
    influence = as_estimator(estimator)(masks[:, found.first], losses, target_examples=of_target)
    return GroupInfluence(found.ids, influence)


def additive_group_influence(
    masks: Masks, losses: Measurement, groups: Int[AnyArray, ' N']
) -> GroupInfluence:
    """Sum of the influences of a group's examples, for masks drawn over single examples.

    An approximation of `group_influence` that supposes that effects add up: with independent
    masks no member is without the whole of a group. It is too small where examples stand in for
    one another (k near-duplicates, each in half of the subsets, add up to k / 2^(k-1) of what
    they do together) and too large where they help only together.

    Values are sums of `difference_in_means`. Their errors hold the covariances between the
    estimates of one group's examples: those of a weighted sum of losses that know nothing of the
    weights or, for a sum that is surely not noise and where it is larger, the sum over members of
    products of what each member adds to the one estimate and to the other (our reconstruction); of
    a group of one it is the standard error of `difference_in_means`. Time grows with members x
    targets x (examples + groups), in numpy.

    Args:
      masks: `[M N]`, drawn example by example.
      losses: `[M T]`, as in `difference_in_means`.
      groups: `[N]` id of each example's group; any integers.

    Raises:
      ValueError: the masks of a group are all equal, so that its examples' influences are each
        that of the whole; or as in `difference_in_means`.
    """
    masks, losses, found = _matched(masks, losses, groups)
    masks, losses = complete_members(masks, losses)
    check_both_sides(masks)
    together = ~np.isin(
        np.arange(len(found.ids)),
        found.of_example[(masks != masks[:, found.first[found.of_example]]).any(axis=0)],
    )
    together &= np.bincount(found.of_example) > 1
    if together.any():
        raise ValueError(
            f'the examples of {together.sum()} of {len(found.ids)} groups, first group '
            f'{found.ids[together][0]}, are only ever in a subset together: use group_influence'
        )
    targets = losses.shape[1]
    values = np.empty((len(found.ids), targets), np.float32)
    standard_errors = np.empty_like(values)
    by_group = np.split(
        np.argsort(found.of_example, kind='stable'), np.bincount(found.of_example).cumsum()[:-1]
    )
    for start in range(0, targets, _TARGETS_AT_ONCE):
        columns = slice(start, min(start + _TARGETS_AT_ONCE, targets))
        centered = losses[:, columns] - losses[:, columns].mean(axis=0, dtype=np.float64)
        for g, examples in enumerate(by_group):
            values[g, columns], standard_errors[g, columns] = _sum_of_differences(
                masks[:, examples].astype(np.float64), centered
            )
    return GroupInfluence(found.ids, Influence(values, standard_errors))


def _sum_of_differences(
    inside: Float[np.ndarray, 'M n'], losses: Float[np.ndarray, 'M t']
) -> tuple[Float[np.ndarray, ' t'], Float[np.ndarray, ' t']]:
    n_in = inside.sum(axis=0)
    n_out = len(inside) - n_in
    total_in = inside.T @ losses
    mean_in = total_in / n_in[:, None]
    mean_out = (losses.sum(axis=0)[None] - total_in) / n_out[:, None]

    # What a member adds to one estimate is its loss, less the mean of its side, times the weight
    # of its side; the unbiased variances' n - 1 is part of the weight. Summed over the examples:
    weight_in, weight_out = (1 / np.sqrt(n * (n - 1)) for n in (n_in, n_out))
    weight = weight_out.sum() - inside @ (weight_in + weight_out)
    means_out = weight_out[:, None] * mean_out
    means = means_out.sum(axis=0)[None] - inside @ (means_out + weight_in[:, None] * mean_in)
    added = weight[:, None] * losses - means
    value = (mean_out - mean_in).sum(axis=0)
    # The same without n - 1, so that the sum of weights times losses is the value.
    weights = ((1 - inside) / n_out - inside / n_in).sum(axis=1)
    by_members = np.sqrt((added**2).sum(axis=0))
    return value, error_of_weighted_sum(value, weights, losses, by_members)


def _matched(
    masks: Masks, losses: Measurement, groups: Int[AnyArray, ' N']
) -> tuple[Bool[np.ndarray, 'M N'], Float[np.ndarray, 'M T'], _Groups]:
    masks, losses, groups = np.asarray(masks), np.asarray(losses), np.asarray(groups)
    if masks.ndim != 2 or masks.dtype != bool or losses.ndim != 2:
        raise ValueError(
            'masks must be bool [members examples] and losses [members targets], '
            f'not {masks.dtype} {list(masks.shape)} and {losses.dtype} {list(losses.shape)}'
        )
    if groups.shape != masks.shape[1:] or not np.issubdtype(groups.dtype, np.integer):
        raise ValueError(
            f'groups must be one integer id for each of the {masks.shape[1]} examples, '
            f'not {groups.dtype} {list(groups.shape)}'
        )
    ids, first, of_example = np.unique(groups, return_index=True, return_inverse=True)
    return masks, losses, _Groups(ids, of_example, first)
