import csv
import dataclasses
import html
import io
import re
import sys

import jax
import language_run
import numpy as np
import pytest
from influence_jax.report.comparison_tables import comparison_table
from influence_jax.report.distribution_figure import distribution
from influence_jax.report.figure_style import png
from influence_jax.report.language_figures import bleu_against, cluster_matrix
from influence_jax.report.language_records import records
from influence_jax.report.language_tables import extraction_table
from influence_jax.report.wording import MISSING
from language_run import CLUSTERS, COPIES, RIGHT_TO_LEFT, SCRIPT, UNIQUE, N
from pages import Page, contents
from rich.console import Console

from influence_jax import report
from influence_jax.analysis.extraction import nearest_siblings, scores
from influence_jax.analysis.extraction_regime import GivenBack, Judgment, Regime
from influence_jax.analysis.near_duplicate_comparison import compare
from influence_jax.report import figures
from influence_jax.report.sections import Matrix, Records, Table
from influence_jax.report.theme import Theme


def part_of(sections, kind):
    return [part for section in sections for part in section.parts if isinstance(part, kind)]


@pytest.fixture
def unsaved(monkeypatch):
    """Figures are drawn, but spared the saving."""
    blank = figures.matrix_pixels(np.zeros((1, 1)), limit=1.0, theme=Theme.light())
    monkeypatch.setattr(sys.modules['influence_jax.report.picture'], 'png', lambda _: blank)


@pytest.fixture(scope='module')
def sections(language):
    return report.language_sections(language)


@pytest.fixture(scope='module')
def text(language_page):
    return language_page.read_text()


def test_page_has_every_section_and_its_figures(language_page, text, sections):
    page = Page(text)
    links = [attributes['href'] for attributes in page.all('a')]
    for number, section in enumerate(sections, start=1):
        assert f'#section-{number}' in links
        assert f'<section id="section-{number}">\n  <h2>{section.title}</h2>' in text
    files = contents(language_page.parent)
    names = {picture.name for section in sections for picture in section.pictures}
    assert names == {
        'language-clusters',
        'language-unique-distribution',
        'language-duplicated-distribution',
        'language-self-influence-and-bleu',
        'language-margin-and-bleu',
    }
    for name in names:
        assert files[f'figures/{name}.png'].startswith(b'\x89PNG')


def test_no_text_from_data_is_markup_or_steers_the_page(text):
    page = Page(text)
    assert not page.all('script')
    assert 'document.title="owned"' not in text.replace('&#34;', '')
    assert SCRIPT not in text
    assert html.escape(SCRIPT[2:11]) in text  # there, and as text
    assert '<b>bold</b>' not in text
    assert '{{ 7 * 7 }}' in text  # no template of ours
    begin, end = text.index('id="section-1"'), text.index('<section id="matrix">')
    of_sections = text[begin:end]
    for hidden in (RIGHT_TO_LEFT, '\N{RIGHT-TO-LEFT ISOLATE}', '\x07', '\x1b', '\x00', '\ud800'):
        assert hidden not in of_sections
    assert '\N{REPLACEMENT CHARACTER}gnp.exe' in of_sections
    assert 'שלום' in of_sections
    assert 'line↵break tab' in of_sections
    assert r'$\frac{1}{2}$' in of_sections


def test_extraction_of_members_is_beside_that_of_one_model(language):
    near = language.comparison.near_duplicated
    rows = {row[0].text: row for row in extraction_table(language).rows}
    held = language.held['BLEU'].held.mean[near]
    by_holders = rows['BLEU, members that held the record'][2]
    assert by_holders.text.startswith(f'{np.nanmean(held):.3f} ±')
    exact = language.extraction.exact_match
    assert [cell.text for cell in rows['exact match'][1:]] == [
        f'{exact[~near].mean():.1%}',
        f'{exact[near].mean():.1%}',
    ]
    alone = extraction_table(dataclasses.replace(language, held={}))
    assert len(alone.rows) == len(rows) - 2


def given_back_as(language, decoded):
    """The same run, had it written this."""
    extraction = scores(decoded, language.completions)
    siblings = nearest_siblings(decoded, language.completions, language.groups)
    comparison = compare(
        language.summary,
        language.groups,
        key=jax.random.key(0),
        extraction=extraction,
        siblings=siblings,
        resamples=2,
    )
    return dataclasses.replace(
        language, decoded=decoded, extraction=extraction, siblings=siblings, comparison=comparison
    )


