"""The image experiments' story: subsets -> members -> measurements -> influence -> report."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags as absl_flags

from experiments import flags, image_report, launch
from experiments.growth import Growth
from experiments.progress import Progress
from experiments.settings import (
    AnalysisSettings,
    DataSettings,
    EnsembleSettings,
    MachineSettings,
    NetworkSettings,
)
from influence_jax import data, estimators, store, subsets, training
from influence_jax.models import ImageClassification
from influence_jax.models.image_classification import ImageBatch

_MEASURE_BATCH = 256
_PARAMS = 'params'

absl_flags.disclaim_key_flags()  # they are the launch's, see experiments.flags


@dataclasses.dataclass(frozen=True)
class ImageExperiment:
    """All settings of a launch."""

    data: DataSettings
    ensemble: EnsembleSettings
    network: NetworkSettings
    recipe: training.Recipe
    machine: MachineSettings
    analysis: AnalysisSettings = dataclasses.field(default_factory=AnalysisSettings)

    @property
    def members(self) -> int:
        """M: how many members the run has room for."""
        return self.analysis.max_members if self.analysis.grows else self.ensemble.members

    def growth(self) -> Growth | None:
        """When to stop training before all members are there; None where not to."""
        if not self.analysis.grows:
            return None
        key = jax.random.key(self.ensemble.seed)
        return Growth(self.analysis, self.ensemble.design, key=key)

    def configuration(self) -> dict[str, object]:
        """What determines the results, as the run's manifest keeps it."""
        ensemble = dataclasses.asdict(self.ensemble)
        del ensemble['seed'], ensemble['members']  # the manifest has them in their own places
        return {
            'ensemble': ensemble | {'design': self.ensemble.design.value},
            'network': dataclasses.asdict(self.network),
            'recipe': dataclasses.asdict(self.recipe),
        }


def define_flags(*settings: object) -> None:
    """Defines the flags of an image experiment with these defaults."""
    for concern in settings:
        flags.define(concern)


def run_from_flags() -> None:
    """Runs the experiment that the command line asks for."""
    run(
        ImageExperiment(
            flags.read(DataSettings),
            flags.read(EnsembleSettings),
            flags.read(NetworkSettings),
            flags.read(training.Recipe),
            flags.read(MachineSettings),
            flags.read(AnalysisSettings),
        )
    )


def run(experiment: ImageExperiment) -> Path:
    """Trains what is missing of the ensemble, writes its report and returns the page's path."""
    launch.use_cpu_cores_as_devices(experiment.machine.streams)
    experiment.machine.execution().mesh()  # refuses more streams than devices, before all else
    growth = experiment.growth()
    seeds = jax.random.split(jax.random.key(experiment.ensemble.seed), 3)
    dataset = _dataset(experiment.data, key=seeds[0])
    masks = subsets.draw(
        experiment.ensemble.design,
        key=seeds[1],
        members=experiment.members,
        examples=dataset.num_examples,
        keep=experiment.ensemble.keep,
    )
    estimators.check_both_sides(masks)
    task, program = _program(experiment, dataset, masks)
    manifest = store.Manifest(
        configuration=experiment.configuration(),
        seeds={'seed': experiment.ensemble.seed},
        dataset=store.DatasetIdentity(dataset.name, dataset.fingerprint),
        example_ids=dataset.ids,
        target_ids=dataset.ids,
        measurements=task.measurements,
        members=len(masks),
        git_commit=store.git_commit(),
        command=launch.command(),
    )
    with store.create_or_resume(experiment.machine.output_dir, manifest, masks) as directory:
        _train_missing(directory, program, dataset, experiment.machine, growth, key=seeds[2])
        if not len(directory.complete):
            raise ValueError(
                f'all {len(masks)} members diverged (their losses are not finite); '
                f'lower --learning_rate and choose a new --output_dir'
            )
        return image_report.write(
            directory, dataset, experiment.analysis, growth.check(directory) if growth else None
        )


