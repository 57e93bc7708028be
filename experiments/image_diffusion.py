"""Influence distributions of images in denoising diffusion: an ensemble and its report.

    python -m experiments.image_diffusion --output_dir=DIR

Images are those of experiments.image_resnet; influence is on the mean squared error of the noise.
"""

import dataclasses
from pathlib import Path

import jax

from experiments import image_data, launch
from experiments.settings import (
    AnalysisSettings,
    DataSettings,
    EnsembleSettings,
    MachineSettings,
    PlantingSettings,
)
from influence_jax import train_ensemble
from influence_jax.data import Dataset
from influence_jax.models import DenoiserConfig
from influence_jax.tasks import Diffusion
from influence_jax.training import Recipe


@dataclasses.dataclass(frozen=True)
class DenoiserSettings:
    """Which denoising network.

    Attributes:
        width: channels at full resolution; a multiple of 8.
        draws: times and noises by which each image is measured.
    """

    width: int = 16
    draws: int = 16

    def task(self, dataset: Dataset) -> Diffusion:
        """The task of denoising these images."""
        config = DenoiserConfig(dataset.array('image').shape[-1], self.width)
        return Diffusion(config, draws=self.draws)


@dataclasses.dataclass(frozen=True)
class DiffusionExperiment:
    """All settings of the launch."""

    data: DataSettings = dataclasses.field(default_factory=DataSettings)
    ensemble: EnsembleSettings = dataclasses.field(default_factory=EnsembleSettings)
    network: DenoiserSettings = dataclasses.field(default_factory=DenoiserSettings)
    recipe: Recipe = dataclasses.field(default_factory=lambda: Recipe(epochs=40))
    machine: MachineSettings = dataclasses.field(
        default_factory=lambda: MachineSettings(output_dir='runs/image_diffusion')
    )
    analysis: AnalysisSettings = dataclasses.field(default_factory=AnalysisSettings)
    planting: PlantingSettings = dataclasses.field(default_factory=PlantingSettings)


def run(experiment: DiffusionExperiment) -> Path:
    """Trains what is missing of the ensemble, writes its report and returns the page's path."""
    launch.use_devices(experiment.machine.streams)
    dataset, task = prepare(experiment)
    launch.show_notes(dataset.notes)
    flags = experiment.ensemble, experiment.recipe, experiment.machine, experiment.analysis
    run = train_ensemble(task, dataset, **launch.arguments(*flags))
    return launch.report_of(run, dataset, experiment.analysis)


def prepare(experiment: DiffusionExperiment) -> tuple[Dataset, Diffusion]:
    """Makes the dataset, and the task that members train."""
    seed = experiment.ensemble.of_data
    dataset = image_data.prepare(
        experiment.data,
        experiment.planting,
        key=jax.random.split(jax.random.key(seed), 3)[0],
        seed=seed,
    )
    return dataset, experiment.network.task(dataset)


if __name__ == '__main__':
    launch.main(run, DiffusionExperiment())
