"""Influence distributions of images: trains an ensemble of ResNets and writes its report.

    python -m experiments.image_resnet --output_dir=DIR

The same command continues a run that was stopped. The report is DIR/report/index.html.
"""

from experiments import image_ensemble, launch
from experiments.settings import (
    AnalysisSettings,
    DataSettings,
    EnsembleSettings,
    MachineSettings,
    NetworkSettings,
    PlantingSettings,
)
from influence_jax.training import Recipe

if __name__ == '__main__':
    image_ensemble.define_flags(
        DataSettings(),
        EnsembleSettings(),
        NetworkSettings(),
        Recipe(),
        MachineSettings(),
        AnalysisSettings(),
        PlantingSettings(),
    )
    launch.run(image_ensemble.run_from_flags)