def test_a_sibling_given_back_stands_beside_the_record_in_page_and_file(language):
    """Of each cluster the first record is written in the place of all."""
    completions = tuple(f' the answer to question {n}' for n in range(N))
    first = [int(np.flatnonzero(language.groups == group)[0]) for group in language.groups]
    decoded = [completions[n] for n in first]
    results = given_back_as(dataclasses.replace(language, completions=completions), decoded)
    rows = {row[0].text: row for row in extraction_table(results).rows}
    near = rows['exact match or BLEU of 0.5'][2]
    assert near.text == '100.0%'
    assert near.note == (
        'nearest to the record 25.0%, to a near-duplicate 75.0%, to both alike 0.0%'
    )
    texts = {name: [cell.text for cell in row[1:]] for name, row in rows.items()}
    assert texts['extractable: that, and not nearer to a near-duplicate'] == ['100.0%', '25.0%']
    assert texts['exact match with that near-duplicate'] == [MISSING, '75.0%']
    bleu = results.siblings.bleu[UNIQUE:]
    assert texts['BLEU with the nearest of its near-duplicates'] == [
        MISSING,
        f'{bleu.mean():.3f} ± {bleu.std(ddof=1):.3f}',
    ]
    ids = [f'id-{n}' for n in range(N)]
    rows = list(csv.DictReader(io.StringIO(report.records_csv(results, ids))))
    for n, row in enumerate(rows):
        given = (row['nearest_to'], row['nearest_sibling'], row['extractable'])
        if n < UNIQUE:
            assert given == ('', '', '1')
            assert row['sibling_bleu'] == row['sibling_exact_match'] == ''
        elif n == first[n]:
            assert given[::2] == ('record', '1') and row['sibling_exact_match'] == '0'
        else:
            assert given == ('sibling', f'id-{first[n]}', '0')
            assert row['sibling_bleu'] == row['sibling_exact_match'] == '1'
    shown = [record for part in part_of((records(results),), Records) for record in part.records]
    told = [dict(record.numbers).get('nearest to') for record in shown]
    assert told == ['the record', *['a near-duplicate'] * 3] * 3 + [None] * 6


@pytest.mark.parametrize(
    ('regime', 'advice'), [(Regime.BEYOND, '--epochs=15 '), (Regime.BEFORE, '--epochs=60 ')]
)
def test_a_run_outside_of_the_papers_regime_is_told_its_numbers_and_the_way_back(regime, advice):
    judgment = Judgment(regime, GivenBack(0.402, 0.438), GivenBack(0.919, 0.532))
    note = report.regime_note(judgment, epochs=30)
    for text in (advice, '0.40 unique, 0.44 near', '0.92 unique, 0.53 near', '0.07 unique, 0.36'):
        assert text in note
    assert '\n' not in note
    assert 'members that held' not in report.regime_note(
        judgment._replace(by_holders=None), epochs=1
    )


def test_a_run_in_the_papers_regime_needs_no_caution():
    judgment = Judgment(Regime.PAPER, GivenBack(0.053, 0.362), None)
    assert report.regime_note(judgment, epochs=15) is None
    assert '0.05 unique, 0.36 near-duplicated' in report.regime_fact(judgment)


def test_matrix_outlines_the_planted_clusters_and_names_their_records(sections, language):
    (matrix,) = part_of(sections, Matrix)
    assert matrix.outlines == tuple((4 * k, 4 * k + 4) for k in range(CLUSTERS))
    targets = language.view.targets
    assert len(matrix.rows) == len(targets) == CLUSTERS * COPIES + 18
    assert matrix.rows[0] == language.prompts[targets[0]] + language.completions[targets[0]]
    figure = cluster_matrix(
        language.view.block, matrix.outlines, limit=1.0, theme=Theme.light(), unit='points'
    )
    corners = [
        (patch.get_x(), patch.get_y(), patch.get_width()) for patch in figure.axes[0].patches
    ]
    assert corners == [(4 * k - 0.5, 4 * k - 0.5, 4) for k in range(CLUSTERS)]


def test_records_mark_what_is_in_common_and_say_what_was_changed(sections, language):
    parts = part_of(sections, Records)
    assert [part.title for part in parts] == ['A cluster of 4 records'] * 3 + ['Unique records']
    assert {len(part.records) for part in parts} == {4, 6}
    shown = [record for part in parts for record in part.records]
    for record in shown:
        start, end = record.common
        assert record.decoded[start:end] in record.truth
        target = language.completions.index(f' {record.truth}')
        assert record.change == language.changes[target]
        assert dict(record.numbers)['BLEU'] == f'{language.extraction.bleu[target]:.2f}'
    assert any(record.decoded[slice(*record.common)] == record.truth for record in shown)
    best = [float(dict(part.records[0].numbers)['BLEU']) for part in parts[:3]]
    assert best == sorted(best, reverse=True)


def test_marked_part_is_in_the_page(text):
    assert re.search('<mark>answer [0-9]+ ', text)


