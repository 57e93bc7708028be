"""The story of a run: draw subsets, train what is missing, stop when it is precise enough."""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool

from influence_jax import store, subsets, tasks, training
from influence_jax.analysis.convergence import SequentialStopping, least_half
from influence_jax.data.dataset import Dataset
from influence_jax.estimators import EstimatorLike, adjusted, as_estimator, check_both_sides
from influence_jax.progress import Progress, Quiet
from influence_jax.run import Run
from influence_jax.subsets import ByGroup, Design
from influence_jax.tasks.base import Problem
from influence_jax.training import Automatic, Executor, Program, Recipe
from influence_jax.training.contract import check_task
from influence_jax.training.multihost import from_primary, is_primary
from influence_jax.types import PRNGKey

Stored = store.Run | store.ReadOnlyRun

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Checkpointing:
    """When members are kept while they train, so that a kill costs less than a member.

    Attributes:
        steps: from one checkpoint to the next.
        minutes: least time from one to the next.
    """

    steps: int
    minutes: float = 0.0


def train_ensemble(
    task: Any,
    dataset: Dataset,
    *,
    members: int,
    output_dir: str | Path,
    targets: Dataset | None = None,
    inclusion_prob: float = 0.5,
    design: Design | ByGroup = Design.INDEPENDENT,
    repeats: int = 1,
    recipe: Recipe | None = None,
    executor: Executor | Automatic | None = None,
    seed: int = 0,
    keep_params: bool = False,
    until_standard_error: float | None = None,
    estimator: EstimatorLike = adjusted,
    checkpointing: Checkpointing | None = None,
    progress: Progress | None = None,
    command: str = '',
) -> Run:
    """Trains members on random subsets of a dataset and records their losses on every target.

    The same call continues a run that was stopped, and with a larger `members` adds to it: under
    every design but the balanced one the first members stay what they were.

    Args:
        task: what is trained and measured: of `influence_jax.tasks`, or any `types.Task`.
        dataset: N examples.
        members: M, how many models to train; with `until_standard_error` at most.
        output_dir: the run's directory.
        targets: T records on which members are measured; the examples by default.
        inclusion_prob: probability, or fraction, with which an example is in a subset.
        design: how subsets are drawn; `ByGroup(design)` has examples of the same group (see
            `Dataset.groups`) enter and leave together.
        repeats: members that share a mask and differ in seed alone; divides `members`.
        recipe: how long, in what batches and by which optimizer.
        executor: how members share devices; by default this follows from the kind of device and the
            shapes (`training.Automatic`). Changes results by rounding alone.
        seed: of subsets, initial parameters, batch order, dropout and augmentation.
        keep_params: keep every member's trained parameters, for `Run.params`.
        until_standard_error: stop when the median standard error off the diagonal is at most this.
        estimator: by which that standard error is told.
        checkpointing: keep members while they train.
        progress: what is told of the training; nobody by default.
        command: how the run was started, for whoever wants to repeat it.

    Returns:
        The run, opened for reading. In a process that is not the primary one of several, it is
        what that one wrote, if this process sees its files.

    Raises:
        ValueError: an argument, the task or the dataset does not fit; nothing was trained.
        store.RunError: the directory holds another run, is written by another process, or the
            disk fails.
    """
    recipe = recipe or Recipe()
    grouped = isinstance(design, ByGroup)
    kind = design.design if isinstance(design, ByGroup) else design
    _check(inclusion_prob, repeats, members, seed, kind, until_standard_error)
    executor = executor or Automatic()
    use_cores(_devices(executor))
    of_masks, of_members = jax.random.split(jax.random.key(seed), 4)[1:3]
    problem = tasks.bind(
        task, dataset, targets, executor=executor if isinstance(executor, Executor) else None
    )
    if grouped and dataset.groups is None:
        raise ValueError(
            f'a design by group needs a dataset with groups: {dataset.name!r} has none'
        )
    _refuse_growth(kind, Path(output_dir), members)
    masks = subsets.draw(
        kind,
        key=of_masks,
        members=members,
        examples=dataset.num_examples,
        inclusion_prob=inclusion_prob,
        groups=dataset.groups if grouped else None,
        repeats=repeats,
    )
    check_both_sides(masks)
    stopping = None
    if until_standard_error is not None:
        stopping = SequentialStopping(until_standard_error, estimator, key=jax.random.key(seed))
        if members < (least := 2 * least_half(as_estimator(estimator))):
            raise ValueError(
                f'{members=} are too few for the estimator {as_estimator(estimator).name} to tell '
                f'how precise it is: allow at least {least}'
            )
    expected = inclusion_prob * dataset.num_examples
    configuration = {
        'inclusion_prob': inclusion_prob,
        'design': kind.value,
        'by_group': grouped,
        'repeats': repeats,
    }
    run = _train(
        problem,
        dataset,
        targets,
        masks,
        program=_program(problem, recipe, masks, expected),
        configuration=configuration | {'recipe': dataclasses.asdict(recipe)},
        output_dir=Path(output_dir),
        executor=executor,
        seed=seed,
        key=of_members,
        keep_params=keep_params,
        stopping=stopping,
        checkpointing=checkpointing,
        progress=progress or Quiet(),
        command=command,
    )
    run.remember(task, dataset)
    return run