def _dataset(settings: DataSettings, *, key: jax.Array) -> data.ImageDataset:
    folder = None if settings.data_dir is None else Path(settings.data_dir)
    dataset = data.load(settings.dataset, data_dir=folder)
    if not settings.num_examples:
        return dataset
    if settings.num_examples > dataset.num_examples:
        raise ValueError(
            f'--num_examples={settings.num_examples}, but {settings.dataset} has only '
            f'{dataset.num_examples} images here; ask for at most that many'
        )
    chosen = jax.random.permutation(key, dataset.num_examples)[: settings.num_examples]
    return dataset.take(np.sort(chosen))


def _program(
    experiment: ImageExperiment, dataset: data.ImageDataset, masks: np.ndarray
) -> tuple[ImageClassification, training.Program]:
    smallest = int(masks.sum(axis=1).min())
    batch_size = experiment.recipe.batch_size
    if smallest < batch_size:
        raise ValueError(
            f'the smallest subset holds {smallest} images, fewer than --batch_size={batch_size}; '
            f'use a smaller batch, more images or a larger --keep'
        )
    task = ImageClassification(
        experiment.network.config(dataset.num_classes),
        channels=dataset.images.shape[-1],
        augment=experiment.network.augment,
    )
    steps = experiment.recipe.steps(experiment.ensemble.keep * dataset.num_examples)
    return task, training.Program(
        task=task,
        optimizer=experiment.recipe.optimizer(steps),
        steps=steps,
        batch_size=batch_size,
        measure_batch=_MEASURE_BATCH,
        smallest_subset=smallest,
    )


def _train_missing(
    directory: store.Run,
    program: training.Program,
    dataset: data.ImageDataset,
    machine: MachineSettings,
    growth: Growth | None,
    *,
    key: jax.Array,
) -> None:
    """Trains members in order: all that are missing, or until the growth has them be enough."""
    missing = directory.missing
    if machine.keep_params:
        _refuse_lost_params(directory)
    seen = growth.look(directory) if growth else None
    if not len(missing) or (seen and seen.enough):
        return
    images = ImageBatch(jnp.asarray(dataset.images), jnp.asarray(dataset.labels))
    with Progress(total=len(directory.masks), done=len(directory.masks) - len(missing)) as progress:
        execution = _execution(directory, program, machine, images)
        progress.say(_described(execution))
        if seen:
            progress.aim(seen.more, f'standard error {seen}')
        for trained in training.train(
            program,
            key=key,
            masks=directory.masks,
            members=missing,
            examples=images,
            targets=images,
            execution=execution,
            keep_params=machine.keep_params,
        ):
            if machine.keep_params:  # first, so that a member on record has its parameters
                from influence_jax.training import checkpoint

                checkpoint.save_members(
                    directory.directory / _PARAMS, trained.members, trained.result.params
                )
            directory.write(trained.members, trained.result.measurements)
            progress.advance(len(trained.members))
            if growth and (seen := growth.look(directory)):
                progress.aim(seen.more, f'standard error {seen}')
                if seen.enough:
                    break


def _refuse_lost_params(directory: store.Run) -> None:
    from influence_jax.training import checkpoint  # slow to import, seldom needed

    lost = np.setdiff1d(directory.complete, checkpoint.kept_members(directory.directory / _PARAMS))
    if len(lost):
        raise ValueError(
            f'{len(lost)} members of {directory.directory} were trained without keeping their '
            f'parameters; leave out --keep_params or choose a new --output_dir'
        )


def _execution(
    directory: store.Run,
    program: training.Program,
    machine: MachineSettings,
    images: ImageBatch,
) -> training.Execution:
    execution = machine.execution()
    vmapped = machine.vmap or directory.notes.get('vmapped')
    if vmapped is None:
        vmapped = training.choose(
            program,
            members=len(directory.missing),
            streams=execution.streams,
            examples=images,
            targets=images,
        ).vmapped
    directory.note('vmapped', vmapped)  # a continued run goes on in the same way
    # A few members in turn hide the cost of a call; more would only delay what is recorded.
    return dataclasses.replace(execution, vmapped=vmapped, in_turn=4 if vmapped == 1 else 1)


def _described(execution: training.Execution) -> str:
    at_once = f'{execution.vmapped} members at a time' if execution.vmapped > 1 else 'one by one'
    device = jax.devices()[0].device_kind
    return f'training on {execution.streams} x {device}, {at_once} on each'
