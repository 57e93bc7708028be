"""The table that the page begins with: which targets it lists, and what it shows of them."""

import dataclasses
import re

import numpy as np
import pytest
from pages import Page

from influence_jax.analysis.verdicts import Verdict, verdicts
from influence_jax.report import Results
from influence_jax.report.question import ROWS, choose_rows, influencers, question
from influence_jax.report.results import ShownExamples

COUNT = 200


def listed(summary, found, own=None):
    own = np.arange(len(found)) if own is None else own
    return {
        kind.title.split()[0]: kind.targets.tolist() for kind in choose_rows(summary, own, found)
    }


@pytest.fixture
def many(overview):
    """As much of a summary as the choice looks at; self-influence falls from target to target."""
    return overview.summary._replace(
        self_influence=np.linspace(2, 1, COUNT),
        other_value=np.full(COUNT, 0.5),
        other_standard_error=np.linspace(0.1, 0.2, COUNT),
        strongest_other=np.roll(np.arange(COUNT), 1),
    )


def test_half_are_unique_and_half_have_near_duplicates(many):
    found = np.where(np.arange(COUNT) < 100, Verdict.UNIQUE, Verdict.NEAR_DUPLICATED)
    # Strongest first and surest first; of a chain in which each names the one before every second.
    assert listed(many, found) == {'Memorized,': [*range(25)], 'With': [*range(100, 150, 2)]}


def test_where_one_kind_is_rare_there_is_more_of_the_other_and_then_of_the_rest(many):
    found = np.full(COUNT, Verdict.UNIQUE)
    found[[150, 160]] = Verdict.NEAR_DUPLICATED
    assert listed(many, found) == {'Memorized,': [*range(48)], 'With': [150, 160]}
    found[:] = Verdict.UNCERTAIN
    found[7] = Verdict.UNIQUE
    rest = [t for t in range(11) if t != 7]
    assert listed(many, found) == {'Memorized,': [7], 'Of': rest}


def test_of_two_that_name_one_another_the_surer_is_listed(many):
    found = np.full(COUNT, Verdict.NEAR_DUPLICATED)
    pairs = np.arange(COUNT) ^ 1
    errors = np.where(np.arange(COUNT) % 2, 0.1, 0.2) + np.arange(COUNT) * 1e-4
    summary = many._replace(strongest_other=pairs, other_standard_error=errors)
    assert listed(summary, found) == {'With': [*range(1, 2 * ROWS, 2)]}


def test_targets_that_are_no_examples_are_listed_by_what_influences_them(many):
    found = np.full(COUNT, Verdict.UNCERTAIN)
    summary = many._replace(
        self_influence=np.full(COUNT, np.nan), other_value=np.arange(COUNT, dtype=float)
    )
    assert listed(summary, found, np.full(COUNT, -1)) == {'Of': [*range(199, 189, -1)]}


def test_others_are_strongest_first_and_a_third_stands_out(arguments, overview):
    results = Results(**arguments)
    found = verdicts(results.summary, mean_loss=results.mean_loss)
    shown = [row for _, rows in question(results).rows for row in rows]
    assert sorted(row.target for row in shown) == [*range(12)]
    for row in shown:
        assert row.verdict == found[row.target]
        of = [e for e in overview.summary.top_examples[row.target].tolist() if e != row.target]
        assert [one.example for one in row.others] == of[: len(row.others)]
        assert len(row.others) >= 2
        assert not any(one.is_noise for one in row.others[2:])


def test_no_significant_pair_is_grayed(arguments, overview):
    """Nor is any other value given for it than in pairs.csv."""
    summary = overview.summary
    nothing = np.zeros_like(summary.top_stands_out)
    arguments['overview'] = dataclasses.replace(
        overview, summary=summary._replace(top_stands_out=nothing)
    )
    results, pairs = Results(**arguments), summary.pairs
    cross_fitted = {
        (example, target): fitted
        for example, target, fitted in zip(
            pairs.examples, pairs.targets, pairs.cross_fitted, strict=True
        )
    }
    seen = set()
    for target in range(12):
        for one in influencers(results, target, most=5):
            entry = one.example, target
            assert one.is_noise == (entry not in cross_fitted)
            np.testing.assert_equal(one.cross_fitted, cross_fitted.get(entry, np.nan))
            seen.add(entry)
    assert seen & cross_fitted.keys() >= {(0, 1), (1, 0)}