def train_full_data_model(
    task: Any,
    dataset: Dataset,
    *,
    output_dir: str | Path,
    targets: Dataset | None = None,
    recipe: Recipe | None = None,
    expected_subset: float | None = None,
    executor: Executor | Automatic | None = None,
    seed: int = 0,
    keep_params: bool = False,
    checkpointing: Checkpointing | None = None,
    progress: Progress | None = None,
    command: str = '',
) -> Run:
    """Trains one model on all examples, as a run of its own; arguments as of `train_ensemble`.

    Args:
        task: see there.
        dataset: see there.
        output_dir: see there.
        targets: see there.
        recipe: see there.
        expected_subset: for how many examples the recipe's epochs are counted; all by default.
        executor: see there.
        seed: see there; the model is another than any member of that seed.
        keep_params: see there.
        checkpointing: see there.
        progress: see there.
        command: see there.
    """
    recipe = recipe or Recipe()
    executor = executor or Automatic()
    use_cores(_devices(executor))
    key = jax.random.split(jax.random.key(seed), 4)[3]
    problem = tasks.bind(
        task, dataset, targets, executor=executor if isinstance(executor, Executor) else None
    )
    masks = np.ones((1, dataset.num_examples), bool)
    run = _train(
        problem,
        dataset,
        targets,
        masks,
        program=_program(problem, recipe, masks, expected_subset or dataset.num_examples),
        configuration={'full_data': True, 'recipe': dataclasses.asdict(recipe)},
        output_dir=Path(output_dir),
        executor=executor,
        seed=seed,
        key=key,
        keep_params=keep_params,
        stopping=None,
        checkpointing=checkpointing,
        progress=progress or Quiet(),
        command=command,
    )
    run.remember(task, dataset)
    return run


def use_cores(count: int | None = None) -> None:
    """Makes jax see so many CPU devices, by default one a core, so that members train side by side.

    `train_ensemble` calls it, but jax must not have computed anything before: else the devices
    stay what they are, and a warning says so. Nothing changes where there is a GPU or TPU.
    """
    # Linux tells which cores this process may use; elsewhere it is all of them.
    allowed = getattr(os, 'sched_getaffinity', None)
    wanted = count or (len(allowed(0)) if allowed else os.cpu_count() or 1)
    try:
        jax.config.update('jax_num_cpu_devices', wanted)
    except RuntimeError:
        if count is None and wanted > 1 and jax.device_count() == 1 and _on_cpu():
            _log.warning(
                'jax was in use before with one CPU device, so that members use one of %d cores; '
                'call influence_jax.use_cores() first in the program',
                wanted,
            )


def _on_cpu() -> bool:
    return jax.devices()[0].platform == 'cpu'


def _devices(executor: Executor | Automatic) -> int | None:
    """How many devices an executor takes; None for all."""
    return executor.devices if isinstance(executor, Automatic) else executor.shape.devices


def _check(
    inclusion_prob: float,
    repeats: int,
    members: int,
    seed: int,
    design: Design,
    until_standard_error: float | None,
) -> None:
    if not 0 < inclusion_prob < 1:
        raise ValueError(f'{inclusion_prob=} must be between 0 and 1, such as 0.5')
    if members < 1:
        raise ValueError(f'{members=} must be at least 1')
    if repeats < 1 or members % repeats:
        raise ValueError(
            f'{members=} must be a multiple of {repeats=}: members counts trained models, of '
            f'which so many share a subset'
        )
    if not 0 <= seed < 2**32:  # jax would drop the bits above
        raise ValueError(f'{seed=} must be in 0 .. {2**32 - 1}')
    if until_standard_error is not None and design is Design.BALANCED:
        raise ValueError(
            'the balanced design puts every example into a fixed share of all members, so it '
            'cannot stop early: use independent or exact_size with until_standard_error'
        )


