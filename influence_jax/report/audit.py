"""An audit of membership by itself: a page, a CSV file, a figure, and tables for the terminal."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from rich.console import Group

from influence_jax.analysis.membership import LEAST_SUBSETS, MembershipResults
from influence_jax.report.membership import (
    Targets,
    audited,
    section,
    terminal_rates,
    terminal_records,
    unit_of,
    vulnerability_csv,
)
from influence_jax.report.page import rendered
from influence_jax.report.run import ReportedRun
from influence_jax.report.tables import printable
from influence_jax.store.files import make_directory, replacing
from influence_jax.types import PRNGKey

PAGE = 'membership.html'
VULNERABILITY = 'vulnerability.csv'
_FIGURE = 'membership-roc.png'


@dataclasses.dataclass(frozen=True)
class Audit:
    """What attacks find, and of whose records. No text in it is trusted.

    Attributes:
        title: heading of the page.
        membership: from `analysis.membership.audit`.
        targets: what the targets are called.
        facts: whose models were attacked, and how to repeat it.
        notes: sentences on what was left out.
    """

    title: str
    membership: MembershipResults
    targets: Targets
    facts: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @classmethod
    def of_run(
        cls,
        run: ReportedRun,
        *,
        key: PRNGKey,
        title: str = 'Membership inference',
        unit: str | None = None,
        most_scores: int | None = 1_000_000,
        facts: Mapping[str, str] | None = None,
    ) -> 'Audit':
        """Attacks every member of a run, with all others as its shadow models.

        Args:
            run: masks and losses.
            key: draws the resamples that intervals are made of.
            title: heading of the page.
            unit: of the losses; by default as the run has it. In nats they are -log p of the truth.
            most_scores: of curves and rates, see `analysis.membership.audit`.
            facts: further ones.

        Raises:
            ValueError: there are too few members, or targets that are examples.
        """
        unit = unit or unit_of(run)
        found = audited(run, key=key, unit=unit, most_scores=most_scores)
        if found is None:
            raise ValueError(
                f'too few members: attacks need {LEAST_SUBSETS} of different subsets with finite '
                f'measurements, and 2 or more targets that are examples, each in and out of 3 or '
                f'more'
            )
        shown = getattr(run, 'shown', None)
        counts = {
            'members': f'{len(run.complete):,} of {len(run.masks):,}',
            'targets': f'{len(run.target_ids):,}',
        }
        notes = shown.notes if shown else ()
        return cls(title, found, Targets.of_run(run), {**counts, **(facts or {})}, notes)


def check_directory(directory: Path | str) -> None:
    """Refuses a directory that holds anything but an earlier audit.

    Raises:
        FileExistsError: naming what it holds.
    """
    directory = Path(directory)
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f'{directory} is a file; choose another directory for the audit')
    if not directory.exists():
        return
    own = {PAGE, VULNERABILITY, _FIGURE}
    others = {entry.name for entry in directory.iterdir()}
    others -= own | {f'{name}.partial' for name in own}
    if others:
        raise FileExistsError(
            f'{directory} holds {min(others)!r}, which is no part of an audit; choose a directory '
            f'of its own for the audit'
        )


def save(audit: Audit, directory: Path | str) -> Path:
    """Writes the page, last, and what stands beside it, each whole; returns the page's path.

    Raises:
        FileExistsError: as in `check_directory`.
        store.StorageFailed: the directory cannot be written to.
    """
    check_directory(directory)
    directory = Path(directory)
    make_directory(directory)
    for name, content in render(audit).items():
        with replacing(directory / name) as file:
            file.write(content)
    return directory / PAGE


def render(audit: Audit) -> dict[str, bytes]:
    """Returns the files by their names, the page last."""
    shown = section(audit.membership, audit.targets)
    page = rendered(
        'membership.html.j2',
        title=audit.title,
        section=shown,
        strip_columns=1,
        facts_caption='What was attacked.',
        facts=[*audit.facts.items(), *(('note', note) for note in audit.notes)],
    )
    (drawn,) = shown.pictures
    return {
        _FIGURE: drawn.light,
        VULNERABILITY: vulnerability_csv(audit.membership, audit.targets).encode(errors='replace'),
        PAGE: page.encode(errors='replace'),
    }


def terminal(audit: Audit) -> Group:
    """Returns rates, the records most at risk, facts and notes, to be printed."""
    return Group(
        terminal_rates(audit.membership),
        '',
        terminal_records(audit.membership, audit.targets),
        *(printable(f'{name}: {value}') for name, value in audit.facts.items()),
        *(printable(f'Note: {note}') for note in (*audit.membership.notes, *audit.notes)),
    )