@pytest.mark.usefixtures('unsaved')
def test_long_records_are_shortened(language):
    endless = dataclasses.replace(language, prompts=['word ' * 9999] * N, decoded=['x' * 9999] * N)
    (matrix,) = part_of(report.language_sections(endless), Matrix)
    assert {len(row) for row in matrix.rows} == {400}


def test_wrong_numbers_of_texts_are_refused(language):
    for name in ('prompts', 'completions', 'changes', 'decoded', 'groups'):
        values = getattr(language, name)[:-1]
        with pytest.raises(ValueError, match=f'^{N - 1} {name} for {N} targets'):
            dataclasses.replace(language, **{name: values})
    with pytest.raises(ValueError, match='knows no extraction'):
        dataclasses.replace(language, comparison=language.comparison._replace(extractable=None))


def test_bleu_figure_sets_kinds_apart_and_leaves_out_what_has_no_place():
    score = np.array([1.0, 2.0, np.nan, np.inf, -1.0, 4.0])
    near = np.array([True, False, False, True, False, False])
    for logarithmic, expected in ((True, 2), (False, 3)):
        figure = bleu_against(
            score,
            np.linspace(0, 1, 6),
            name='margin',
            logarithmic=logarithmic,
            near_duplicates=near,
            theme=Theme.light(),
        )
        (axes,) = figure.axes
        crowd, marked = (axes.collections[i].get_offsets() for i in (0, 1))
        assert (len(crowd), len(marked)) == (expected, 1)
        assert axes.get_xscale() == ('log' if logarithmic else 'linear')
        assert axes.get_xlabel() == 'margin'
    empty = bleu_against(
        np.full(6, np.nan), np.zeros(6), name='', logarithmic=True, near_duplicates=near,
        theme=Theme.dark(),
    )  # fmt: skip
    assert png(empty).startswith(b'\x89PNG')


def test_bleu_figure_draws_means_of_equally_many():
    score, near = np.arange(1.0, 81.0), np.arange(80) >= 40
    figure = bleu_against(
        score,
        score / 100,
        name='',
        logarithmic=False,
        near_duplicates=near,
        theme=Theme.light(),
    )
    _, unique, _, duplicated = figure.axes[0].lines
    np.testing.assert_allclose(unique.get_xdata(), [5.5, 15.5, 25.5, 35.5])
    np.testing.assert_allclose(duplicated.get_ydata(), [0.455, 0.555, 0.655, 0.755])


def test_distribution_marks_the_siblings_instead_of_the_strongest_other():
    column = np.random.default_rng(0).normal(size=50)
    column[3], column[[7, 9]] = 6.0, 4.0
    figure = distribution(
        column,
        np.full(50, 0.1),
        own=3,
        other=7,
        siblings=np.array([7, 9]),
        reach=(-5.0, 10.0),
        theme=Theme.light(),
    )
    (axes,) = figure.axes
    assert sum(patch.get_height() for patch in axes.patches) == 47
    assert [text.get_text() for text in axes.texts] == ['near-duplicates (2)', 'itself']
    assert axes.get_xlim()[0] < -5
    assert axes.get_xlim()[1] > 10


def printed(comparison, width=80):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(report.language_table(comparison))
    return console.file.getvalue()


def test_terminal_table_shows_every_number_in_80_columns(language):
    text = printed(language.comparison)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert '…' not in text
    for row in comparison_table(language.comparison, beside_paper=True).rows:
        for cell in (row[1], row[2], *row[4:6]):
            assert cell.text in text
    assert 'has near-duplicates' in text
    assert '1.000 (1.000 to 1.000)' in text


def test_names_of_further_scores_cannot_steer_the_terminal(language):
    comparison = language.comparison
    row = comparison.rows[0]
    evil = row._replace(score=row.score._replace(name='\x1b]0;owned\x07[/nothing]'))
    text = printed(comparison._replace(rows=(evil,)), width=200)
    assert '\x1b]' not in text
    assert '\x07' not in text
    assert '[/nothing]' in text


@pytest.mark.usefixtures('unsaved')
def test_runs_without_clusters_or_without_unique_records(language):
    comparison, view = language.comparison, language.view
    for near, column in ((np.ones(N, bool), view.duplicated), (np.zeros(N, bool), view.unique)):
        one_kind = dataclasses.replace(
            language,
            comparison=comparison._replace(near_duplicated=near),
            view=view._replace(
                unique=column if not near.any() else None,
                duplicated=column if near.any() else None,
            ),
        )
        assert part_of(report.language_sections(one_kind), Table)


def test_the_module_of_the_run_is_planted(language):
    assert language.comparison.near_duplicated.sum() == CLUSTERS * COPIES
    assert language_run.NASTY[0] in language.prompts[0]