def _refuse_growth(design: Design, output_dir: Path, members: int) -> None:
    """Refuses a design whose masks change with the number of members, where a run is there."""
    if design.can_grow:
        return
    try:
        there = store.read_manifest(output_dir).members
    except store.RunError:
        return
    if there != members:
        raise ValueError(
            f'{output_dir} was begun with {there} members, and under the balanced design, which '
            f'puts every example into a fixed share of them, their subsets depend on that number: '
            f'continue it with members={there}, or choose a new output_dir'
        )


def _program(
    problem: Problem, recipe: Recipe, masks: Bool[np.ndarray, 'M N'], expected: float
) -> Program:
    smallest = int(masks.sum(axis=1).min())
    if smallest < recipe.batch_size:
        raise ValueError(
            f'the smallest subset holds {smallest} examples, fewer than batch_size='
            f'{recipe.batch_size}; use a smaller batch, more examples or a larger inclusion_prob'
        )
    steps = recipe.steps(expected)
    return Program(
        task=problem.task,
        optimizer=recipe.optimizer(steps),
        steps=steps,
        batch_size=recipe.batch_size,
        measure_batch=problem.measure_batch,
        smallest_subset=smallest,
    )


def _train(
    problem: Problem,
    dataset: Dataset,
    targets: Dataset | None,
    masks: Bool[np.ndarray, 'M N'],
    *,
    program: Program,
    configuration: Mapping[str, Any],
    output_dir: Path,
    executor: Executor | Automatic,
    seed: int,
    key: PRNGKey,
    keep_params: bool,
    stopping: SequentialStopping | None,
    checkpointing: Checkpointing | None,
    progress: Progress,
    command: str,
) -> Run:
    check_task(program, examples=problem.examples, targets=problem.targets, base=problem.base)
    measured = dataset if targets is None else targets
    chosen = _executor(executor, output_dir, program, problem, members=len(masks))
    chosen.shape.mesh()  # refuses more devices than there are, before anything is written
    manifest = store.Manifest(
        configuration={**configuration, **problem.description},
        seeds={'seed': seed},
        dataset=store.DatasetIdentity(dataset.name, dataset.fingerprint),
        example_ids=dataset.ids,
        target_ids=measured.ids,
        measurements=problem.measurements,
        members=len(masks),
        git_commit=store.git_commit(),
        command=command,
        executor=chosen.describe(),
        task=problem.recreate,
    )
    with _opened(output_dir, manifest, masks) as stored:
        if isinstance(stored, store.Run) and problem.shown is not None:
            stored.write_shown(problem.shown)
        if keep_params:
            _refuse_lost_params(stored)
        if len(stored.missing):
            _train_missing(
                stored,
                problem,
                program,
                chosen,
                key=key,
                keep_params=keep_params,
                stopping=stopping,
                checkpointing=checkpointing,
                progress=progress,
            )
        stored.require_in_place()
        if not len(stored.complete):
            who = f'all {len(masks)} members' if len(masks) > 1 else 'the only member'
            raise ValueError(
                f'{who} of {stored.directory} diverged (losses are not finite); lower '
                f'learning_rate and choose a new output_dir'
            )
    return Run.open(output_dir)


def _executor(
    executor: Executor | Automatic,
    output_dir: Path,
    program: Program,
    problem: Problem,
    *,
    members: int,
) -> Executor:
    """The one that is given, or that of the run that is there, or one that follows from shapes."""
    if isinstance(executor, Executor):
        return executor
    return executor.choose(
        program,
        members=members,
        examples=problem.examples,
        targets=problem.targets,
        base=problem.base,
        recorded=_recorded_width(output_dir),
    )


def _recorded_width(output_dir: Path) -> int | None:
    """The width of `vmap` of the run that is there: results then stay what they were."""
    try:
        manifest = store.read_manifest(output_dir)
    except store.NotARun:
        return None
    width = (manifest.executor or {}).get('vmapped')
    return width if isinstance(width, int) and width > 0 else None


