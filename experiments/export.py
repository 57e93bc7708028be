"""What a run has measured, or a report estimated, in the formats that other programs read.

    python -m experiments.export DIR --format=parquet --output=FOLDER
    python -m experiments.export DIR --format=graphml --output=FILE.graphml
    python -m experiments.export DIR --format=csv --output=FILE.csv [--target=ID]

DIR is the directory of a run, whose influence is estimated, or of a report such as that of
experiments.estimate, which is as it was estimated then. Masks and measurements are a run's alone,
but for the tensors that estimate keeps.
"""

import dataclasses
import enum
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from experiments import flags, launch
from influence_jax import open_run, report
from influence_jax.estimators import BUILT_IN, Estimator
from influence_jax.interchange import exports
from influence_jax.interchange.exports import Entries
from influence_jax.report.results import RESULTS, Results
from influence_jax.report.run import ArrayRun, ReportedRun
from influence_jax.store import Shown
from influence_jax.text import clean


class Format(enum.Enum):
    """Of the file that is written."""

    NPZ = 'npz'
    PARQUET = 'parquet'
    NETCDF = 'netcdf'
    GRAPHML = 'graphml'
    CSV = 'csv'


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

    def check(self) -> None:
        """Refuses settings that say no place, or a target with a format of all targets.

        Raises:
            ValueError: naming the first.
        """
        if not self.output:
            raise ValueError('--output is missing: give --output=PATH')
        if self.target and self.format is not Format.CSV:
            raise ValueError(
                f'--target is of --format=csv, not of --format={self.format.value}: omit it'
            )


class Source(NamedTuple):
    """What is exported.

    run: masks and measurements; None of a report without.
    estimator: of a column; None where it is none of this package.
    entries: estimates the summary of a run; reads that of a report.
    """

    run: ReportedRun | None
    estimator: Estimator | None
    entries: Callable[[], Entries]


def run(directory: str, settings: ExportSettings) -> tuple[Path, ...]:
    """Writes what is asked for and returns the paths of the files."""
    settings.check()
    output = Path(settings.output)
    # Before minutes are spent.
    for path in exports.parquet_files(output) if settings.format is Format.PARQUET else (output,):
        exports.check_output(path, csv=settings.format is Format.CSV)
    source = _opened(directory, settings.estimator)
    written = _written(source, directory, output, settings)
    for path in written:
        print(clean(str(path)))
    return written


def _opened(directory: str, estimator: Estimator | None) -> Source:
    """Opens a run or a report.

    Raises:
        ValueError: no directory is named, a report is damaged, or an estimator is asked of one.
        RunError: it is neither, or the run is damaged.
    """
    if not directory:
        raise ValueError('give the directory of a run, or of a report')
    if (Path(directory) / RESULTS).exists():
        if estimator is not None:
            raise ValueError(
                f'--estimator={estimator.name} is of runs, and {directory} is a report, as it was '
                f'estimated then: omit it, or give the directory of the run'
            )
        results = Results.load(directory)
        known = {one.name: one for one in BUILT_IN}
        return Source(
            _kept_run(directory, results),
            known.get(results.method.name),
            lambda: Entries.of_results(results),
        )
    given = open_run(directory)
    chosen = estimator or given.estimator()
    return Source(given, chosen, lambda: Entries.of_run(given, given.summary(estimator=chosen)))


def _kept_run(directory: str, results: Results) -> ArrayRun | None:
    """Returns the tensors beside a report; None where there are none."""
    try:
        kept = report.KeptTensors.load(directory)
    except FileNotFoundError:
        return None
    return ArrayRun(
        kept.masks,
        {'loss': kept.losses},
        results.example_ids,
        results.target_ids,
        target_examples=kept.target_examples,
        shown=Shown(names=results.example_names, labels=results.example_labels),
    )


def _written(
    source: Source, directory: str, output: Path, settings: ExportSettings
) -> tuple[Path, ...]:
    match settings.format:
        case Format.PARQUET:
            return exports.write_parquet(output, source.entries())
        case Format.GRAPHML:
            return (exports.write_graphml(output, source.entries()),)
        case Format.CSV if not settings.target:
            return (exports.write_pairs_csv(output, source.entries()),)
    if source.run is None:
        what = '--target' if settings.target else f'--format={settings.format.value}'
        raise ValueError(
            f'{what} needs masks and losses, and {directory} is a report without: give the '
            f'directory of the run, or write the report with experiments.estimate --keep_tensors'
        )
    match settings.format:
        case Format.NPZ:
            return (exports.write_npz(output, source.run),)
        case Format.NETCDF:
            return (exports.write_netcdf(output, source.run, source.entries().summary),)
    if source.estimator is None:
        raise ValueError(
            f'{directory} was estimated by a method of its own, which cannot be estimated again: '
            f'export it from Python'
        )
    return (
        exports.write_column_csv(output, source.run, settings.target, estimator=source.estimator),
    )


if __name__ == '__main__':
    flags.define(ExportSettings())
    launch.run(lambda directory='': run(directory, flags.read(ExportSettings)), most_arguments=1)
