"""The paper's image experiment (arXiv 2506.20481): 1,000 ResNets on halves of 20,000 images.

    python -m experiments.cifar10_resnet --data_dir=DIR [--num_examples=N] [--members=M]

Smaller sizes are asked for by the same flags as those of experiments.image_resnet.
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
        DataSettings(dataset='cifar10', num_examples=20_000),
        EnsembleSettings(members=1000),
        NetworkSettings(width=32, stages=3, patch=2),
        Recipe(epochs=20.0),
        MachineSettings(output_dir='runs/cifar10_resnet'),
        AnalysisSettings(),
        PlantingSettings(),
    )
    launch.run(image_ensemble.run_from_flags)
