"""Losses and scores of single tokens of a run on texts, by members whose parameters are kept.

    tokens.keep(run, dataset, method=attribution.KFAC())

computes them, and keeps them in the run's directory, where the explorer finds them.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from influence_jax import attribution, store, tasks
from influence_jax.analysis.tokens import (
    Pairs,
    TokenLosses,
    Tokens,
    TokenScores,
    average_by_membership,
    pairs_to_read,
)
from influence_jax.attribution import Attribution
from influence_jax.attribution.method import batches
from influence_jax.attribution.runs import engine_task
from influence_jax.data.dataset import Dataset
from influence_jax.progress import Progress, Quiet
from influence_jax.report import Results
from influence_jax.report.results import REPORT
from influence_jax.report.tokens import TokenResults
from influence_jax.run import Run
from influence_jax.tasks.causal_lm import CausalLM
from influence_jax.training import checkpoint
from influence_jax.training.member import abstract_variables

MEMBERS = 64
"""How many members are read unless another number is asked for."""

_LOSS = 'loss'


def keep(
    run: Run,
    dataset: Dataset,
    *,
    base: Any = None,
    members: int = MEMBERS,
    method: Attribution | None = None,
    progress: Progress | None = None,
) -> TokenResults:
    """Computes token losses and scores, and keeps them in the directory of the run.

    What is kept there already of the same members, method and pairs is not computed again.

    Args:
        run: on texts, with parameters of members; of scores also with its report, which says whose
            strongest influencers are worth it (`analysis.tokens.pairs_to_read`).
        dataset: that it was trained on; its targets are its examples.
        base: as of `Run.task`, for members that began with a checkpoint.
        members: of how many losses are averaged, at most; see `members_to_read`.
        method: of the scores, by the first of these members; None for losses alone.
        progress: of the members whose losses are computed.

    Raises:
        FileNotFoundError: the run kept no parameters, or has no report.
        ValueError: as `losses` and `scores`.
        OSError: the run's directory cannot be written to.
    """
    try:
        known = read(run)
    except (FileNotFoundError, ValueError):  # it is replaced
        known = None
    chosen = members_to_read(run, members)
    if known is not None and np.array_equal(known.losses.members, chosen):
        found = known.losses
    else:
        known, found = None, losses(run, dataset, base=base, members=members, progress=progress)
    of_pairs = None
    if method is not None:
        pairs = pairs_to_read(Results.load(run.directory / REPORT).overview)
        of_pairs = known and known.scores
        if of_pairs is None or not _are_of(of_pairs, method, int(chosen[0]), pairs):
            of_pairs = scores(run, dataset, method, pairs, member=int(chosen[0]), base=base)
    kept = TokenResults(run.manifest.identity, len(run.example_ids), found, of_pairs)
    kept.save(run.directory)
    return kept


def read(run: Run) -> TokenResults:
    """Reads what `keep` has kept of a run.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: it is damaged or of another run.
    """
    return TokenResults.load(run.directory, run=run.manifest.identity)


def losses(
    run: Run,
    dataset: Dataset,
    *,
    base: Any = None,
    members: int = MEMBERS,
    progress: Progress | None = None,
) -> TokenLosses:
    """Returns the loss of every token of every target, averaged over members by membership.

    Members are read one at a time. The mean over a record's tokens is the mean of the losses that
    the run has recorded of these members.

    Args:
        run: on texts, with parameters of members.
        dataset: that it was trained on; its targets are its examples.
        base: as of `Run.task`.
        members: how many are read, at most; see `members_to_read`.
        progress: of the members.

    Raises:
        FileNotFoundError: the run kept no parameters.
        ValueError: it is no run on texts, the dataset is another one, the targets are not the
            examples, or as `Run.task` and `Run.params`.
    """
    chosen = members_to_read(run, members)
    task, tokens = _read_texts(run, dataset, base)
    problem = tasks.bind(task, dataset)
    measured = engine_task(problem)
    like = abstract_variables(problem.task, problem.base)

    @jax.jit
    def compute(variables: Any, batch: Any) -> Float[jax.Array, 'B S']:
        shares = measured.measure_tokens(variables, batch)[_LOSS]  # type: ignore[attr-defined]
        # Each token's share of the record's mean, which is over all but the first.
        return shares * (batch.lengths[:, None] - 1)

    def of_members() -> Iterator[Float[np.ndarray, 'T S']]:
        for member in chosen.tolist():
            kept = checkpoint.load_member(run.directory / store.PARAMS, member, like)
            variables = jax.tree.map(jnp.asarray, kept)
            yield np.concatenate(
                [
                    np.asarray(compute(variables, batch))[: some.stop - some.start]
                    for some, batch in batches(problem.targets, problem.measure_batch)
                ]
            )
            shown.advance(1)

    shown = progress or Quiet()
    shown.start(total=len(chosen), done=0)
    try:
        return average_by_membership(
            of_members(), run.masks[chosen], tokens, members=chosen.tolist()
        )
    finally:
        shown.close()


def scores(
    run: Run,
    dataset: Dataset,
    method: Attribution,
    pairs: Pairs,
    *,
    member: int,
    base: Any = None,
) -> TokenScores:
    """Returns on which tokens of its target the influence of each pair falls.

    Args:
        run: on texts, with parameters of the member.
        dataset: that it was trained on; its targets are its examples.
        method: one whose scores are linear in what is measured (`Attribution.linear_in_targets`).
        pairs: of examples and targets.
        member: whose parameters are read.
        base: as of `Run.task`.

    Raises:
        FileNotFoundError: the run kept no parameters of the member.
        ValueError: as `losses`, and as `attribution.by_token`.
    """
    _, tokens = _read_texts(run, dataset, base)
    models, records = attribution.read_run(run, dataset, [member], base=base)
    lengths = tokens.lengths[pairs.targets]
    found = np.zeros(0, np.float32)
    if len(lengths):
        split = attribution.by_token_of_pairs(method, models, records, *pairs)
        found = split[np.arange(split.shape[1])[None] < lengths[:, None]]
    unit = method.unit(models[0], records)
    return TokenScores(method.method, unit, member, *pairs, lengths, found)


def members_to_read(run: Run, count: int) -> Int[np.ndarray, ' M']:
    """Chooses members evenly among those whose parameters are kept, ascending.

    Of members that share a subset the first alone may be chosen: they are no independent draws of
    the subset, of which standard errors tell.

    Args:
        run: with parameters of members.
        count: how many, at most.

    Raises:
        FileNotFoundError: the run kept no parameters.
        ValueError: `count` is below 1.
    """
    if count < 1:
        raise ValueError(f'members={count} must be at least 1')
    kept = checkpoint.kept_members(run.directory / store.PARAMS)
    usable = np.intersect1d(kept, run.complete)
    if not len(usable):
        raise FileNotFoundError(
            f'{run.directory} kept no parameters: train it anew with keep_params=True '
            f'(--keep_params) in another directory'
        )
    _, first = np.unique(np.packbits(run.masks[usable], axis=1), axis=0, return_index=True)
    distinct = usable[np.sort(first)]
    return distinct[np.linspace(0, len(distinct) - 1, min(count, len(distinct))).astype(int)]


def _read_texts(run: Run, dataset: Dataset, base: Any) -> tuple[CausalLM, Tokens]:
    """The task, and the tokens of the targets; raises as `losses`."""
    task = run.task(base=base)
    if not isinstance(task, CausalLM):
        raise ValueError(
            f'{run.directory} trained a {type(task).__name__}: tokens are of texts (tasks.CausalLM)'
        )
    if run.target_ids != run.example_ids:
        raise ValueError(f'the targets of {run.directory} are not its examples')
    run.remember(task, dataset)
    records = task.encode(dataset)
    inside = np.arange(records.tokens.shape[1])[None] < records.lengths[:, None]
    there, tokens = np.unique(records.tokens[inside], return_inverse=True)
    return task, Tokens(
        tuple(task.tokenizer.piece(token) for token in there),
        tokens.astype(np.int32),
        records.lengths,
        records.answer_starts,
        records.cut,
    )


def _are_of(kept: TokenScores, method: Attribution, member: int, pairs: Pairs) -> bool:
    same = np.array_equal(kept.examples, pairs.examples) and np.array_equal(
        kept.targets, pairs.targets
    )
    # Methods are not compared by what they say.
    described = dataclasses.astuple(kept.method) == dataclasses.astuple(method.method)
    return same and described and kept.member == member
