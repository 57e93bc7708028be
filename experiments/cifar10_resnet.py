"""The paper's image experiment (arXiv 2506.20481): 1,000 ResNets on halves of 20,000 images.

    python -m experiments.cifar10_resnet --data_dir=DIR [--num_examples=N] [--members=M]

Smaller sizes are asked for by the same flags as those of experiments.image_resnet.
"""

from experiments import image_ensemble, launch
from experiments.image_ensemble import ImageExperiment
from experiments.settings import DataSettings, EnsembleSettings, MachineSettings, NetworkSettings
from influence_jax.training import Recipe

PAPER = ImageExperiment(
    data=DataSettings(dataset='cifar10', num_examples=20_000),
    ensemble=EnsembleSettings(members=1000),
    network=NetworkSettings(width=32, stages=3, patch=2),
    recipe=Recipe(epochs=20.0, compute_dtype=None),
    machine=MachineSettings(output_dir='runs/cifar10_resnet'),
)

if __name__ == '__main__':
    launch.main(image_ensemble.run, PAPER)
