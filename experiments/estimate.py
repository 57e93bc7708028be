"""Influence from anyone's masks and losses: the tables and the report of the image experiments.

    python -m experiments.estimate --masks=FILE.npy --losses=FILE.npy --output_dir=DIR
    python -m experiments.estimate --lira=FOLDER --output_dir=DIR
    python -m experiments.estimate --feldman_zhang=FILE.npz --output_dir=DIR

Row m of both files is member m; no model is needed. Files may be .npy, .npz, .pt, .safetensors,
.csv or .parquet, an array in them named FILE.npz:NAME, and several of them, separated by commas,
shards of the members (influence_jax.interchange). The report is DIR/index.html.
"""

import dataclasses
import sys
from pathlib import Path

from experiments import flags, launch, terminal
from influence_jax import report
from influence_jax.estimators import Estimator, adjusted
from influence_jax.interchange import TensorFiles


@dataclasses.dataclass(frozen=True)
class TensorSettings(TensorFiles):
    """Which tensors, and how influence is estimated from them.

    Attributes:
        estimator: difference of means, the same adjusted for each target's strongest influencers,
            or a linear datamodel, ridge or lasso. All but the first need at least 48 members;
            below, the first is used.
        keep_tensors: keep masks and losses beside the report, from which experiments.explore shows
            whole distributions: M N / 8 + 4 M T bytes, 206 MB for 1,000 members and 50,000
            examples and targets.
        output_dir: directory of the report and its tables; new, empty, or holding a report.
    """

    estimator: Estimator = adjusted
    keep_tensors: bool = True
    output_dir: str = ''

    def check(self) -> None:
        """Refuses settings without the files and the directory that there must be.

        Raises:
          ValueError: naming the first that lacks, or a unit that is no label.
        """
        super().check()
        if not self.output_dir:
            raise ValueError('--output_dir is missing: give --output_dir=DIR')


def run_from_flags() -> None:
    """Estimates what the command line asks for."""
    try:
        run(flags.read(TensorSettings))
    except KeyboardInterrupt:
        sys.exit('stopped; nothing was written')
    except MemoryError as error:
        sys.exit(f'error: out of memory ({error}); give fewer targets at a time')


def run(settings: TensorSettings) -> Path:
    """Reads the tensors, estimates, writes the report and returns the page's path."""
    settings.check()
    report.check_directory(settings.output_dir)  # before minutes are spent
    given = settings.read()
    results = report.gather(
        given,
        estimator=settings.estimator,
        unit=settings.measured_in,
        title=f'Influence distributions: {settings.name}',
        facts={**settings.facts(), **launch.provenance()},
        log=terminal.log,
    )
    tensors = report.KeptTensors.of(given) if settings.keep_tensors else None
    return terminal.save_and_show(results, settings.output_dir, tensors=tensors)


if __name__ == '__main__':
    flags.define(TensorSettings())
    launch.run(run_from_flags)
