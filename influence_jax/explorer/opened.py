"""Stored results, opened for reading: those of a run, or of a report alone."""

import dataclasses
import functools
import hashlib
from pathlib import Path

from influence_jax.report.directory import REPORT
from influence_jax.report.results import RESULTS, Results
from influence_jax.store import Run, RunError, Shown, open_run

_MANIFEST = 'manifest.json'


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """Results of an ensemble, and what is beside them.

    Attributes:
        name: of the directory, for people.
        report: directory of the report, which holds the results.
        results: the results.
        checksum: changes when the results do.
        run: directory of the run of which they are; None where there is none.
    """

    name: str
    report: Path
    results: Results
    checksum: str
    run: Path | None

    @functools.cached_property
    def opened_run(self) -> Run | None:
        """The run; None where there is none.

        Raises:
            RunError: it is damaged.
        """
        return None if self.run is None else open_run(self.run)

    @functools.cached_property
    def shown(self) -> Shown | None:
        """What the run keeps of all examples; None where there is nothing but the results.

        Raises:
            RunError: it is damaged.
        """
        return None if self.opened_run is None else self.opened_run.shown


def open_results(directory: Path | str) -> Opened:
    """Opens the stored results of a run directory, or of a report directory.

    Raises:
        FileNotFoundError: there are none; says which command writes them.
        ValueError: they are damaged, or of another version.
    """
    directory = Path(directory).absolute()
    if not directory.is_dir():
        raise FileNotFoundError(f'{directory} is no directory: give that of a run or of a report')
    is_run = (directory / _MANIFEST).exists()
    report = directory / REPORT if is_run else directory
    if not (report / RESULTS).is_dir():
        raise FileNotFoundError(_no_results(directory, report, is_run=is_run))
    beside = report.name == REPORT and (report.parent / _MANIFEST).exists()
    run = report.parent if beside else None
    return Opened(
        (run or directory).name,
        report,
        Results.load(report),
        hashlib.sha256((report / RESULTS / 'zarr.json').read_bytes()).hexdigest()[:32],
        run,
    )


def _no_results(directory: Path, report: Path, *, is_run: bool) -> str:
    if is_run:
        return (
            f'{directory} is a run without stored results ({REPORT}/{RESULTS}): repeat its command, '
            f'which writes them at its end, or call influence_jax.report.write(open_run(DIR))'
        )
    of_old = 'a report of an earlier version' if (report / 'index.html').exists() else 'no report'
    return (
        f'{directory} is {of_old} and has no stored results ({RESULTS}): write them with '
        f'python -m experiments.estimate --masks=FILE --losses=FILE --output_dir=DIR'
    )


__all__ = ['Opened', 'RunError', 'open_results']
