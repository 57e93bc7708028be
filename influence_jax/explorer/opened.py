"""Stored results, opened for reading: those of a run, or of a report alone."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from influence_jax.analysis.shared_members import member_digests
from influence_jax.estimators.ensemble import Ensemble, finite_members
from influence_jax.report.kept import TENSORS, KeptTensors
from influence_jax.report.results import REPORT, RESULTS, Results
from influence_jax.report.tokens import TOKENS, TokenResults
from influence_jax.store import Run, RunError, Shown, open_run

_MANIFEST = 'manifest.json'


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """Results of an ensemble, and what is beside them.

    Attributes:
        name: of the directory, for people.
        report: directory of the report, which holds the results.
        results: the results.
        run: directory of the run of which they are; None where there is none.
        lender: another run of the same records, which keeps how they look; None where none is
            needed, see `borrow`.
    """

    name: str
    report: Path
    results: Results
    run: Path | None
    lender: 'Opened | None' = None

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
        if self.lender is not None:
            return self.lender.shown
        return None if self.opened_run is None else self.opened_run.shown

    @property
    def images_shape(self) -> tuple[int, ...] | None:
        """Shape of the images that are kept of all examples, or of some; None without any."""
        images = self.results.shown.images  # of the same shape, and read already
        return None if images is None else images.shape

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of examples that are rows of a table."""
        return self.results.shown.columns

    @property
    def has_tensors(self) -> bool:
        """Whether masks and losses of the members are there, whole or not."""
        return self.run is not None or (self.report / TENSORS).is_dir()

    @functools.cached_property
    def member_digests(self) -> Int[np.ndarray, 'M 2'] | None:
        """Which members the results are of, see `analysis.shared_members`; None if not known.

        Raises:
            ValueError, RunError: they have to be read, and are damaged.
        """
        stored = self.results.member_digests
        if stored is not None or not self.has_tensors:
            return stored
        return member_digests(*self.tensors())

    def tensors(self) -> Ensemble:
        """Reads masks and losses of the complete members; a great deal of memory.

        Raises:
            FileNotFoundError: there are none.
            ValueError, RunError: they are damaged, or none is complete.
        """
        if self.opened_run is not None:
            return finite_members(self.opened_run.masks, self.opened_run.measurement())
        kept = KeptTensors.load(self.report)
        return Ensemble(kept.masks, kept.losses)

    @functools.cached_property
    def tokens(self) -> TokenResults | None:
        """Losses and scores of the targets' tokens; None where none are kept.

        Raises:
            ValueError, RunError: they are damaged, or not of these targets.
        """
        run = self.opened_run
        if run is None or not (run.directory / TOKENS).is_dir():
            return None
        kept = TokenResults.load(run.directory, run=run.manifest.identity)
        if len(kept.losses.tokens.lengths) != self.results.num_targets:
            raise ValueError(f'{run.directory / TOKENS} is of other targets than the results')
        return kept


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
        run,
    )


def borrow(opened: Sequence[Opened]) -> list[Opened]:
    """Returns results that show their examples as another run of the same records keeps them.

    Only where they keep nothing but names of their own, where ids are the same, and the digest of
    the data too, or one of the runs is of an earlier version, whose digests say nothing. Else a
    note says why.
    """
    return [_borrowed(one, [other for other in opened if other is not one]) for one in opened]


def _borrowed(borrower: Opened, others: Sequence[Opened]) -> Opened:
    if not borrower.results.shown.by_name_alone:
        return borrower
    reasons = []
    for other in others:
        if other.results.shown.by_name_alone:
            continue
        reason = _why_not(other, borrower)
        if reason is None:
            return _with_lender(borrower, other)
        reasons.append(f'What {other.name} keeps of how examples look is not shown here: {reason}.')
    notes = (*borrower.results.notes, *reasons)
    return dataclasses.replace(borrower, results=dataclasses.replace(borrower.results, notes=notes))


def _why_not(lender: Opened, borrower: Opened) -> str | None:
    """Returns why the two may be of other records; None where they are of the same."""
    if lender.results.example_ids != borrower.results.example_ids:
        return 'the ids are others'
    try:
        runs = lender.opened_run, borrower.opened_run
    except (RunError, OSError):
        return 'one of the runs is damaged'
    manifests = [run.manifest for run in runs if run is not None]
    if len(manifests) < len(runs):
        return 'a report without its run does not say of which data it is'
    digests = {manifest.dataset.fingerprint for manifest in manifests if manifest.has_digests}
    return 'the data have another digest' if len(digests) > 1 else None


def _with_lender(borrower: Opened, lender: Opened) -> Opened:
    kept = lender.results
    note = f'How examples look, and what they are called, is what {lender.name} keeps of them.'
    results = dataclasses.replace(
        borrower.results,
        shown=kept.shown,
        example_names=kept.example_names,
        example_labels=kept.example_labels,
        example_changes=kept.example_changes,
        notes=(*borrower.results.notes, note),
    )
    return dataclasses.replace(borrower, results=results, lender=lender)


def _no_results(directory: Path, report: Path, *, is_run: bool) -> str:
    if is_run:
        return (
            f'{directory} is a run without stored results ({REPORT}/{RESULTS}): write them with '
            f'python -c "import influence_jax as ij; ij.report.write(ij.open_run(DIR))", or repeat '
            f'the command of the run, if it is of this version'
        )
    of_old = 'a report of an earlier version' if (report / 'index.html').exists() else 'no report'
    return (
        f'{directory} is {of_old} and has no stored results ({RESULTS}): write them with '
        f'python -m experiments.estimate --masks=FILE --losses=FILE --output_dir=DIR'
    )