def _train_missing(
    stored: Stored,
    problem: Problem,
    program: Program,
    executor: Executor,
    *,
    key: PRNGKey,
    keep_params: bool,
    stopping: SequentialStopping | None,
    checkpointing: Checkpointing | None,
    progress: Progress,
) -> None:
    check, enough = _check_precision(stored, stopping)
    if enough:
        return
    if not is_primary():
        progress = Quiet()
    if problem.refine is not None:
        program = problem.refine(program, masks=stored.masks, key=key, executor=executor)
    checkpointer = _checkpointer(stored, checkpointing)
    total = len(stored.masks)
    progress.start(total=total, done=total - len(stored.missing))
    try:
        progress.log(f'training on {executor}')
        if check:
            progress.set_total(check.more, f'standard error {check}')
        for trained in training.train(
            program,
            key=key,
            masks=stored.masks,
            members=stored.missing,
            examples=problem.examples,
            targets=problem.targets,
            executor=executor,
            base=problem.base,
            keep_params=keep_params or bool(problem.extra or problem.texts),
            checkpointer=checkpointer,
        ):
            stored.require_in_place()
            if keep_params:  # first, so that a member on record has its parameters
                from influence_jax.training import checkpoint  # slow to import

                directory = stored.directory / store.PARAMS
                checkpoint.save_members(directory, trained.members, trained.result.params)
            more = problem.extra(trained) if problem.extra else {}
            if problem.texts is not None:
                for name, of_targets in problem.texts(trained).items():
                    stored.write_texts(name, of_targets)
            stored.write(trained.members, {**trained.result.measurements, **more})
            progress.advance(len(trained.members))
            del trained  # its parameters make room for those of the next
            check, enough = _check_precision(stored, stopping)
            if check:
                progress.set_total(check.more, f'standard error {check}')
            if enough:
                if checkpointer:  # nobody goes on from that of these members
                    checkpointer.clear()
                break
    finally:
        progress.close()


def _check_precision(stored: Stored, stopping: SequentialStopping | None) -> tuple[Any, bool]:
    """What is found when it is time to check, and whether members are enough, in all processes."""
    if stopping is None:
        return None, False
    check = None
    if isinstance(stored, store.Run) and stopping.is_due(len(stored.complete)):
        losses = stored.measurement('loss')
        check = stopping.check(stored.masks, losses, missing=len(stored.missing))
    enough = check is not None and check.enough
    return check, bool(from_primary(np.array(enough)))


def _checkpointer(stored: Stored, checkpointing: Checkpointing | None) -> Any:
    if checkpointing is None:
        return None
    from influence_jax.training.checkpoint import Checkpointer  # orbax is slow to import

    return Checkpointer(
        stored.directory / 'in_training',
        every=checkpointing.steps,
        least_minutes=checkpointing.minutes,
        configuration=stored.manifest.configuration,
    )


def _refuse_lost_params(stored: Stored) -> None:
    from influence_jax.training import checkpoint  # slow to import, seldom needed

    kept = checkpoint.kept_members(stored.directory / store.PARAMS)
    lost = np.setdiff1d(stored.complete, kept)
    if len(lost):
        raise ValueError(
            f'{len(lost)} members of {stored.directory} were trained without keeping their '
            f'parameters; leave out keep_params or choose a new output_dir'
        )


@contextlib.contextmanager
def _opened(
    directory: Path, manifest: store.Manifest, masks: Bool[np.ndarray, 'M N']
) -> Iterator[Stored]:
    """As `store.create_or_resume`, by the primary process; the others only read along."""
    opened: store.Run | None = None
    failed: Exception | None = None
    if is_primary():
        try:
            opened = store.create_or_resume(directory, manifest, masks)
        except (ValueError, store.RunError) as error:
            failed = error
    # The manifest too: a run that is continued keeps its own.
    text = opened.manifest.to_json().encode() if opened else b''
    length = int(from_primary(np.array(len(text), np.int32)))
    if failed:
        raise failed
    if not length:
        raise ValueError(f'process 0 could not open {directory}, and reports why')
    content = np.zeros(length + len(masks), np.uint8)
    if opened:
        status = opened.member_status.astype(np.uint8)
        content = np.concatenate([np.frombuffer(text, np.uint8), status])
    content = from_primary(content)
    if opened is None:
        manifest = store.Manifest.from_json(content[:length].tobytes())
        yield store.ReadOnlyRun(directory, manifest, masks, content[length:].astype(np.int8))
        return
    with opened:
        yield opened
