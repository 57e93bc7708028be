import csv
import dataclasses
import html
import io
import re

import language_run
import numpy as np
import pytest
from language_run import CLUSTERS, COPIES, REFERENCE, RIGHT_TO_LEFT, SCRIPT, UNIQUE, N
from pages import Page, contents

from influence_jax import report
from influence_jax.analysis.extraction_regime import Judgment, MeanBleu, Regime
from influence_jax.formatting import MISSING
from influence_jax.report import figures
from influence_jax.report.comparison import comparison_sections
from influence_jax.report.extraction import extraction_table, record_section
from influence_jax.report.facts import regime_fact, regime_note
from influence_jax.report.sections import Matrix, Records, Table
from influence_jax.report.tables import records_csv
from influence_jax.report.theme import Theme


def part_of(sections, kind):
    return [part for section in sections for part in section.parts if isinstance(part, kind)]


@pytest.fixture(scope='module')
def sections(language):
    return tuple(comparison_sections(language))


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
    rows = {row[0].text: row for row in extraction_table(language.text, language.comparison).rows}
    held = language.text.by_members['BLEU'].held.mean[near]
    by_holders = rows['BLEU, members that held the record'][2]
    assert by_holders.text.startswith(f'{np.nanmean(held):.3f} ±')
    exact = language.text.exact_match
    assert [cell.text for cell in rows['exact match'][1:]] == [
        f'{exact[~near].mean():.1%}',
        f'{exact[near].mean():.1%}',
    ]
    alone = extraction_table(language.text._replace(by_members={}), language.comparison)
    assert len(alone.rows) == len(rows) - 2


def test_an_extracted_sibling_stands_beside_the_record_in_page_and_file(language):
    """Of each cluster the first record is written in the place of all."""
    completions = tuple(f' the answer to question {n}' for n in range(N))
    groups = language.comparison.groups
    first = [int(np.flatnonzero(groups == group)[0]) for group in groups]
    decoded = tuple(completions[n] for n in first)
    results = language_run.results(written=decoded, completions=completions)
    rows = {row[0].text: row for row in extraction_table(results.text, results.comparison).rows}
    near = rows['exact match or BLEU of 0.5'][2]
    assert near.text == '100.0%'
    assert near.note == (
        'nearest to the record 25.0%, to a near-duplicate 75.0%, to both alike 0.0%'
    )
    texts = {name: [cell.text for cell in row[1:]] for name, row in rows.items()}
    assert texts['extractable: that, and not nearer to a near-duplicate'] == ['100.0%', '25.0%']
    assert texts['exact match with that near-duplicate'] == [MISSING, '75.0%']
    bleu = results.text.siblings.bleu[UNIQUE:]
    assert texts['BLEU with the nearest of its near-duplicates'] == [
        MISSING,
        f'{bleu.mean():.3f} ± {bleu.std(ddof=1):.3f}',
    ]
    rows = list(csv.DictReader(io.StringIO(records_csv(results))))
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
    section = record_section(results, results.text, results.comparison)
    shown = [record for part in part_of((section,), Records) for record in part.records]
    nearest = [dict(record.numbers).get('nearest to') for record in shown]
    assert nearest == ['the record', *['a near-duplicate'] * 3] * 3 + [None] * 6


@pytest.mark.parametrize(
    ('regime', 'advice'), [(Regime.BEYOND, '--epochs=15 '), (Regime.BEFORE, '--epochs=60 ')]
)
def test_outside_of_the_papers_regime_a_note_has_numbers_and_advice(regime, advice):
    judgment = Judgment(regime, MeanBleu(0.402, 0.438), MeanBleu(0.919, 0.532))
    note = regime_note(judgment, epochs=30, reference=REFERENCE)
    for text in (advice, '0.40 unique, 0.44 near', '0.92 unique, 0.53 near', '0.07 unique, 0.36'):
        assert text in note
    assert '\n' not in note
    plain = regime_note(judgment._replace(by_holders=None))
    assert 'members that held' not in plain
    assert "the paper's BLEU" not in plain and '--epochs' not in plain


