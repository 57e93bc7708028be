"""Membership on the page, in the file and on the terminal; in a report and by itself."""

import csv
import io

import jax
import numpy as np
import pytest
from audits import audit_of
from pages import Page
from rich.console import Console

from influence_jax import report
from influence_jax.report import ArrayRun, Results, audit
from influence_jax.report.audit import Audit
from influence_jax.report.membership import (
    Targets,
    audited,
    membership_section,
    most_at_risk,
    vulnerability_csv,
)
from influence_jax.report.sections import MISSING
from influence_jax.report.tables import terminal
from influence_jax.store import Shown

N = 12


@pytest.fixture
def results(arguments):
    return Results(**arguments, membership=audit_of(N))


def lines_of(found, targets):
    return list(csv.DictReader(io.StringIO(vulnerability_csv(found, targets))))


def test_a_line_a_target(results, hostile):
    found, lines = results.membership, lines_of(results.membership, Targets.of(results))
    assert [line['id'] for line in lines] == list(results.target_ids)
    assert lines[0]['name'] == lines[0]['label'] == hostile
    for column, values in (
        ('true_positive_rate', found.vulnerability),
        ('true_positive_rate_low', found.vulnerability_low),
        ('true_positive_rate_high', found.vulnerability_high),
        ('false_positive_rate', found.false_alarms),
        ('auroc', found.auroc),
    ):
        np.testing.assert_allclose([float(line[column]) for line in lines], values, rtol=1e-5)
    assert [line['at_risk'] for line in lines] == ['1', *['0'] * (N - 1)]


def test_a_target_that_is_no_example_has_empty_cells():
    own = np.where(np.arange(N) == 4, -1, np.arange(N))
    names = tuple(map(str, range(N)))
    lines = lines_of(audit_of(N, own=own), Targets(names, names, ('',) * N))
    assert lines[4]['true_positive_rate'] == lines[4]['auroc'] == lines[4]['at_risk'] == ''
    assert most_at_risk(audit_of(N, own=own)).tolist()[0] == 0


def test_the_section_names_who_is_at_risk(results):
    (section,) = membership_section(results)
    assert '1 of 12 records are at risk' in section.lead
    rates, plates, records = section.parts
    assert [row[0].text for row in rates.rows] == [
        'LiRA, online',
        'LiRA, offline',
        'RMIA',
        'loss alone',
    ]
    # 12 targets and 64 members: too few scores for all rates but the last.
    assert [cell.text == MISSING for cell in rates.rows[0]] == [False, True, True, False, False]
    tenth = results.membership.attacks[0].at[2]
    low, high, least, most = (
        f'{100 * end:.3g}' for end in (*tenth.over_members[1:], *tenth.over_records[1:])
    )
    assert rates.rows[0][3].note == (
        f'over models {low}{MISSING}{high}\nover records {least}{MISSING}{most}'
    )
    assert [plate.picture.name for plate in plates.plates] == ['membership-roc']
    assert records.rows[0][-1].text == 'yes'
    assert records.rows[1][-1].text == 'no'


def test_a_report_shows_it_and_keeps_it(results, tmp_path, hostile):
    page = report.save(results, tmp_path / 'report')
    assert (page.parent / 'vulnerability.csv').exists()
    assert (page.parent / 'figures' / 'membership-roc.png').exists()
    text = page.read_text()
    assert 'Who can tell what a model trained on?' in text
    assert hostile not in text
    Page(text)  # well nested
    again = Results.load(page.parent)
    np.testing.assert_equal(again.membership, results.membership)
    report.save(results, page.parent)  # its own parts do not keep it from being replaced


def test_the_terminal_shows_it(results):
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(terminal(results))
    text = console.export_text()
    assert 'LiRA, online' in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.fixture
def run():
    """Of 40 members."""
    rng = np.random.default_rng(0)
    masks = rng.random((40, N)) < 0.5
    masks[:5], masks[5:10] = True, False
    losses = (rng.gamma(4.0, 0.25, masks.shape) * np.where(masks, 0.2, 1)).astype(np.float32)
    return ArrayRun(masks, {'loss': losses}, target_examples=np.arange(N))


def test_gathering_attacks_what_it_can(run):
    found = report.gather(run).membership
    assert [one.name for one in found.attacks] == ['lira_online', 'lira_offline', 'rmia', 'loss']
    alone = report.gather(run, unit='points').membership
    assert [one.name for one in alone.attacks] == ['loss']
    assert 'no -log p' in alone.notes[0]
    few = ArrayRun(run.masks[:20], {'loss': run.measurement()[:20]}, target_examples=np.arange(N))
    assert report.gather(few).membership is None


@pytest.mark.parametrize('groups', [None, np.arange(N) // 6])
def test_near_duplicates_are_drawn_together(run, groups):
    names = tuple(map(str, range(N)))
    found = audited(run, key=jax.random.key(0), shown=Shown(names=names, groups=groups))
    low, high = found.attacks[0].auroc_over_records[1:]
    alone = audited(run, key=jax.random.key(0)).attacks[0].auroc_over_records
    assert ((low, high) == alone[1:]) == (groups is None)


@pytest.fixture
def by_itself(hostile):
    names = (hostile, '=cmd()', *(f'name {i}' for i in range(2, N)))
    return Audit(f'Of {hostile}', audit_of(N), Targets(names, names, ('',) * N), {'run': hostile})


def test_an_audit_by_itself(by_itself, tmp_path, hostile):
    page = audit.save(by_itself, tmp_path / 'audit')
    assert sorted(path.name for path in page.parent.iterdir()) == [
        'membership-roc.png',
        'membership.html',
        'vulnerability.csv',
    ]
    text = page.read_text()
    assert hostile not in text
    Page(text)  # well nested
    lines = lines_of(by_itself.membership, by_itself.targets)
    assert lines[1]['id'] == "'=cmd()"
    audit.save(by_itself, page.parent)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(audit.terminal(by_itself))
    assert 'records at risk' in console.export_text()


def test_nothing_else_is_replaced(by_itself, tmp_path):
    (tmp_path / 'thesis.txt').write_text('mine')
    with pytest.raises(FileExistsError, match=r"'thesis.txt'"):
        audit.save(by_itself, tmp_path)
    with pytest.raises(FileExistsError, match='is a file'):
        audit.check_directory(tmp_path / 'thesis.txt')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['thesis.txt']


def test_an_audit_of_any_run_is_one_call():
    rng = np.random.default_rng(0)
    masks = rng.random((40, N)) < 0.5
    losses = rng.gamma(4.0, 0.25, masks.shape).astype(np.float32)
    run = ArrayRun(masks, losses)
    made = Audit.of_run(run, key=jax.random.key(0), title='Mine', facts={'more': 'yes'})
    expected = audited(run, key=jax.random.key(0))
    np.testing.assert_equal(made.membership.attacks, expected.attacks)
    assert made.facts == {'members': '40 of 40', 'targets': str(N), 'more': 'yes'}
    assert 'Mine' in audit.render(made)[audit.PAGE].decode()
    with pytest.raises(ValueError, match='too few members: attacks need 32'):
        Audit.of_run(ArrayRun(masks[:20], losses[:20]), key=jax.random.key(0))
