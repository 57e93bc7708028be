"""The image experiments' story: images -> members -> influence -> report."""

import dataclasses
from pathlib import Path

import jax
from absl import flags as absl_flags

from experiments import flags, image_data, launch
from experiments.settings import (
    AnalysisSettings,
    DataSettings,
    EnsembleSettings,
    MachineSettings,
    NetworkSettings,
    PlantingSettings,
)
from influence_jax.training import Recipe

absl_flags.disclaim_key_flags()  # they are the launch's, see experiments.flags


@dataclasses.dataclass(frozen=True)
class ImageExperiment:
    """All settings of a launch."""

    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    ensemble: EnsembleSettings = dataclasses.field(default_factory=EnsembleSettings)
    network: NetworkSettings = dataclasses.field(default_factory=NetworkSettings)
    recipe: Recipe = dataclasses.field(default_factory=Recipe)
    machine: MachineSettings = dataclasses.field(default_factory=MachineSettings)
    analysis: AnalysisSettings = dataclasses.field(default_factory=AnalysisSettings)
    planting: PlantingSettings = dataclasses.field(default_factory=PlantingSettings)


def main(defaults: ImageExperiment) -> None:
    """Runs the launch whose flags have these defaults."""
    flags.define_all(defaults)
    launch.run(lambda: run(flags.read_all(ImageExperiment)))


def run(experiment: ImageExperiment) -> Path:
    """Trains what is missing of the ensemble, writes its report and returns the page's path."""
    launch.use_devices(experiment.machine.streams)
    seed = experiment.ensemble.seed
    dataset = image_data.prepare(
        experiment.data,
        experiment.planting,
        key=jax.random.split(jax.random.key(seed), 3)[0],
        seed=seed,
    )
    launch.show_notes(dataset.notes)
    run = launch.train(
        experiment.network.task(dataset),
        dataset,
        experiment.ensemble,
        experiment.recipe,
        experiment.machine,
        experiment.analysis,
    )
    return launch.report_of(run, experiment.analysis)
