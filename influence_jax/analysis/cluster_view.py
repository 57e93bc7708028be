"""The pieces of the influence matrix that show what clusters of near-duplicates do to it."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from influence_jax.analysis.near_duplicate_comparison import in_a_group
from influence_jax.estimators.ensemble import examples_of_targets, usable
from influence_jax.estimators.kinds import estimate
from influence_jax.estimators.summary import Summary
from influence_jax.types import AnyArray, Masks, Measurement


class Column(NamedTuple):
    """One target's influence distribution.

    target: its position.
    own: the example that it is.
    siblings: the examples that are its near-duplicates; none for a unique record.
    values: `[N]` influence of every example on it.
    standard_errors: `[N]` of each.
    """

    target: int
    own: int
    siblings: Int[np.ndarray, ' _']
    values: Float[np.ndarray, ' N']
    standard_errors: Float[np.ndarray, ' N']


class ClusterView(NamedTuple):
    """Some clusters and some unique records, none of them picked for what it shows.

    block: `[b b]` influence of each of `targets` on each of them: rows are examples.
    targets: `[b]` positions; clusters first, each in one piece, then unique records.
    clusters: where in the block each cluster lies, `(start, end)`.
    unique: the unique record of middling margin, or None where there is none.
    duplicated: the near-duplicated one of middling margin, or None.
    """

    block: Float[np.ndarray, 'b b']
    targets: Int[np.ndarray, ' b']
    clusters: tuple[tuple[int, int], ...]
    unique: Column | None
    duplicated: Column | None


def cluster_view(
    masks: Masks,
    losses: Measurement,
    groups: Int[AnyArray, ' T'],
    *,
    summary: Summary,
    target_examples: Int[AnyArray, ' T'] | None = None,
    clusters: int = 6,
    unique: int = 18,
    largest: int = 8,
) -> ClusterView:
    """Estimates a readable block and two columns of the influence matrix.

    Clusters are taken at even steps of their mean self-influence, unique records at even steps of
    theirs, from the lowest to the highest.

    Args:
      masks: `[M N]` bool; row m is the subset on which member m was trained.
      losses: `[M T]` what was measured of member m on target t. Rows with anything non-finite,
        members missing or diverged, are left out.
      groups: `[T]` the same number for the near-duplicates of one record.
      summary: of the same; its estimator is used.
      target_examples: `[T]` as in `summarize`. Targets that are no examples are not shown.
      clusters: how many, at most.
      unique: how many unique records, at most.
      largest: how many records of a cluster are shown, at most.

    Raises:
      ValueError: as the estimator, lengths that do not fit, or no target that is an example.
    """
    masks, losses = usable(masks, losses)
    targets = losses.shape[1]
    groups = np.asarray(groups)
    if groups.shape != (targets,) or summary.margin.shape != (targets,):
        raise ValueError(
            f'{targets} targets need as many groups and a summary of the same, '
            f'not {list(groups.shape)} and {list(summary.margin.shape)}'
        )
    own = examples_of_targets(target_examples, examples=masks.shape[1], targets=targets)
    if (own < 0).all():
        raise ValueError('no target is an example: there is no cluster of examples to be shown')
    alone = ~in_a_group(groups) & (own >= 0)
    together = in_a_group(groups) & (own >= 0)
    self_influence = summary.self_influence

    shown_clusters = [
        np.flatnonzero(together & (groups == group))[:largest]
        for group in at_even_steps(groups[together], self_influence[together], clusters)
    ]
    ends = np.cumsum([0, *map(len, shown_clusters)])
    which = np.flatnonzero(alone)
    shown = np.concatenate(
        [*shown_clusters, at_even_steps(which, self_influence[which], unique)]
    ).astype(int)

    middle = [_of_middling(summary.margin, kind) for kind in (alone, together)]
    wanted = np.concatenate([shown, *([one] for one in middle if one is not None)]).astype(int)
    estimated = estimate(summary.estimator, masks, losses[:, wanted], target_examples=own[wanted])
    values, errors = np.asarray(estimated.values), np.asarray(estimated.standard_error)

    def column(target: int | None) -> Column | None:
        if target is None:
            return None
        siblings = (groups == groups[target]) & together
        siblings[target] = False
        place = int(np.flatnonzero(wanted == target)[-1])
        return Column(target, int(own[target]), own[siblings], values[:, place], errors[:, place])

    return ClusterView(
        block=values[own[shown], : len(shown)],
        targets=shown,
        clusters=tuple(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)),
        unique=column(middle[0]),
        duplicated=column(middle[1]),
    )


def at_even_steps(
    names: Int[np.ndarray, ' _'], values: Float[np.ndarray, ' _'], most: int
) -> Int[np.ndarray, ' _']:
    """Some of the distinct names, from the lowest mean value to the highest; at most `most`."""
    distinct, which = np.unique(names, return_inverse=True)
    means = np.bincount(which, values) / np.bincount(which)
    order = distinct[np.argsort(means, kind='stable')]
    steps = np.linspace(0, len(order) - 1, min(most, len(order)))
    return order[np.round(steps).astype(int)]


def _of_middling(margin: Float[np.ndarray, ' T'], kind: np.ndarray) -> int | None:
    which = np.flatnonzero(kind)
    if not which.size:
        return None
    order = which[np.argsort(margin[which], kind='stable')]  # NaN last
    return int(order[(len(order) - 1) // 2])
