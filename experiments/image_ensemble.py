"""The image experiments' story: subsets -> members -> measurements -> influence -> report."""

import dataclasses
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags as absl_flags

from experiments import flags, image_data, image_report, launch, members
from experiments.settings import (
    AnalysisSettings,
    DataSettings,
    EnsembleSettings,
    MachineSettings,
    NetworkSettings,
    PlantingSettings,
)
from influence_jax import data, estimators, store, subsets, training
from influence_jax.analysis.convergence import SequentialStopping
from influence_jax.models import ImageClassification
from influence_jax.models.image_classification import ImageBatch

_MEASURE_BATCH = 256

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
    planting: PlantingSettings = dataclasses.field(default_factory=PlantingSettings)

    @property
    def members(self) -> int:
        """M: how many members the run has room for."""
        return self.analysis.max_members if self.analysis.grows else self.ensemble.members

    def growth(self) -> SequentialStopping | None:
        """When to stop training before all members are there; None where not to."""
        key = jax.random.key(self.ensemble.seed)
        return self.analysis.stopping(self.ensemble.design, key=key)

    def configuration(self) -> dict[str, object]:
        """What determines the results, as the run's manifest keeps it."""
        ensemble = dataclasses.asdict(self.ensemble)
        del ensemble['seed'], ensemble['members']  # the manifest has them in their own places
        configuration: dict[str, object] = {
            'ensemble': ensemble | {'design': self.ensemble.design.value},
            'network': dataclasses.asdict(self.network),
            'recipe': dataclasses.asdict(self.recipe),
        }
        if self.planting.duplicated:  # else as before images could be planted: old runs go on
            configuration['planting'] = self.planting.configuration()
        return configuration


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
            flags.read(PlantingSettings),
        )
    )


def run(experiment: ImageExperiment) -> Path:
    """Trains what is missing of the ensemble, writes its report and returns the page's path."""
    launch.use_cpu_cores_as_devices(experiment.machine.streams)
    experiment.machine.execution().mesh()  # refuses more streams than devices, before all else
    growth = experiment.growth()
    seeds = jax.random.split(jax.random.key(experiment.ensemble.seed), 3)
    images = image_data.prepare(
        experiment.data, experiment.planting, key=seeds[0], seed=experiment.ensemble.seed
    )
    dataset = images.dataset
    for note in dataset.notes:
        print(note, file=sys.stderr)
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
        examples = ImageBatch(jnp.asarray(dataset.images), jnp.asarray(dataset.labels))
        members.train_missing(
            directory,
            program,
            experiment.machine,
            key=seeds[2],
            examples=examples,
            targets=examples,
            growth=growth,
        )
        return image_report.write(
            directory, images, experiment.analysis, members.check_precision(directory, growth)
        )


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
