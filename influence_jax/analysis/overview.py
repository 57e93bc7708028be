"""Everything the report shows of an ensemble, gathered once; never the whole matrix."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from influence_jax.analysis import selection
from influence_jax.analysis.convergence import Convergence, split_half
from influence_jax.estimators.ensemble import examples_of_targets, usable
from influence_jax.estimators.kinds import Estimator, estimate
from influence_jax.estimators.summary import Summary, summarize
from influence_jax.estimators.uncertainty import largest_of_noise
from influence_jax.types import AnyArray, Influence, Masks, Measurement, PRNGKey

_GALLERY = 48
_BLOCK = 48
_CHOSEN_OF_EACH_KIND = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Overview:
    """What the report draws. Plain numpy arrays; targets and examples are given by position.

    Attributes:
      summary: of every target's influence distribution.
      convergence: agreement of two halves of the ensemble against their size.
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
    convergence: Convergence
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
    masks: Masks,
    losses: Measurement,
    *,
    key: PRNGKey,
    estimator: Estimator = Estimator.DIFFERENCE,
    target_examples: Int[AnyArray, ' T'] | None = None,
    top_k: int = 16,
) -> Overview:
    """Gathers what the report shows, never holding the whole matrix.

    Args:
      masks: `[M N]` bool; row m is the subset on which member m was trained.
      losses: `[M T]` what was measured of member m on target t. Rows with anything non-finite,
        members missing or diverged, are left out of everything.
      key: draws the halves of the convergence curve.
      estimator: how influence is estimated, for everything that is shown.
      target_examples: as in `summarize`.
      top_k: as in `summarize`.

    Raises:
      ValueError: as in `summarize` and `split_half`.
    """
    # Once for all parts: a member must not be left out of some columns only.
    masks, losses = usable(masks, losses)
    examples, targets = masks.shape[1], losses.shape[1]
    own = examples_of_targets(target_examples, examples=examples, targets=targets)
    summary = summarize(masks, losses, estimator=estimator, top_k=top_k, target_examples=own)
    threshold = largest_of_noise(members=len(masks), examples=examples, targets=targets)
    by_margin = selection.by_margin(summary)
    by_self_influence = selection.by_self_influence(summary)
    lowest_margin = by_margin[:_GALLERY]

    block = selection.block_of_neighbours(summary, own, lowest_margin, size=_BLOCK)

    def whole_columns(which: Int[np.ndarray, ' _']) -> Influence:
        return estimate(estimator, masks, losses[:, which], target_examples=own[which])

    block_columns = whole_columns(block.targets)
    chosen = selection.spread_of_kinds(by_margin, by_self_influence, each=_CHOSEN_OF_EACH_KIND)
    columns = whole_columns(chosen)
    errors = np.array(columns.standard_error)
    # The error of self-influence looks at all targets: the same here as everywhere.
    examples_chosen = np.flatnonzero(own[chosen] >= 0)
    errors[own[chosen][examples_chosen], examples_chosen] = summary.self_standard_error[
        chosen[examples_chosen]
    ]
    return Overview(
        summary=summary,
        convergence=split_half(masks, losses, key=key, estimator=estimator, target_examples=own),
        target_examples=own,
        z_threshold=threshold,
        lowest_margin=lowest_margin,
        most_memorized=by_self_influence[:_GALLERY],
        matrix_block=np.asarray(block_columns.values)[block.examples],
        block_examples=block.examples,
        block_targets=block.targets,
        chosen=chosen,
        distributions=np.asarray(columns.values),
        distribution_standard_errors=errors,
    )
