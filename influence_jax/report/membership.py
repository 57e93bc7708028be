"""What a report shows of membership inference: curves, rates, and the records at risk."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from rich.table import Table as TerminalTable
from rich.text import Text

from influence_jax.analysis import membership
from influence_jax.analysis.membership import AttackResults, MembershipResults, Points
from influence_jax.analysis.resampling import Interval
from influence_jax.formatting import MISSING, PLUS_MINUS, number
from influence_jax.report.csv_files import csv_file, id_cell, text_cell
from influence_jax.report.results import UNIT, Results
from influence_jax.report.run import (
    ReportedRun,
    examples_of_targets,
    groups_of_targets,
    measurement_names,
)
from influence_jax.report.sections import Cell, Plate, Plates, Section, Table
from influence_jax.store import Shown
from influence_jax.text import LONGEST_NAME, clean, shortened
from influence_jax.types import PRNGKey

ROWS = 12
"""Records that the page lists."""

ROWS_OF_TERMINAL = 5
"""Records that are printed."""

_LOGIT_GAP = 'logit_gap'
_NO_PROBABILITIES = ('Regression', 'Diffusion')
"""Tasks whose loss is a squared error, whatever unit is written behind it."""


class Targets(NamedTuple):
    """What the targets of an audit are called.

    ids, names, labels: `[T]`; a label is '' where there is none.
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[str, ...]

    @classmethod
    def of(cls, results: Results) -> 'Targets':
        """Returns those of a report."""
        every = range(results.num_targets)
        return cls(
            results.target_ids,
            tuple(map(results.target_name, every)),
            tuple(map(results.target_label, every)),
        )

    @classmethod
    def of_run(cls, run: ReportedRun) -> 'Targets':
        """Returns those of a run."""
        self_index, shown = examples_of_targets(run).tolist(), getattr(run, 'shown', None)
        if shown is None:
            return cls(tuple(run.target_ids), tuple(run.target_ids), ('',) * len(self_index))
        return cls(
            tuple(run.target_ids),
            tuple(
                shown.names[example] if example >= 0 else identity
                for identity, example in zip(run.target_ids, self_index, strict=True)
            ),
            tuple(shown.labels[example] if example >= 0 else '' for example in self_index),
        )


def unit_of(run: ReportedRun, measurement: str = 'loss') -> str:
    """Returns the unit that a run names; nats of one that names none."""
    of: Callable[[str], str] | None = getattr(run, 'unit', None)
    return UNIT if of is None else of(measurement)


def audited(
    run: ReportedRun,
    *,
    key: PRNGKey,
    measurement: str = 'loss',
    unit: str = UNIT,
    shown: Shown | None = None,
    most_scores: int | None = 1_000_000,
) -> MembershipResults | None:
    """Audits a run: see `analysis.membership.audit`.

    Args:
      run: the run.
      key: draws resamples.
      measurement: what the loss is called.
      unit: of it; in nats it is -log p of the truth, unless the task says otherwise.
      shown: what is known of the examples, of which near-duplicates are drawn together; by
        default what the run keeps.
      most_scores: of curves and rates, see there.
    """
    measured = measurement == 'loss' and _LOGIT_GAP in measurement_names(run)
    task = getattr(getattr(run, 'manifest', None), 'task', None) or {}
    self_index = examples_of_targets(run)
    return membership.audit(
        run.masks,
        run.measurement(measurement),
        key=key,
        log_losses=unit == UNIT and task.get('task') not in _NO_PROBABILITIES,
        gaps=run.measurement(_LOGIT_GAP) if measured else None,
        target_examples=self_index,
        groups=groups_of_targets(shown or getattr(run, 'shown', None), self_index),
        most_scores=most_scores,
    )


def membership_section(results: Results) -> Iterator[Section]:
    """Yields the section of a report, where there were members enough."""
    if results.membership:
        yield section(results.membership, Targets.of(results))


