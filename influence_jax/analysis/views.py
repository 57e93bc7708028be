"""The pieces of an influence matrix that a report shows, gathered once; never the whole matrix."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from influence_jax.analysis.convergence import Convergence, split_half
from influence_jax.analysis.near_duplicate_comparison import in_a_group
from influence_jax.estimators.columns import Columns, as_columns
from influence_jax.estimators.difference_of_means import difference_in_means
from influence_jax.estimators.ensemble import examples_of_targets, problem
from influence_jax.estimators.estimator import Estimator, EstimatorLike, as_estimator
from influence_jax.estimators.summary import Summary, summarize
from influence_jax.estimators.uncertainty import largest_of_noise
from influence_jax.types import AnyArray, Masks, Measurement, PRNGKey

_GALLERY = 48
_BLOCK = 48
_CHOSEN_OF_EACH_KIND = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Overview:
    """What the report draws. Plain numpy arrays; targets and examples are given by position.

    Attributes:
      summary: of every target's influence distribution.
      convergence: agreement of two halves of the ensemble against their size; None of columns.
      target_examples: `[T]` position of the example that each target is; -1 where it is none.
      z_threshold: in a whole matrix without any influence, one entry is expected to lie more
        than this many standard errors above zero (Bonferroni over N T, Student's t).
      lowest_margin: up to 48 targets for the gallery, lowest Top-1 Influence Margin first. Those
        whose strongest other example stands out (`Summary.other_stands_out`) come before all
        others: without one a low margin is only noise over noise.
      most_memorized: up to 48 targets, largest self-influence first; empty where no target
        is an example.
      matrix_block: `[b c]` a readable piece of the influence matrix: rows are `block_examples`,
        columns `block_targets`.
      block_examples: `[b]` the targets of `lowest_margin` next to what influences them, so that
        groups of near-duplicates stand as blocks. At most 48.
      block_targets: `[c]` the targets that these examples are, in the same order (so the block is
        square and its diagonal self-influence) when every example is a target; otherwise the
        targets of `lowest_margin` from which the examples were found.
      chosen: `[d]` a few targets of different kinds: of lowest margin, most memorized, and of
        middling margin. At most 6.
      distributions: `[N d]` their full columns of the influence matrix.
      distribution_standard_errors: `[N d]` the standard errors of these.
    """

    summary: Summary
    convergence: Convergence | None
    target_examples: Int[np.ndarray, ' T']
    z_threshold: float
    lowest_margin: Int[np.ndarray, ' _']
    most_memorized: Int[np.ndarray, ' _']
    matrix_block: Float[np.ndarray, 'b c']
    block_examples: Int[np.ndarray, ' b']
    block_targets: Int[np.ndarray, ' c']
    chosen: Int[np.ndarray, ' d']
    distributions: Float[np.ndarray, 'N d']
    distribution_standard_errors: Float[np.ndarray, 'N d']


def overview(
    source: Masks | Columns,
    losses: Measurement | None = None,
    *,
    key: PRNGKey,
    estimator: EstimatorLike = difference_in_means,
    target_examples: Int[AnyArray, ' T'] | None = None,
    top_k: int = 16,
) -> Overview:
    """Gathers what the report shows, never holding the whole matrix.

    `overview(masks, losses, key=key, estimator=adjusted)`, or `overview(columns, key=key)`.

    Args:
      source: masks `[M N]` bool; row m is the subset on which member m was trained. Or `Columns`.
      losses: `[M T]` what was measured of member m on target t. Rows with anything non-finite,
        members missing or diverged, are left out of everything. None for `Columns`.
      key: draws the halves of the convergence curve.
      estimator: how influence is estimated, for everything that is shown; see `as_estimator`.
      target_examples: as in `summarize`.
      top_k: as in `summarize`.

    Raises:
      ValueError: as in `summarize` and `split_half`.
    """
    # Once for all parts: a member must not be left out of some columns only.
    source = as_columns(source, losses, estimator=estimator, target_examples=target_examples)
    examples, targets = source.examples, source.targets
    self_index = examples_of_targets(target_examples, examples=examples, targets=targets)
    summary = summarize(source, top_k=top_k, target_examples=self_index)
    convergence = None
    if (
        isinstance(source.method, Estimator)
        and source.masks is not None
        and source.losses is not None
    ):
        convergence = split_half(
            source.masks,
            source.losses,
            key=key,
            estimator=source.method,
            target_examples=self_index,
        )
    threshold = largest_of_noise(members=source.members, examples=examples, targets=targets)
    margins, memorized = by_margin(summary), by_self_influence(summary)
    lowest_margin = margins[:_GALLERY]

    block = block_of_neighbors(summary, self_index, lowest_margin, size=_BLOCK)

    block_columns = source.column(block.targets)
    chosen = spread_of_kinds(margins, memorized, each=_CHOSEN_OF_EACH_KIND)
    columns = source.column(chosen)
    errors = np.array(columns.standard_error)
    # The error of self-influence looks at all targets: the same here as everywhere.
    examples_chosen = np.flatnonzero(self_index[chosen] >= 0)
    errors[self_index[chosen][examples_chosen], examples_chosen] = summary.self_standard_error[
        chosen[examples_chosen]
    ]
    return Overview(
        summary=summary,
        convergence=convergence,
        target_examples=self_index,
        z_threshold=threshold,
        lowest_margin=lowest_margin,
        most_memorized=memorized[:_GALLERY],
        matrix_block=np.asarray(block_columns.values)[block.examples],
        block_examples=block.examples,
        block_targets=block.targets,
        chosen=chosen,
        distributions=np.asarray(columns.values),
        distribution_standard_errors=errors,
    )


class Block(NamedTuple):
    """Rows and columns of a readable piece of the influence matrix.

    examples: `[b]` rows.
    targets: `[c]` columns.
    """

    examples: Int[np.ndarray, ' b']
    targets: Int[np.ndarray, ' c']


def by_margin(summary: Summary) -> Int[np.ndarray, ' T']:
    """All targets, lowest margin first; those without an other example beyond noise behind."""
    return np.lexsort((_undefined_last(summary.margin), ~summary.other_stands_out))


def by_self_influence(summary: Summary) -> Int[np.ndarray, ' _']:
    """All targets that are examples, largest self-influence first."""
    order = np.argsort(-summary.self_influence, kind='stable')
    return order[~np.isnan(summary.self_influence[order])]


def spread_of_kinds(
    lowest_margin: Int[np.ndarray, ' _'], most_memorized: Int[np.ndarray, ' _'], *, each: int
) -> Int[np.ndarray, ' d']:
    """Some of lowest margin, of largest self-influence, and from the middle of the margins."""
    middle = lowest_margin[len(lowest_margin) // 2 :]
    kinds = np.concatenate([lowest_margin[:each], most_memorized[:each], middle[:each]])
    return np.array(list(dict.fromkeys(kinds.tolist())), int)


def block_of_neighbors(
    summary: Summary,
    self_index: Int[np.ndarray, ' T'],
    targets: Int[np.ndarray, ' _'],
    *,
    size: int,
) -> Block:
    """Targets next to what influences them beyond noise, that next to what influences it, ...

    Args:
      summary: of the whole matrix.
      self_index: `[T]` the example that each target is, or -1.
      targets: from which to start, in order.
      size: at most so many rows.
    """
    target_of = {int(e): t for t, e in enumerate(self_index) if e >= 0}
    significant = summary.top_stands_out

    placed: dict[int, None] = {}
    for start in targets:
        # Even where nothing is significant, the strongest is what the reader wants to see.
        pending = [int(summary.strongest_other[start])]
        pending += summary.top_examples[start][significant[start]][::-1].tolist()
        pending += [int(self_index[start])] if self_index[start] >= 0 else []
        while pending and len(placed) < size:
            example = pending.pop()
            if example in placed:
                continue
            placed[example] = None
            if example in target_of:
                target = target_of[example]
                pending += summary.top_examples[target][significant[target]][::-1].tolist()
    examples = np.array(list(placed), int)
    if all(example in target_of for example in placed):
        return Block(examples, np.array([target_of[e] for e in placed], int))
    return Block(examples, targets[:size])


def _undefined_last(values: Float[np.ndarray, ' T']) -> Float[np.ndarray, ' T']:
    return np.where(np.isnan(values), np.inf, values)


class Column(NamedTuple):
    """One target's influence distribution.

    target: its position.
    self_index: the example that it is.
    siblings: the examples that are its near-duplicates; none for a unique record.
    values: `[N]` influence of every example on it.
    standard_errors: `[N]` of each.
    """

    target: int
    self_index: int
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
    estimator: EstimatorLike = difference_in_means,
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
      summary: of the same, by the same estimator.
      estimator: how influence is estimated, see `as_estimator`.
      target_examples: `[T]` as in `summarize`. Targets that are no examples are not shown.
      clusters: how many, at most.
      unique: how many unique records, at most.
      largest: how many records of a cluster are shown, at most.

    Raises:
      ValueError: as the estimator, lengths that do not fit, or no target that is an example.
    """
    masks, losses, self_index = problem(masks, losses, target_examples)
    targets = losses.shape[1]
    groups = np.asarray(groups)
    if groups.shape != (targets,) or summary.margin.shape != (targets,):
        raise ValueError(
            f'{targets} targets need as many groups and a summary of the same, '
            f'not {list(groups.shape)} and {list(summary.margin.shape)}'
        )
    if (self_index < 0).all():
        raise ValueError('no target is an example: there is no cluster of examples to be shown')
    alone = ~in_a_group(groups) & (self_index >= 0)
    together = in_a_group(groups) & (self_index >= 0)
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
    estimated = as_estimator(estimator)(
        masks, losses[:, wanted], target_examples=self_index[wanted]
    )
    values, errors = np.asarray(estimated.values), np.asarray(estimated.standard_error)

    def column(target: int | None) -> Column | None:
        if target is None:
            return None
        siblings = (groups == groups[target]) & together
        siblings[target] = False
        place = int(np.flatnonzero(wanted == target)[-1])
        return Column(
            target,
            int(self_index[target]),
            self_index[siblings],
            values[:, place],
            errors[:, place],
        )

    return ClusterView(
        block=values[self_index[shown], : len(shown)],
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
