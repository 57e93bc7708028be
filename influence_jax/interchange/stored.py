"""From a run, or a report, to files of other programs."""

import enum
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from influence_jax.estimators import BUILT_IN, Estimator, summarize
from influence_jax.estimators.ensemble import complete_members
from influence_jax.interchange import exports
from influence_jax.interchange.exports import Entries
from influence_jax.interchange.output import check_output
from influence_jax.report.gathering import estimator_for
from influence_jax.report.kept import KeptTensors
from influence_jax.report.results import Results
from influence_jax.report.run import ArrayRun, ReportedRun, examples_of_targets
from influence_jax.store import Shown


class Format(enum.Enum):
    """Of the file that is written.

    NPZ: subsets and correctness in the layout of Feldman and Zhang.
    PARQUET: a folder with a line a target and a line a significant pair.
    NETCDF: masks, measurements and summaries, for xarray.
    GRAPHML: the significant pairs as a graph.
    CSV: the significant pairs or, of one target, all influences on it.
    """

    NPZ = 'npz'
    PARQUET = 'parquet'
    NETCDF = 'netcdf'
    GRAPHML = 'graphml'
    CSV = 'csv'


def export(
    source: ReportedRun | Path | str,
    output: Path | str,
    *,
    format: Format = Format.PARQUET,
    target: str = '',
    estimator: Estimator | None = None,
) -> tuple[Path, ...]:
    """Writes what a run has measured, or a report estimated, and returns the paths of the files.

    Args:
        source: a run, whose influence is estimated, or the directory of a report, which is as it
            was estimated then. Masks and measurements are a run's alone, but for the tensors that a
            report may keep.
        output: file, or for Parquet folder; an earlier export is replaced, nothing else.
        format: of the file.
        target: id, or position, of a target whose column is wanted, as CSV.
        estimator: of runs; by default as in their reports.

    Raises:
        FileExistsError: the output is no earlier export, or is inside a run or a report.
        FileNotFoundError: there is no such report.
        ValueError: arguments that do not go together, a report without what is asked for, or a
            damaged one.
        RunError: the run is damaged.
        ImportError: the format needs what is not installed.
    """
    if target and format is not Format.CSV:
        raise ValueError(f'target={target!r} needs format=csv, not format={format.value}: omit it')
    # Before minutes are spent.
    folder = format is Format.PARQUET
    for path in exports.parquet_files(Path(output)) if folder else (Path(output),):
        check_output(path, csv=format is Format.CSV)
    if isinstance(source, Path | str):
        given = _of_report(source, estimator)
    else:
        given = _of_run(source, estimator)
    match format:
        case Format.PARQUET:
            return exports.write_parquet(output, given.entries())
        case Format.GRAPHML:
            return (exports.write_graphml(output, given.entries()),)
        case Format.CSV if not target:
            return (exports.write_pairs_csv(output, given.entries()),)
    if given.run is None:
        what = f'{target=}' if target else f'format={format.value}'
        raise ValueError(
            f'{what} needs masks and losses, and {source} is a report without: give the run '
            f'itself, or write the report with experiments.estimate --keep_tensors'
        )
    match format:
        case Format.NPZ:
            return (exports.write_npz(output, given.run),)
        case Format.NETCDF:
            return (exports.write_netcdf(output, given.run, given.entries().summary),)
    if given.estimator is None:
        raise ValueError(
            f'{source} was estimated by a method of its own, which cannot be estimated again: '
            f'export it from Python'
        )
    return (exports.write_column_csv(output, given.run, target, estimator=given.estimator),)


class _Source(NamedTuple):
    """What is exported.

    run: masks and measurements; None of a report without.
    estimator: of a column; None where it is none of this package.
    entries: estimates the summary of a run; reads that of a report.
    """

    run: ReportedRun | None
    estimator: Estimator | None
    entries: Callable[[], Entries]


def _of_run(run: ReportedRun, estimator: Estimator | None) -> _Source:
    losses, self_index = run.measurement(), examples_of_targets(run)
    chosen, _ = estimator_for(estimator, len(complete_members(run.masks, losses).masks))

    def entries() -> Entries:
        summary = summarize(run.masks, losses, estimator=chosen, target_examples=self_index)
        return Entries.of_run(run, summary)

    return _Source(run, chosen, entries)


def _of_report(directory: Path | str, estimator: Estimator | None) -> _Source:
    if estimator is not None:
        raise ValueError(
            f'estimator={estimator.name} is of runs, and {directory} is a report, as it was '
            f'estimated then: omit it, or give the run'
        )
    results = Results.load(directory)
    known = {one.name: one for one in BUILT_IN}
    return _Source(
        _kept_run(directory, results),
        known.get(results.method.name),
        lambda: Entries.of_results(results),
    )


def _kept_run(directory: Path | str, results: Results) -> ArrayRun | None:
    """Returns the tensors beside a report; None where there are none."""
    try:
        kept = KeptTensors.load(directory)
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
