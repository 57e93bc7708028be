"""What is judged: estimates from the members, scores of models, and both together."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from influence_jax import attribution, store
from influence_jax import estimators as estimating
from influence_jax.analysis import judge
from influence_jax.attribution import Attribution, Model, Records
from influence_jax.attribution.detectors import Detector
from influence_jax.data.dataset import Dataset
from influence_jax.estimators import Columns, Estimator
from influence_jax.estimators.ensemble import average_repeats
from influence_jax.estimators.tiling import TILE
from influence_jax.judging.kept import estimate_identity, scores_identity
from influence_jax.judging.retraining import params_of_permuted_labels, sanity_check
from influence_jax.resources import Stopwatch
from influence_jax.run import Run
from influence_jax.training.checkpoint import kept_members
from influence_jax.types import PRNGKey


class Source(NamedTuple):
    """Columns to be computed.

    columns: computed when they are read.
    identity: of all that determines them besides their axes.
    block: targets to read at once.
    keep: whether the identity tells them from all others, so that they may be read again later.
    sanity: compares them with those of models that know nothing; None for estimates.
    """

    columns: Columns
    identity: str
    block: int
    keep: bool = True
    sanity: Callable[[], judge.Sanity] | None = None


def estimated(
    split: judge.Split,
    self_index: Int[np.ndarray, ' T'],
    estimators: Sequence[Estimator],
    left_out: MutableMapping[str, str],
) -> Iterator[Source]:
    """Yields each estimator's columns; writes to `left_out` why there are none of the others."""
    members = len(average_repeats(split.masks, split.losses)[0])
    for estimator in estimators:
        if members < estimator.least_members:
            left_out[estimator.name] = f'needs {estimator.least_members} members, not {members}'
            continue
        yield _estimate(split, self_index, estimator)


def assisted(
    split: judge.Split,
    self_index: Int[np.ndarray, ' T'],
    computed: Mapping[str, tuple[Columns, str]],
    names: Sequence[str],
) -> Source:
    """Returns the ensemble's estimate with scores beside it.

    Args:
        split: of members.
        self_index: `[T]` position of the target's own example, -1 where it is none.
        computed: columns and their identities, by name.
        names: which of them.

    Raises:
        ValueError: scores could not be computed, or there are too few members.
    """
    for name in names:
        if name not in computed:
            raise ValueError(f'the scores of {name!r} are not there')
    estimator = estimating.with_scores({name: computed[name][0] for name in names})
    return _estimate(split, self_index, estimator, [computed[name][1] for name in names])


def _estimate(
    split: judge.Split,
    self_index: Int[np.ndarray, ' T'],
    estimator: Estimator,
    beside: Sequence[str] = (),
) -> Source:
    columns = judge.estimate(split.masks, split.losses, self_index, estimator=estimator)
    identity = estimate_identity(estimator.name, split.masks, split.losses, beside)
    # What is learned from all targets would be learned anew for each block.
    block = columns.targets if estimator.pooled else TILE
    # What somebody's own function does is not known by its name.
    return Source(columns, identity, block, bool(beside) or estimator in estimating.BUILT_IN)


def models_of(
    run: Run, dataset: Dataset | None, held_out: judge.HeldOut, count: int
) -> tuple[list[int], list[Model], Records]:
    """Reads models that were trained on none of the held-out masks.

    Args:
        run: with parameters.
        dataset: of the run.
        held_out: whose masks are left out.
        count: how many models, at most.

    Returns:
        The numbers of the members, their models, and the records of the run.

    Raises:
        ValueError: no dataset, no parameters, no model that may be used, targets that are no
            examples, or as in `attribution.read_run`.
    """
    if dataset is None:
        raise ValueError('attribution reads the examples: give the dataset of the run')
    if run.target_ids != run.example_ids:
        raise ValueError(f'the targets of {run.directory} are not its examples')
    kept = kept_members(run.directory / store.PARAMS)
    if not len(kept):
        raise ValueError(
            f'{run.directory} kept no parameters: train models with --keep_params, and give '
            f'their directory as --models'
        )
    seen = {row.tobytes() for row in np.packbits(held_out.masks, axis=1)}
    masks = np.packbits(np.asarray(run.masks), axis=1)
    usable = [
        int(member)
        for member in kept
        if member in run.complete and masks[member].tobytes() not in seen
    ]
    if not usable:
        raise ValueError(f'every model of {run.directory} has diverged or has a held-out mask')
    return usable[:count], *attribution.read_run(run, dataset, usable[:count])


def attributed(
    run: Run,
    dataset: Dataset | None,
    held_out: judge.HeldOut,
    methods: Sequence[Attribution],
    left_out: MutableMapping[str, str],
    *,
    chosen: Int[np.ndarray, ' T'],
    self_index: Int[np.ndarray, ' T'],
    num_models: int,
    memory: int,
    seed: int,
) -> Iterator[Source]:
    """Yields each method's scores; writes to `left_out` why there are none of the others.

    Args:
        run: whose models are attributed by.
        dataset: of the run.
        held_out: no model of whose masks is used.
        methods: which.
        left_out: reasons by name.
        chosen: `[T]` positions of the targets among all of the run.
        self_index: `[T]` position of the target's own example, -1 where it is none.
        num_models: whose scores are averaged, at most.
        memory: bytes that a method may hold.
        seed: of the sanity checks.

    Raises:
        ValueError: as `models_of`.
    """
    if not methods:
        return
    members, models, records = models_of(run, dataset, held_out, num_models)
    assert dataset is not None
    targets = jax.tree.map(lambda leaf: np.asarray(leaf)[chosen], records.targets)
    records = dataclasses.replace(records, targets=targets, memory=memory)
    permuted = functools.partial(params_of_permuted_labels, run, dataset, seed)
    for method in methods:
        try:
            columns, block = method(models, records), method.target_block(models, records)
        except ValueError as error:
            left_out[method.method.name] = str(error)
            continue
        sanity = functools.partial(
            sanity_check, method, models[0], records, self_index, permuted, seed=seed
        )
        yield Source(columns, scores_identity(method, run, members), block, sanity=sanity)


def detected(
    run: Run,
    dataset: Dataset,
    held_out: judge.HeldOut,
    detectors: Sequence[Detector],
    left_out: MutableMapping[str, str],
    *,
    num_models: int,
    memory: int,
    key: PRNGKey,
) -> Iterator[judge.Detection]:
    """Yields what each detector finds of a dataset's wrong labels; nothing where none is known.

    Args:
        run: whose models detect.
        dataset: of the run.
        held_out: no model of whose masks is used.
        detectors: which.
        left_out: reasons by name.
        num_models: whose scores are averaged, at most.
        memory: bytes that a detector may hold.
        key: of the bootstrap.

    Raises:
        ValueError: as `models_of`.
    """
    if dataset.mislabelled is None or not detectors:
        return
    _, models, records = models_of(run, dataset, held_out, num_models)
    records = dataclasses.replace(records, memory=memory)
    for detector in detectors:
        try:
            with Stopwatch() as watch:
                suspicion = detector(models, records)
        except ValueError as error:
            left_out[detector.method.name] = str(error)
            continue
        scores = judge.mislabel_scores(suspicion, dataset.mislabelled, key=key)
        if scores is not None:
            yield judge.Detection(detector.method, scores, watch.cost)