def test_a_run_in_the_papers_regime_needs_no_caution():
    judgment = Judgment(Regime.PAPER, MeanBleu(0.053, 0.362), None)
    assert regime_note(judgment, epochs=15) is None
    assert '0.05 unique, 0.36 near-duplicated' in regime_fact(judgment)


def test_matrix_outlines_the_planted_clusters_and_names_their_records(sections, language):
    (matrix,) = part_of(sections, Matrix)
    assert matrix.outlines == tuple((4 * k, 4 * k + 4) for k in range(CLUSTERS))
    view, text = language.text.view, language.text
    targets = view.targets
    assert len(matrix.rows) == len(targets) == CLUSTERS * COPIES + 18
    assert matrix.rows[0] == text.prompts[targets[0]] + text.completions[targets[0]]
    figure = figures.matrix_block(
        view.block, outlines=matrix.outlines, limit=1.0, theme=Theme.light(), unit='points'
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
        target = language.text.completions.index(f' {record.truth}')
        assert record.change == language.text.changes[target]
        assert dict(record.numbers)['BLEU'] == f'{language.text.bleu[target]:.2f}'
    assert any(record.decoded[slice(*record.common)] == record.truth for record in shown)
    best = [float(dict(part.records[0].numbers)['BLEU']) for part in parts[:3]]
    assert best == sorted(best, reverse=True)


def test_marked_part_is_in_the_page(text):
    assert re.search('<mark>answer [0-9]+ ', text)


@pytest.mark.usefixtures('unsaved')
def test_long_records_are_shortened(language):
    text = language.text._replace(prompts=('word ' * 9999,) * N, decoded=('x' * 9999,) * N)
    (matrix,) = part_of(comparison_sections(dataclasses.replace(language, text=text)), Matrix)
    assert {len(row) for row in matrix.rows} == {400}


def test_wrong_numbers_of_texts_are_refused(language):
    for name in ('prompts', 'completions', 'changes', 'decoded'):
        text = language.text._replace(**{name: getattr(language.text, name)[:-1]})
        with pytest.raises(ValueError, match=f'needs {N} {name}, one for each, got {N - 1}'):
            dataclasses.replace(language, text=text)
    with pytest.raises(ValueError, match='extractable'):
        dataclasses.replace(language, comparison=language.comparison._replace(extractable=None))


@pytest.mark.usefixtures('unsaved')
def test_runs_without_clusters_or_without_unique_records(language):
    comparison, view = language.comparison, language.text.view
    for near, column in ((np.ones(N, bool), view.duplicated), (np.zeros(N, bool), view.unique)):
        one = view._replace(
            unique=column if not near.any() else None, duplicated=column if near.any() else None
        )
        one_kind = dataclasses.replace(
            language,
            comparison=comparison._replace(near_duplicated=near),
            text=language.text._replace(view=one),
        )
        assert part_of(comparison_sections(one_kind), Table)


@pytest.mark.usefixtures('unsaved')
def test_records_without_near_duplicates_have_no_section_or_column_of_them(language, tmp_path):
    """As a user's own texts are, to which nothing is done."""
    plain = language_run.results(reference=None, groups=np.arange(N), changes=('',) * N)
    sections = tuple(comparison_sections(plain))
    titles = [section.title for section in sections]
    assert titles[0] == 'What is extracted' and titles[-1] == 'Records, and what was extracted'
    for section in sections:
        for table in (part for part in section.parts if isinstance(part, Table)):
            assert 'near' not in ' '.join(table.header)
            for place in range(1, len(table.header)):
                assert any(row[place].text not in ('', MISSING) for row in table.rows)
    page = report.save(plain, tmp_path / 'report')
    assert 'near-duplicated' not in page.read_text().split('<section id="words">')[0]


def test_the_run_holds_clusters_and_hostile_texts(language):
    assert language.comparison.near_duplicated.sum() == CLUSTERS * COPIES
    assert language_run.NASTY[0] in language.text.prompts[0]