def section(found: MembershipResults, targets: Targets) -> Section:
    """Returns rates and curves of all attacks, and the records most at risk."""
    at_risk, attacked = int(found.at_risk.sum()), int((~np.isnan(found.vulnerability)).sum())
    curves = {
        one.title: Points(one.false_positive_rates, one.true_positive_rates)
        for one in found.attacks
    }
    rates = ', '.join(f'{one.title} {number(_auroc(one).value, 3)}' for one in found.attacks)
    from influence_jax.report import figures  # matplotlib is slow to import
    from influence_jax.report.theme import picture

    drawn = picture(
        'membership-roc',
        f'True-positive against false-positive rates on log axes; areas: {rates}.',
        figures.roc_curves,
        curves,
    )
    first = found.attacks[0]
    lead = [
        'Every member is attacked, with all other members as its shadow models, by one threshold '
        'for all records. The true-positive rate is the share of included records that are found '
        'where so many of the records left out are accused; 95 % intervals over other models and '
        'over other records. Where a threshold falls among tied scores, the attack takes as many '
        'of them at random as the false-positive rate allows.',
        f'By {first.title}, {at_risk:,} of {attacked:,} records are at risk: at a false-positive '
        f'rate of {_percent(found.false_positive_rate)} members that trained on the record are '
        "found more often than others are accused (Fisher's exact test; 5 % of these records are "
        'false, on average). All are in vulnerability.csv.',
        *found.notes,
    ]
    return Section(
        'Who can tell what a model trained on?',
        ' '.join(lead),
        [rate_table(found), Plates([Plate('', '', drawn)]), _record_table(found, targets)],
    )


def rate_table(found: MembershipResults) -> Table:
    """Returns rates of all attacks, with both kinds of intervals."""
    header = [
        '',
        *(f'found at {_percent(one.false_positive_rate)} accused' for one in found.attacks[0].at),
        'AUROC',
    ]
    return Table(
        'True-positive rates at low false-positive rates, and the area under the curve, with 95 % '
        'intervals over other models and over other records. A dash: fewer than 10 false positives '
        'would decide.',
        header,
        [
            [
                Cell(one.title),
                *(_rate_cell(rate.over_members, rate.over_records) for rate in one.at),
                _area_cell(one),
            ]
            for one in found.attacks
        ],
    )


def terminal_rates(found: MembershipResults) -> TerminalTable:
    """Returns the same in short, to be printed."""
    lines = _lines('Membership inference: % found where so few are accused')
    lines.add_column('', no_wrap=True)
    for rate in found.attacks[0].at:
        name = f'at {_percent(rate.false_positive_rate)}'
        lines.add_column(name, justify='right', no_wrap=True)
    lines.add_column('AUROC', justify='right', no_wrap=True)
    for one in found.attacks:
        shares = (rate.over_members for rate in one.at)
        lines.add_row(
            one.title,
            *(
                MISSING
                if math.isnan(share.value)
                else f'{_hundredths(share.value)} ({_span(share)})'
                for share in shares
            ),
            number(_auroc(one).value, 3),
        )
    return lines


def terminal_records(found: MembershipResults, targets: Targets) -> TerminalTable:
    """Returns the records most at risk, to be printed."""
    at_risk = int(found.at_risk.sum())
    rate = _percent(found.false_positive_rate)
    lines = _lines(f'{at_risk:,} records at risk (at {rate} accused), most first', expand=True)
    lines.add_column('record', overflow='ellipsis', no_wrap=True, ratio=1)
    for name in ('found', 'accused otherwise', 'AUROC', 'at risk'):
        lines.add_column(name, justify='right', no_wrap=True)
    for target in most_at_risk(found, ROWS_OF_TERMINAL).tolist():
        lines.add_row(
            Text(clean(targets.names[target], most=LONGEST_NAME)),
            _percent(found.vulnerability[target]),
            _percent(found.false_alarms[target]),
            f'{number(found.auroc[target], 3)} {PLUS_MINUS} '
            f'{number(found.auroc_standard_error[target], 3)}',
            'yes' if found.at_risk[target] else 'no',
        )
    return lines


def _lines(title: str, *, expand: bool = False) -> TerminalTable:
    return TerminalTable(
        title=Text(title, style='bold'),
        title_justify='left',
        box=None,
        pad_edge=False,
        expand=expand,
    )