@pytest.mark.usefixtures('unsaved')
def test_twelve_rows_are_seen_and_the_others_fold_away(arguments, monkeypatch, write):
    found = np.where(np.arange(12) < 9, Verdict.UNIQUE, Verdict.NEAR_DUPLICATED)
    monkeypatch.setattr('influence_jax.report.results.verdicts', lambda *_, **__: found)
    monkeypatch.setattr('influence_jax.report.question._FIRST', 5)
    asked = question(Results(**arguments))
    assert [len(rows) for _, rows in asked.rows] == [3, 2]
    assert (asked.shown, asked.more) == (5, sum(len(rows) for _, rows in asked.folded))
    both = [row.target for part in (asked.rows, asked.folded) for _, rows in part for row in rows]
    assert len(set(both)) == len(both)
    table = table_of(write(arguments))
    further = table.index('<details class="further">')
    assert table.count('role="rowheader" scope="row"') == len(both)
    assert table[:further].count('role="rowheader" scope="row"') == 5
    assert f'<summary>{asked.more} more of these</summary>' in table


def table_of(page):
    text = page.read_text()
    return text[text.index('<section id="question"') : text.index('<p class="lead reading"')]


def test_the_page_begins_with_the_table(written, overview, hostile):
    text, table = written.read_text(), table_of(written)
    assert text.index('id="question"') < text.index('<section') + len('<section id="question"')
    summary = overview.summary
    value, error = summary.self_influence[5], summary.self_standard_error[5]
    row = next(row for row in table.split('<tr') if 'title="name 5"' in row.split('</th>')[0])
    assert f'<b>{value:.2f}</b> <span class="error">± {error:.2f}</span>' in row
    assert f'<b>{summary.margin[5]:.2f}</b>' in row
    assert '<img class="thumbnail"' in row and '<div class="small">class</div>' in row
    assert '>unique</span>' in row
    assert hostile not in table
    counts = re.findall(r'<b class="numeric">([\d,]+)</b> <span class="tag (\w+)">', table)
    assert sum(int(count) for count, _ in counts) == 12
    assert 'python -m experiments.explore DIR' in table
    Page(text)


@pytest.mark.usefixtures('unsaved')
def test_targets_that_are_no_examples_have_no_column_of_self_influence(
    arguments, foreign_overview, write
):
    page = write(arguments | {'overview': foreign_overview, 'near_duplicates': None})
    assert 'self-influence' not in table_of(page)
    assert 'no picture' in table_of(page)
    text = page.read_text()
    assert 'The diagonal is' not in text and '<dt>Self-influence' not in text
    assert 'blue frame' not in text and 'itself</b>' not in text


@pytest.mark.usefixtures('unsaved')
def test_what_there_is_no_picture_of_is_named_and_texts_are_shown(arguments, write):
    names = tuple(f'text {i}' for i in range(12))
    plain = arguments | {'example_names': names, 'shown': ShownExamples(np.empty(0, int))}
    table = table_of(write(plain))
    assert 'text 7' in table and 'no picture' not in table and '<img' not in table
    assert 'report.write(run, shown=' in table
    rows = tuple((f'{i}.5',) for i in range(12))
    shown = ShownExamples(np.arange(12), columns=('width',), rows=rows)
    table = table_of(write(plain | {'shown': shown}))
    assert 'title="text 7"' in table and '<dt>' not in table
    assert 'report.write(run, shown=' not in table
    texts = tuple(f'text {i} goes on' for i in range(12))
    short = tuple(f'text {i}…' for i in range(12))
    shown = ShownExamples(np.arange(12), texts=texts)
    table = table_of(write(plain | {'shown': shown, 'example_names': short}))
    assert '<p>text 7 goes on</p>' in table and 'title="text 7' not in table


@pytest.mark.usefixtures('unsaved')
def test_thumbnails_of_influencers_and_pairs_have_names(arguments, write):
    text = write(arguments).read_text()
    for section in ('lowest-margin', 'pairs'):
        part = text[text.index(f'<section id="{section}">') :]
        part = part[: part.index('</section>')]
        images = re.findall(
            r'<img class="thumbnail"[^>]*>(?:</div>)?\s*(?:<span class="name">)?', part
        )
        named = [image for image in images if image.endswith('<span class="name">')]
        pictures = len(images) - (12 if section == 'lowest-margin' else 0)  # those of the targets
        assert len(named) == pictures > 0


@pytest.mark.usefixtures('unsaved')
def test_small_influences_keep_their_digits(arguments, overview, write):
    summary = overview.summary
    scaled = summary._replace(
        **{
            name: getattr(summary, name) * 1e-4
            for name in summary._fields
            if name.endswith(('value', 'values', 'error', 'errors', 'self_influence'))
        }
    )
    arguments['overview'] = dataclasses.replace(overview, summary=scaled)
    table = table_of(write(arguments | {'unit': 'squared unit of the label'}))
    assert '<b>0.00</b>' not in table and '± 0.00<' not in table
    assert 'nats' not in table


@pytest.mark.usefixtures('unsaved')
def test_a_caution_on_the_whole_run_stands_above_the_table(arguments, overview, write):
    summary = overview.summary
    shuffled = summary._replace(self_influence=np.zeros(12), mean=np.zeros(12))
    arguments['overview'] = dataclasses.replace(overview, summary=shuffled)
    table = table_of(write(arguments))
    assert table.index('class="warning"') < table.index('<table')
