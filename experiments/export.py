"""What a run has measured, or a report estimated, in the formats that other programs read.

    python -m experiments.export DIR --format=parquet --output=FOLDER
    python -m experiments.export DIR --format=graphml --output=FILE.graphml
    python -m experiments.export DIR --format=csv --output=FILE.csv [--target=ID]

DIR is the directory of a run, whose influence is estimated, or of a report such as that of
experiments.estimate, which is as it was estimated then. Masks and measurements are a run's alone,
but for the tensors that estimate keeps.
"""

import dataclasses
from pathlib import Path

from experiments import flags, launch
from influence_jax import interchange, open_run
from influence_jax.estimators import Estimator
from influence_jax.interchange import Format
from influence_jax.report.results import RESULTS
from influence_jax.text import clean


@dataclasses.dataclass(frozen=True)
class ExportSettings:
    """What is written, and how.

    Attributes:
        format: npz (subsets and correctness in the layout of Feldman and Zhang), parquet (a folder
            with a line a target and a line a significant pair), netcdf (masks, measurements and
            summaries, for xarray), graphml (the significant pairs as a graph) or csv (the
            significant pairs, or with --target all influences on one target).
        output: file, or for parquet folder; an earlier export is replaced, nothing else.
        target: id, or position, of a target whose column is wanted, with --format=csv.
        estimator: of runs; by default as in their reports. A report has the one that it was written
            with.
    """

    format: Format = Format.PARQUET
    output: str = ''
    target: str = ''
    estimator: Estimator | None = None


def run(directory: str, settings: ExportSettings) -> tuple[Path, ...]:
    """Writes what is asked for and returns the paths of the files."""
    if not settings.output:
        raise ValueError('--output is missing: give --output=PATH')
    if not directory:
        raise ValueError('give the directory of a run, or of a report')
    is_report = (Path(directory) / RESULTS).exists()
    written = interchange.export(directory if is_report else open_run(directory), **vars(settings))
    for path in written:
        print(clean(str(path)))
    return written


if __name__ == '__main__':
    flags.define(ExportSettings())
    launch.run(lambda directory='': run(directory, flags.read(ExportSettings)), most_arguments=1)