def vulnerability_csv(found: MembershipResults, targets: Targets) -> str:
    """Returns one line a target, in their own order; empty cells where it is no example."""

    def texts(target: int) -> Iterator[str]:
        yield id_cell(targets.ids[target])
        yield text_cell(targets.names[target])
        yield text_cell(targets.labels[target])

    numbers: dict[str, np.ndarray | None] = {
        'true_positive_rate': found.vulnerability,
        'true_positive_rate_standard_error': found.vulnerability_standard_error,
        'true_positive_rate_low': found.vulnerability_low,
        'true_positive_rate_high': found.vulnerability_high,
        'false_positive_rate': found.false_alarms,
        'auroc': found.auroc,
        'auroc_standard_error': found.auroc_standard_error,
        'at_risk': np.where(np.isnan(found.vulnerability), np.nan, found.at_risk),
    }
    return csv_file(('id', 'name', 'label'), texts, numbers, rows=len(targets.ids))


def most_at_risk(found: MembershipResults, count: int = ROWS) -> Int[np.ndarray, ' k']:
    """Returns the targets whose members are found most often, of all that could be attacked.

    Of those found equally often the larger AUROC comes first, then the higher end of the interval.
    """
    attacked = np.flatnonzero(~np.isnan(found.vulnerability))
    order = np.lexsort(
        tuple(
            -values[attacked]
            for values in (found.vulnerability_low, found.auroc, found.vulnerability)
        )
    )
    return attacked[order[:count]]


def _record_table(found: MembershipResults, targets: Targets) -> Table:
    complete, attacked = int((found.auroc == 1).sum()), int((~np.isnan(found.vulnerability)).sum())

    def row(target: int) -> list[Cell]:
        values: Float[np.ndarray, ' 6'] = np.array(
            [
                found.vulnerability[target],
                found.vulnerability_low[target],
                found.vulnerability_high[target],
                found.false_alarms[target],
                found.auroc[target],
                found.auroc_standard_error[target],
            ]
        )
        share, low, high, alarms, area, error = values.tolist()
        return [
            Cell(shortened(targets.names[target], LONGEST_NAME), targets.labels[target]),
            Cell(_percent(share), _range(Interval(share, low, high))),
            Cell(_percent(alarms)),
            Cell(number(area, 3), f'{PLUS_MINUS} {number(error, 3)}' if error >= 0.0005 else ''),
            Cell('yes' if found.at_risk[target] else 'no'),
        ]

    return Table(
        f'The records whose members are found most often, by {found.attacks[0].title} at a '
        f'false-positive rate of {_percent(found.false_positive_rate)} over all records; of equals '
        f'the larger AUROC first. For {complete:,} of {attacked:,} it is 1: all members that '
        'trained on these score above all others.',
        ('', 'found, of members that include it', 'accused, of others', 'AUROC', 'at risk'),
        [row(target) for target in most_at_risk(found).tolist()],
    )


def _rate_cell(over_members: Interval, over_records: Interval) -> Cell:
    if math.isnan(over_members.value):
        return Cell(MISSING)
    return Cell(_percent(over_members.value), _both(_span(over_members), _span(over_records)))


def _both(over_members: str, over_records: str) -> str:
    return f'over models {over_members}\nover records {over_records}'


def _area_cell(one: AttackResults) -> Cell:
    found, records = one.auroc_over_members, one.auroc_over_records
    return Cell(
        number(found.value, 3),
        _both(*(f'{number(one.low, 3)}{MISSING}{number(one.high, 3)}' for one in (found, records))),
        found,
    )


def _auroc(one: AttackResults) -> Interval:
    return one.auroc_over_members


def _span(found: Interval) -> str:
    """Returns '74.8-75.7', in hundredths, with a dash of that width."""
    return f'{_hundredths(found.low)}{MISSING}{_hundredths(found.high)}'


def _range(found: Interval) -> str:
    return f'{_percent(found.low)} to {_percent(found.high)}'


def _percent(share: float) -> str:
    """Returns '0.1 %', '12.3 %', '100 %': three digits at most."""
    return f'{_hundredths(share)} %'


def _hundredths(share: float) -> str:
    return f'{100 * share:.3g}'
