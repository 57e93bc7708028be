"""The image experiments' story: images -> members -> influence -> report."""

import dataclasses
from pathlib import Path

import jax

from experiments import image_data, launch
from experiments.settings import (
    AnalysisSettings,
    ChipSettings,
    DataSettings,
    EnsembleSettings,
    LabelSettings,
    MachineSettings,
    NetworkSettings,
    PlantingSettings,
)
from influence_jax import train_ensemble
from influence_jax.data import Dataset
from influence_jax.tasks import Classification
from influence_jax.training import Recipe


@dataclasses.dataclass(frozen=True)
class ImageExperiment:
    """All settings of a launch."""

    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    ensemble: EnsembleSettings = dataclasses.field(default_factory=EnsembleSettings)
    network: NetworkSettings = dataclasses.field(default_factory=NetworkSettings)
    recipe: Recipe = dataclasses.field(default_factory=lambda: Recipe(compute_dtype=None))
    machine: MachineSettings = dataclasses.field(default_factory=MachineSettings)
    analysis: AnalysisSettings = dataclasses.field(default_factory=AnalysisSettings)
    planting: PlantingSettings = dataclasses.field(default_factory=PlantingSettings)
    labels: LabelSettings = dataclasses.field(default_factory=LabelSettings)
    chip: ChipSettings = dataclasses.field(default_factory=ChipSettings)


def run(experiment: ImageExperiment) -> Path | None:
    """Trains what is missing of the ensemble, writes its report and returns the page's path.

    None where it only plans.
    """
    if experiment.chip.plan:
        _plan(experiment)
        return None
    launch.use_devices(experiment.machine.streams)
    dataset, task = prepare(experiment)
    launch.show_notes(dataset.notes)
    flags = experiment.ensemble, experiment.recipe, experiment.machine, experiment.analysis
    run = train_ensemble(task, dataset, **launch.arguments(*flags))
    return launch.report_of(run, dataset, experiment.analysis)


def prepare(experiment: ImageExperiment) -> tuple[Dataset, Classification]:
    """Makes the dataset, and the task that members train."""
    seed = experiment.ensemble.of_data
    dataset = image_data.prepare(
        experiment.data,
        experiment.planting,
        key=jax.random.split(jax.random.key(seed), 3)[0],
        seed=seed,
    )
    dataset = experiment.labels.plant(dataset, seed=seed)
    return dataset, experiment.network.task(dataset)


def _plan(experiment: ImageExperiment) -> None:
    from experiments import plan  # imports what training images has no use for

    topology = plan.prepared(experiment.chip.topology)
    flags = experiment.recipe, experiment.ensemble, experiment.analysis
    dataset, task = prepare(experiment)
    members = plan.Members.of(task, dataset, *flags)
    plan.show_members(topology, members, width=experiment.machine.vmap or None)
