"""Influence distributions of images: trains an ensemble of ResNets and writes its report.

    python -m experiments.image_resnet --output_dir=DIR

The same command continues a run that was stopped. The report is DIR/report/index.html.
"""

from experiments import image_ensemble, launch
from experiments.image_ensemble import ImageExperiment

if __name__ == '__main__':
    launch.main(image_ensemble.run, ImageExperiment())
