"""Unique against near-duplicated, of texts beside the paper and of images without it."""

import io

import jax
import numpy as np
import pytest
from influence_jax.report.comparison_tables import comparison_table, told_table
from language_run import CLUSTERS, COPIES, UNIQUE
from rich.console import Console

from influence_jax import report
from influence_jax.analysis.near_duplicate_comparison import compare

PLANTED = CLUSTERS * COPIES


@pytest.fixture(scope='module')
def comparison(language):
    """As of images: nothing was decoded."""
    return compare(language.summary, language.groups, key=jax.random.key(0), resamples=20)


def test_table_gives_the_numbers_of_this_run_beside_those_of_the_paper(language):
    table = comparison_table(language.comparison, beside_paper=True)
    rows = {row[0].text: row for row in table.rows}
    unique = language.summary.self_influence[:UNIQUE]
    cells = rows['self-influence']
    assert cells[1].text == f'{unique.mean():.3f} ± {unique.std(ddof=1):.3f}'
    assert cells[1].note == f'median {np.median(unique):.3f}'
    duplicated = language.summary.self_influence[UNIQUE:]
    assert cells[3].text == f'{unique.mean() / duplicated.mean():.2f}'
    assert cells[3].note == f'{np.median(unique) / np.median(duplicated):.2f}'
    paper = {name: [cell.text for cell in row[4:]] for name, row in rows.items()}
    assert paper['self-influence'] == ['1.410 ± 0.568', '0.495 ± 0.133', '2.85']
    assert paper['BLEU'] == ['0.070 ± 0.142', '0.363 ± 0.313', '0.19']
    assert paper['margin'] == ['9.1 ± 7.1', '1.3 ± 0.3', '7.00']
    assert paper['floored margin'] == ['', '', '']
    assert sum(span for _, span in table.groups) == len(table.header)


def test_table_of_images_has_the_same_numbers_and_no_paper(language, comparison):
    table = comparison_table(comparison, beside_paper=False, unit='points')
    with_paper = comparison_table(language.comparison, beside_paper=True)
    assert table.header == with_paper.header[:4]
    assert not table.groups
    rows = {row[0].text: row for row in with_paper.rows}
    assert [row[0].text for row in table.rows] == [name for name in rows if name != 'BLEU']
    for row in table.rows:
        assert list(row) == rows[row[0].text][:4]
    assert 'paper' not in table.caption.lower()
    assert 'points' in table.caption


def test_auroc_table_names_how_many_are_sought(language):
    table = told_table(language.comparison)
    assert table.header[2:] == [
        f'has near-duplicates ({CLUSTERS * COPIES})',
        f'extractable ({language.comparison.extractable.sum()})',
    ]
    rows = {row[0].text: row for row in table.rows}
    assert rows['margin'][2].text == '1.000'
    assert rows['margin'][2].interval.high == 1
    assert rows['BLEU'][3].text == ''  # it is what is sought


def test_auroc_table_of_images_speaks_of_no_extraction(comparison):
    table = told_table(comparison)
    assert table.header[2:] == [f'has near-duplicates ({PLANTED})']
    assert 'xtract' not in table.caption
    assert {row[0].text: row[2].text for row in table.rows}['margin'] == '1.000'


def test_sections_of_images_say_how_many_were_planted(language, comparison):
    sections = report.image_sections(comparison, language.groups)
    assert [section.title for section in sections] == [
        'Unique and near-duplicated images',
        'Which score tells them',
    ]
    assert f'{UNIQUE} images written once and {PLANTED} in {CLUSTERS} clusters' in sections[0].lead
    assert [len(section.parts) for section in sections] == [1, 1]


def test_terminal_table_of_images_leaves_out_what_is_of_texts(comparison):
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(report.terminal_comparison(comparison, beside_paper=False))
    text = console.file.getvalue()
    for of_texts in ('paper', 'extractable', 'BLEU', '…'):
        assert of_texts not in text
    for row in comparison_table(comparison, beside_paper=False).rows:
        assert row[1].text in text and row[2].text in text
    assert 'has near-duplicates' in text
