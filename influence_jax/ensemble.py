"""The story of a run: draw subsets, train what is missing, stop when it is precise enough."""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jaxtyping import Bool, Float

from influence_jax import compilation_cache, store, subsets, tasks, training
from influence_jax.analysis.convergence import SequentialStopping, least_half
from influence_jax.data.dataset import Dataset
from influence_jax.estimators import EstimatorLike, adjusted, as_estimator, check_both_sides
from influence_jax.kernels import bfloat16_convolution
from influence_jax.progress import Progress, Quiet
from influence_jax.run import Run
from influence_jax.subsets import ByGroup, Design
from influence_jax.tasks.base import Problem
from influence_jax.threads import num_cores
from influence_jax.training import Automatic, EnsembleKeys, Executor, Program, Recipe
from influence_jax.training.compute_dtype import ComputeDtype, multiplies_bfloat16
from influence_jax.training.contract import check_task
from influence_jax.training.multihost import from_primary, is_primary
from influence_jax.types import PRNGKey, UnitTask

PRECISION = 'precision'
"""Under which note a run keeps how precise it was found."""

Stored = store.Run | store.ReadOnlyRun

_CHANNELS = 32, 32  # of a convolution, as most have
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


@compilation_cache.enabled()
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
    every design but the balanced one the first members stay what they were. Programs are compiled
    once and kept for the next time (`influence_jax.compilation_cache`).

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
        estimator: whose standard error that is.
        checkpointing: keep members while they train.
        progress: is called as members are done, such as a `TerminalProgress()`.
        command: how the run was started, for whoever wants to repeat it.

    Returns:
        The run, opened for reading. Of several processes the primary one alone is given it; the
        others get a `store.ReadOnlyRun`, which knows no more than which members there are.

    Raises:
        ValueError: an argument, the task or the dataset does not fit; nothing was trained.
        store.RunError: the directory holds another run, is written by another process, or the
            disk fails.
    """
    recipe, executor = recipe or Recipe(), executor or Automatic()
    output_dir = Path(output_dir)
    grouped = isinstance(design, ByGroup)
    kind = design.design if isinstance(design, ByGroup) else design
    _check(inclusion_prob, repeats, members, seed)
    if grouped and dataset.groups is None:
        raise ValueError(f'a design by group needs groups, but dataset {dataset.name!r} has none')
    stopping = None
    if until_standard_error is not None:
        stopping = _stopping(until_standard_error, estimator, kind, members, seed)
    _refuse_growth(kind, output_dir, members)
    use_cores(_devices(executor))
    recipe = _with_dtype(recipe, output_dir)
    problem = tasks.bind(task, dataset, targets, executor=_given(executor))
    keys = EnsembleKeys.of(seed)
    masks = subsets.draw(
        kind,
        key=keys.masks,
        members=members,
        examples=dataset.num_examples,
        inclusion_prob=inclusion_prob,
        groups=dataset.groups if grouped else None,
        repeats=repeats,
    )
    check_both_sides(masks)
    job = _Training(
        task,
        problem,
        recipe.program(problem.task, masks, inclusion_prob, measure_batch=problem.measure_batch),
        executor,
        keys.members,
        keep_params=keep_params,
        stopping=stopping,
        checkpointing=checkpointing,
        progress=progress or Quiet(),
    )
    configuration = {
        'inclusion_prob': inclusion_prob,
        'design': kind.value,
        'by_group': grouped,
        'repeats': repeats,
        'recipe': recipe.described(),
    }
    manifest = _manifest(job, dataset, targets, masks, configuration, seed, command)
    return _run(job, manifest, masks, output_dir, dataset)


@compilation_cache.enabled()
def train_full_data_model(
    task: Any,
    dataset: Dataset,
    *,
    output_dir: str | Path,
    targets: Dataset | None = None,
    recipe: Recipe | None = None,
    executor: Executor | Automatic | None = None,
    seed: int = 0,
    keep_params: bool = False,
    checkpointing: Checkpointing | None = None,
    progress: Progress | None = None,
    command: str = '',
) -> Run:
    """Trains one model on all examples, as a run of one member.

    Arguments, result and errors are those of `train_ensemble`. The model is another than any
    member of an ensemble of that seed.
    """
    recipe, executor = recipe or Recipe(), executor or Automatic()
    use_cores(_devices(executor))
    recipe = _with_dtype(recipe, Path(output_dir))
    key = EnsembleKeys.of(seed).full_data_model
    problem = tasks.bind(task, dataset, targets, executor=_given(executor))
    masks = np.ones((1, dataset.num_examples), bool)
    job = _Training(
        task,
        problem,
        recipe.program(problem.task, masks, 1.0, measure_batch=problem.measure_batch),
        executor,
        key,
        keep_params=keep_params,
        checkpointing=checkpointing,
        progress=progress or Quiet(),
    )
    configuration = {'full_data': True, 'recipe': recipe.described()}
    manifest = _manifest(job, dataset, targets, masks, configuration, seed, command)
    return _run(job, manifest, masks, Path(output_dir), dataset)


@compilation_cache.enabled()
def measure_subsets(
    task: Any,
    dataset: Dataset,
    masks: Bool[np.ndarray, 'M N'],
    *,
    recipe: Recipe | None = None,
    executor: Executor | Automatic | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Float[np.ndarray, 'M T']]:
    """Trains a member on each mask, keeps nothing of it, and returns what is measured of it.

    For retraining without chosen examples: the masks are the caller's own.

    Args:
        task: as of `train_ensemble`.
        dataset: examples, which are the targets, too.
        masks: `[M N]`; members that share a mask differ in seed.
        recipe: as of `train_ensemble`; steps are those of the mean subset.
        executor: likewise.
        seed: of initial parameters, batch order and augmentation.
        progress: likewise.

    Returns:
        Each measurement by name, NaN or infinite where a member has diverged.

    Raises:
        ValueError: as `train_ensemble`.
    """
    recipe, executor = recipe or Recipe(), executor or Automatic()
    use_cores(_devices(executor))
    recipe = _with_dtype(recipe)
    problem = tasks.bind(task, dataset, executor=_given(executor))
    program = recipe.program(
        problem.task, masks, float(masks.mean()), measure_batch=problem.measure_batch
    )
    if isinstance(executor, Automatic):
        executor = executor.choose(
            program,
            members=len(masks),
            examples=problem.examples,
            targets=problem.targets,
            base=problem.base,
        )
    key, progress = jax.random.key(seed), progress or Quiet()
    if problem.refine is not None:
        program = problem.refine(program, masks=masks, key=key, executor=executor)
    found: list[Mapping[str, Any]] = []
    progress.start(total=len(masks), done=0)
    try:
        for trained in training.train(
            program,
            key=key,
            masks=masks,
            members=range(len(masks)),
            examples=problem.examples,
            targets=problem.targets,
            executor=executor,
            base=problem.base,
        ):
            found.append(trained.result.measurements)
            progress.advance(len(trained.members))
    finally:
        progress.close()
    return {
        name: np.concatenate([np.asarray(part[name], np.float32) for part in found])
        for name in problem.measurements
    }


def use_cores(count: int | None = None) -> None:
    """Makes jax see so many CPU devices, by default one a core, so that members train side by side.

    `train_ensemble` calls it, but jax must not have computed anything before: else the devices
    stay what they are, and a warning says so. Nothing changes where there is a GPU or TPU.
    """
    wanted = count or num_cores()
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


def _given(executor: Executor | Automatic) -> Executor | None:
    """The executor, where it does not follow from what is trained."""
    return executor if isinstance(executor, Executor) else None


def _check(inclusion_prob: float, repeats: int, members: int, seed: int) -> None:
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


def _stopping(
    wanted: float, estimator: EstimatorLike, design: Design, members: int, seed: int
) -> SequentialStopping:
    if not design.can_grow:
        raise ValueError(
            'the balanced design puts every example into a fixed share of all members, so it '
            'cannot stop early: use independent or exact_size with until_standard_error'
        )
    estimator = as_estimator(estimator)
    if members < (least := 2 * least_half(estimator)):
        raise ValueError(
            f'{members=} are too few for the estimator {estimator.name} to tell how precise it '
            f'is: allow at least {least}'
        )
    return SequentialStopping(wanted, estimator, key=jax.random.key(seed))


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


@dataclasses.dataclass(frozen=True, eq=False)
class _Training:
    """What members are trained by; the same for all of a run."""

    task: Any
    problem: Problem
    program: Program
    executor: Executor | Automatic
    key: PRNGKey
    keep_params: bool
    checkpointing: Checkpointing | None
    progress: Progress
    stopping: SequentialStopping | None = None


def _manifest(
    job: _Training,
    dataset: Dataset,
    targets: Dataset | None,
    masks: Bool[np.ndarray, 'M N'],
    configuration: Mapping[str, Any],
    seed: int,
    command: str,
) -> store.Manifest:
    problem = job.problem
    measured = dataset if targets is None else targets
    others = {} if targets is None else {'targets': targets.fingerprint}
    return store.Manifest(
        configuration={**configuration, **problem.description, **others},
        seeds={'seed': seed},
        dataset=store.DatasetIdentity(dataset.name, dataset.fingerprint),
        example_ids=dataset.ids,
        target_ids=measured.ids,
        measurements=problem.measurements,
        members=len(masks),
        git_commit=store.git_commit(),
        command=command,
        task=tasks.describe(job.task),
        units=job.task.units if isinstance(job.task, UnitTask) else None,
    )


def _run(
    job: _Training,
    manifest: store.Manifest,
    masks: Bool[np.ndarray, 'M N'],
    output_dir: Path,
    dataset: Dataset,
) -> Run:
    """Creates, continues or extends the run, trains what it lacks, and opens it for reading."""
    problem = job.problem
    check_task(job.program, examples=problem.examples, targets=problem.targets, base=problem.base)
    executor = _executor(job, output_dir, members=len(masks))
    executor.shape.mesh()  # refuses more devices than there are, before anything is written
    manifest = dataclasses.replace(manifest, executor=executor.describe())
    with _opened(output_dir, manifest, masks) as stored:
        if isinstance(stored, store.Run):
            _write_beside(stored, job)
        if job.keep_params:
            _refuse_lost_params(stored)
        if len(stored.missing):
            _train_missing(stored, job, executor)
        _remove_in_training(stored)
        stored.require_in_place()
        if not len(stored.complete):
            who = f'all {len(masks)} members' if len(masks) > 1 else 'the only member'
            raise ValueError(
                f'{who} of {stored.directory} diverged (losses are not finite); lower '
                f'learning_rate and choose a new output_dir'
            )
        _note_precision(stored, job.stopping)
    if not isinstance(stored, store.Run):
        return cast(Run, stored)
    run = Run.open(output_dir)
    run.remember(job.task, dataset)
    return run


def _executor(job: _Training, output_dir: Path, *, members: int) -> Executor:
    """The one that is given, or that of the run that is there, or one that follows from shapes."""
    if isinstance(job.executor, Executor):
        return job.executor
    problem = job.problem
    return job.executor.choose(
        job.program,
        members=members,
        examples=problem.examples,
        targets=problem.targets,
        base=problem.base,
        recorded=_recorded_width(output_dir),
    )


def _with_dtype(recipe: Recipe, output_dir: Path | None = None) -> Recipe:
    """The recipe with a dtype: its own, or that of the run that is there, or the fastest here.

    The first process chooses for all.
    """
    dtype = recipe.compute_dtype
    if dtype is None:
        recorded = None if output_dir is None else _recorded_dtype(output_dir)
        is_narrow = (
            recorded is ComputeDtype.BFLOAT16
            if recorded
            else multiplies_bfloat16()
            or (_on_cpu() and bfloat16_convolution.serves(recipe.batch_size, *_CHANNELS))
        )
        dtype = ComputeDtype.BFLOAT16 if from_primary(np.array(is_narrow)) else ComputeDtype.FLOAT32
    if dtype is ComputeDtype.BFLOAT16 and not multiplies_bfloat16():
        _warn_of_slow(is_asked_for=output_dir is not None and recipe.compute_dtype is not None)
    return dataclasses.replace(recipe, compute_dtype=dtype)


def _recorded_dtype(output_dir: Path) -> ComputeDtype | None:
    """None where there is no run, or one that says something else: it will be refused."""
    try:
        recipe = store.read_manifest(output_dir).configuration.get('recipe')
    except store.RunError:
        return None
    found = recipe.get('compute_dtype', ComputeDtype.FLOAT32) if isinstance(recipe, dict) else None
    return ComputeDtype(found) if found in set(ComputeDtype) else None


def _warn_of_slow(*, is_asked_for: bool) -> None:
    device = jax.devices()[0].device_kind
    if not (_on_cpu() and bfloat16_convolution.is_at_hand()):
        _log.warning(
            'compute_dtype=bfloat16, but %s does not multiply it faster than float32: members '
            'train as slowly as with compute_dtype=float32, or more so',
            device,
        )
    elif is_asked_for:
        _log.warning(
            'compute_dtype=bfloat16 on %s: 3x3 convolutions are faster than in float32 where '
            'batches fill most of their groups of 16 images; all other products are as slow, or '
            'slower',
            device,
        )


def _recorded_width(output_dir: Path) -> int | None:
    """The width of `vmap` of the run that is there: results then stay what they were."""
    try:
        manifest = store.read_manifest(output_dir)
    except store.NotARun:
        return None
    width = (manifest.executor or {}).get('vmapped')
    return width if isinstance(width, int) and width > 0 else None


def _write_beside(stored: store.Run, job: _Training) -> None:
    """Keeps what a report shows of the examples, and what the task is made again of."""
    if job.problem.shown is not None:
        stored.write_shown(job.problem.shown)
    for name, text in tasks.texts_of(job.task).items():
        stored.write_text(name, text)


def _train_missing(stored: Stored, job: _Training, executor: Executor) -> None:
    """Trains members in order and records them, until none is missing or they are enough."""
    check, enough = _check_precision(stored, job.stopping)
    if enough:
        return
    problem, program = job.problem, job.program
    progress = job.progress if is_primary() else Quiet()
    if problem.refine is not None:
        program = problem.refine(program, masks=stored.masks, key=job.key, executor=executor)
    checkpointer = _checkpointer(stored, job.checkpointing)
    total = len(stored.masks)
    progress.start(total=total, done=total - len(stored.missing))
    try:
        progress.log(f'training on {executor}')
        if check:
            progress.set_total(check.more, f'standard error {check}')
        for trained in training.train(
            program,
            key=job.key,
            masks=stored.masks,
            members=stored.missing,
            examples=problem.examples,
            targets=problem.targets,
            executor=executor,
            base=problem.base,
            keep_params=job.keep_params or bool(problem.extra or problem.texts),
            checkpointer=checkpointer,
        ):
            _record(stored, job, trained)
            progress.advance(len(trained.members))
            del trained  # its parameters make room for those of the next
            check, enough = _check_precision(stored, job.stopping)
            if check:
                progress.set_total(check.more, f'standard error {check}')
            if enough:
                if checkpointer:  # nobody goes on from that of these members
                    checkpointer.clear()
                break
    finally:
        progress.close()


def _record(stored: Stored, job: _Training, trained: training.Trained) -> None:
    """Keeps what there is of members, their measurements last: then they count as complete."""
    problem = job.problem
    stored.require_in_place()
    if job.keep_params:
        from influence_jax.training import checkpoint  # slow to import

        directory = stored.directory / store.PARAMS
        checkpoint.save_members(directory, trained.members, trained.result.params)
    more = problem.extra(trained) if problem.extra else {}
    if problem.texts is not None:
        for name, of_targets in problem.texts(trained).items():
            stored.write_texts(name, of_targets)
    stored.write(trained.members, {**trained.result.measurements, **more})


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


def _note_precision(stored: Stored, stopping: SequentialStopping | None) -> None:
    """Keeps how precise the members are, for the report: missing ones may not be needed."""
    if stopping is not None and isinstance(stored, store.Run):
        losses = stored.measurement('loss')
        check = stopping.check(stored.masks, losses, missing=len(stored.missing))
        stored.note(PRECISION, {'text': str(check), 'enough': check.enough})


def _checkpointer(stored: Stored, checkpointing: Checkpointing | None) -> Any:
    if checkpointing is None:
        return None
    from influence_jax.training.checkpoint import Checkpointer  # orbax is slow to import

    return Checkpointer(
        stored.directory / store.IN_TRAINING,
        every=checkpointing.steps,
        least_minutes=checkpointing.minutes,
        configuration=stored.manifest.configuration,
    )


def _remove_in_training(stored: Stored) -> None:
    """What a kill has left after the last member was recorded: nobody goes on from it."""
    left = stored.directory / store.IN_TRAINING
    if is_primary() and left.is_dir():
        from influence_jax.training import checkpoint  # orbax is slow to import

        checkpoint.remove(left)


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
