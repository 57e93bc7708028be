"""Influence distributions of the rows of a table: an ensemble of small networks and its report.

    python -m experiments.tabular --output_dir=DIR [--dataset=wine]

The tables are scikit-learn's embedded ones. The same command continues a run that was stopped.
"""

import dataclasses
from pathlib import Path

import numpy as np
import sklearn.datasets

from experiments import launch
from experiments.settings import (
    AnalysisSettings,
    EnsembleSettings,
    LabelSettings,
    MachineSettings,
)
from influence_jax import train_ensemble
from influence_jax.data import Dataset
from influence_jax.models import MLPConfig
from influence_jax.tasks import Classification
from influence_jax.training import Recipe

_TABLES = {
    'breast_cancer': sklearn.datasets.load_breast_cancer,
    'digits': sklearn.datasets.load_digits,
    'wine': sklearn.datasets.load_wine,
}


@dataclasses.dataclass(frozen=True)
class TableSettings:
    """Which table, and which network.

    Attributes:
        dataset: breast_cancer (569 rows in 2 classes), digits (1,797 in 10, of 64 pixels) or wine
            (178 in 3).
        width: of the network's hidden layer.
    """

    dataset: str = 'breast_cancer'
    width: int = 64

    def __post_init__(self) -> None:
        if self.dataset not in _TABLES:
            raise ValueError(f'--dataset={self.dataset}: choose one of {", ".join(_TABLES)}')
        if self.width < 1:
            raise ValueError(f'width={self.width} must be at least 1')


@dataclasses.dataclass(frozen=True)
class TabularExperiment:
    """All settings of the launch."""

    table: TableSettings = dataclasses.field(default_factory=TableSettings)
    ensemble: EnsembleSettings = dataclasses.field(default_factory=EnsembleSettings)
    recipe: Recipe = dataclasses.field(
        default_factory=lambda: Recipe(epochs=40, batch_size=32, learning_rate=1e-2)
    )
    machine: MachineSettings = dataclasses.field(
        default_factory=lambda: MachineSettings(output_dir='runs/tabular')
    )
    analysis: AnalysisSettings = dataclasses.field(default_factory=AnalysisSettings)
    labels: LabelSettings = dataclasses.field(default_factory=LabelSettings)


def run(experiment: TabularExperiment) -> Path:
    """Trains what is missing of the ensemble, writes its report and returns the page's path."""
    launch.use_devices(experiment.machine.streams)
    dataset, task = prepare(experiment)
    launch.show_notes(dataset.notes)
    flags = experiment.ensemble, experiment.recipe, experiment.machine, experiment.analysis
    run = train_ensemble(task, dataset, **launch.arguments(*flags))
    return launch.report_of(run, dataset, experiment.analysis)


def prepare(experiment: TabularExperiment) -> tuple[Dataset, Classification]:
    """Makes the dataset, and the task that members train."""
    dataset = table(experiment.table.dataset)
    dataset = experiment.labels.plant(dataset, seed=experiment.ensemble.of_data)
    features = dataset.array('features').shape[1]
    network = MLPConfig(features, dataset.num_classes, (experiment.table.width,))
    return dataset, Classification(network)


def table(name: str) -> Dataset:
    """Returns a table, its columns standardized; those that are constant are zero."""
    found = _TABLES[name]()
    spread = found.data.std(axis=0)
    # Of digits, some pixels are the same in all rows.
    features = (found.data - found.data.mean(axis=0)) / np.where(spread > 0, spread, 1)
    return Dataset(
        {'features': features.astype(np.float32), 'label': found.target.astype(np.int32)},
        ids=[f'{name}-{row}' for row in range(len(features))],
        class_names=map(str, found.target_names),
        columns=map(str, found.feature_names),
        name=name,
        provenance=f'scikit-learn {sklearn.__version__}, sklearn.datasets.load_{name}',
    )


if __name__ == '__main__':
    launch.main(run, TabularExperiment())
