"""Unique against near-duplicated, of texts beside the paper and of images without it."""

import io

import numpy as np
import pytest
from language_run import CLUSTERS, COPIES, REFERENCE, UNIQUE
from rich.console import Console, Group

from influence_jax.report.comparison import (
    auroc_section,
    auroc_table,
    comparison_table,
    kinds_section,
)
from influence_jax.report.tables import terminal_comparison

INJECTED = CLUSTERS * COPIES


@pytest.fixture(scope='module')
def of_images(language):
    """As of images: nothing was decoded."""
    found = language.comparison
    scores = (s._replace(extractable_auroc=None) for s in found.scores if s.name != 'BLEU')
    return found._replace(extractable=None, scores=tuple(scores))


def test_table_gives_the_numbers_of_this_run_beside_those_of_the_reference(language):
    table = comparison_table(language.comparison, reference=REFERENCE, unit='nats')
    rows = {row[0].text: row for row in table.rows}
    unique = language.summary.self_influence[:UNIQUE]
    cells = rows['self-influence']
    assert cells[1].text == f'{unique.mean():.3f} ± {unique.std(ddof=1):.3f}'
    assert cells[1].note == f'median {np.median(unique):.3f}'
    duplicated = language.summary.self_influence[UNIQUE:]
    assert cells[3].text == f'{unique.mean() / duplicated.mean():.2f}'
    assert cells[3].note == f'{np.median(unique) / np.median(duplicated):.2f}'
    published = {name: [cell.text for cell in row[4:]] for name, row in rows.items()}
    assert published['self-influence'] == ['1.410 ± 0.568', '0.495 ± 0.133', '2.85']
    assert published['BLEU'] == ['0.070 ± 0.142', '0.363 ± 0.313', '0.19']
    assert published['margin'] == ['9.1 ± 7.1', '1.3 ± 0.3', '7.00']
    assert published['floored margin'] == ['', '', '']
    assert sum(span for _, span in table.groups) == len(table.header)
    assert REFERENCE.source in table.caption


def test_table_without_a_reference_has_the_same_numbers_and_no_paper(language, of_images):
    table = comparison_table(of_images, reference=None, unit='points')
    beside = comparison_table(language.comparison, reference=REFERENCE, unit='points')
    assert table.header == beside.header[:4]
    assert not table.groups
    rows = {row[0].text: row for row in beside.rows}
    assert [row[0].text for row in table.rows] == [name for name in rows if name != 'BLEU']
    for row in table.rows:
        assert list(row) == rows[row[0].text][:4]
    assert 'paper' not in table.caption.lower()
    assert 'points' in table.caption


def test_auroc_table_names_how_many_are_sought(language):
    table = auroc_table(language.comparison)
    assert table.header[2:] == [
        f'has near-duplicates ({INJECTED})',
        f'extractable ({language.comparison.extractable.sum()})',
    ]
    rows = {row[0].text: row for row in table.rows}
    assert rows['margin'][2].text == '1.000'
    assert rows['margin'][2].interval.high == 1
    assert rows['BLEU'][3].text == ''  # it is what is sought


def test_auroc_table_of_images_does_not_mention_extraction(of_images):
    table = auroc_table(of_images)
    assert table.header[2:] == [f'has near-duplicates ({INJECTED})']
    assert 'xtract' not in table.caption
    assert {row[0].text: row[2].text for row in table.rows}['margin'] == '1.000'
    assert [part.header for part in auroc_section(of_images).parts] == [table.header]


def test_section_says_how_many_were_injected(language):
    section = kinds_section(language, language.comparison)
    assert section.title == 'Unique and near-duplicated records'
    assert f'{UNIQUE} records without and {INJECTED} with near-duplicates' in section.lead
    assert f'in {CLUSTERS} clusters' in section.lead


def printed(comparison, reference, width=80):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(Group(*terminal_comparison(comparison, reference=reference, unit='nats')))
    return console.file.getvalue()


def test_terminal_shows_every_number_in_80_columns(language):
    text = printed(language.comparison, REFERENCE)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert '…' not in text
    for row in comparison_table(language.comparison, reference=REFERENCE, unit='').rows:
        for cell in (row[1], row[2], *row[4:6]):
            assert cell.text in text
    assert 'has near-duplicates' in text
    assert '1.000 (1.000 to 1.000)' in text


def test_terminal_table_of_images_leaves_out_what_is_of_texts(of_images):
    text = printed(of_images, None)
    for of_texts in ('paper', 'extractable', 'BLEU', '…'):
        assert of_texts not in text
    for row in comparison_table(of_images, reference=None, unit='').rows:
        assert row[1].text in text and row[2].text in text
    assert 'has near-duplicates' in text


def test_names_of_scores_cannot_steer_the_terminal(language):
    comparison = language.comparison
    evil = comparison.scores[0]._replace(name='\x1b]0;owned\x07[/nothing]')
    text = printed(comparison._replace(scores=(evil,)), REFERENCE, width=200)
    assert '\x1b]' not in text
    assert '\x07' not in text
    assert '[/nothing]' in text
