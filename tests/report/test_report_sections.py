import dataclasses

import numpy as np
import pytest
from pages import Page, contents

from influence_jax.analysis.resampling import Interval
from influence_jax.formatting import MISSING
from influence_jax.report import matrix
from influence_jax.report.sections import (
    Cell,
    Matrix,
    Plate,
    Plates,
    Record,
    Records,
    Section,
    Table,
    check_names,
    filled,
)
from influence_jax.report.theme import Picture, Theme
from influence_jax.text import clean

BLANK = matrix.matrix_pixels(np.zeros((1, 1)), limit=1.0, theme=Theme.light())


def a_picture(name, alt='a picture'):
    return Picture(name, BLANK, BLANK, alt)


def everything(words):
    """A section of every part, each text of it the same."""
    record = Record(words, words, words, words, (1, 3), [(words, words)])
    cells = [Cell(words, words, Interval(0.7, 0.6, 0.8)), Cell(words)]
    return Section(
        words,
        words,
        [
            Table(words, [words, words], [cells], groups=[('', 1), (words, 1)]),
            Plates([Plate(words, words, a_picture('plate', words))]),
            Matrix(a_picture('pixels', words), a_picture('drawn', words), [words], [(0, 1)], '1'),
            Records(words, [record]),
        ],
    )


@pytest.mark.usefixtures('unsaved')
def test_no_text_of_any_part_is_markup(arguments, hostile, write):
    page = write(arguments | {'sections': (everything(hostile),)})
    text = page.read_text()
    assert hostile not in text
    begin, end = text.index('<section id="section-1"'), text.index('<section id="matrix">')
    parsed = Page(text[begin:end])
    # Marked in two places, the record's text is the only one not in one piece.
    assert text[begin:end].count('&lt;script&gt;') >= 17
    allowed = (
        'section h2 p div table caption thead tbody tr th td span i article h3 picture source img '
        'ol li bdi b mark dl dt dd'
    )
    assert {tag for tag, _ in parsed.elements} <= set(allowed.split())
    Page(text)


@pytest.mark.usefixtures('unsaved')
def test_nothing_unseen_is_in_any_part(arguments, write):
    arguments['example_names'] = arguments['example_labels'] = ('',) * 12
    hidden = '\x07\x1b\N{RIGHT-TO-LEFT OVERRIDE}'
    sections = (everything(f'a{hidden}b'),)
    # What stands instead of a picture is never shown.
    for part in sections[0].parts[1:3]:
        assert hidden in part.pictures[0].alt
    text = write(arguments | {'sections': sections}).read_text()
    text = text.replace(f'alt="a{hidden}b"', '')
    assert not set(hidden) & set(text)
    assert text.count('a\ufffd\ufffd\ufffdb') >= 16


@pytest.mark.usefixtures('unsaved')
def test_pictures_of_sections_are_written_and_shown(arguments, write):
    page = write(arguments | {'sections': (everything('words'), Section('another', 'one', []))})
    files = contents(page.parent)
    assert files['figures/plate.png'] == files['figures/drawn.png'] == BLANK
    assert 'figures/pixels.png' not in files
    text = page.read_text()
    assert '<a href="#section-2">another</a>' in text
    assert text.index('id="section-1"') < text.index('id="section-2"') < text.index('id="matrix"')
    assert text.count('alt="words"') == 2
    assert 'left: 70.0%' in text
    assert 'left: 60.0%; right: 20.0%' in text
    assert '--start: 0; --end: 1' in text


def test_page_without_sections_is_as_it_was(arguments, written, write):
    again = write(arguments | {'sections': ()})
    assert contents(again.parent) == contents(written.parent)
    text = written.read_text()
    assert 'section-1' not in text
    assert '.gauge' not in text


@pytest.mark.usefixtures('unsaved')
@pytest.mark.parametrize('name', ['plate', 'convergence', '../outside', 'A', '', 'a.b', 'a\n'])
def test_pictures_that_would_replace_another_file_are_refused(tmp_path, arguments, name, write):
    parts = [Plates([Plate('', '', a_picture(one)) for one in ('plate', name)])]
    with pytest.raises(ValueError, match='cannot name a picture') as refused:
        write(arguments | {'sections': (Section('title', 'lead', parts),)})
    assert '\n' not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_plain_names_are_accepted():
    check_names([a_picture('a-1'), a_picture('a-2')])


def test_rows_and_columns_without_anything_are_left_out():
    rows = [[Cell('a'), Cell('1'), Cell('')], [Cell('b'), Cell(MISSING), Cell('')]]
    table = filled(Table('caption', ['', 'x', 'y'], rows))
    assert (table.header, table.rows) == (['', 'x'], [[Cell('a'), Cell('1')]])
    with pytest.raises(ValueError, match='groups'):
        filled(dataclasses.replace(table, groups=[('', 2)]))


def test_rows_must_fit_the_header():
    with pytest.raises(ValueError, match='a row of 1 cells under 2 columns'):
        Table('caption', ['a', 'b'], [[Cell('1')]])


@pytest.mark.usefixtures('unsaved')
def test_halves_of_characters_in_any_text_do_not_stop_the_writing(arguments, write):
    arguments['title'] = 'half \ud800'
    arguments['example_names'] = ('\udfff',) * 12
    text = write(arguments | {'sections': (everything('\ud800'),)}).read_text()
    assert 'half \ufffd' in text
    Page(text)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('plain <b> $x$ é שלום 日本', 'plain <b> $x$ é שלום 日本'),
        ('a\nb\r\tc\N{NO-BREAK SPACE}d', 'a↵b↵ c d'),
        ('\x00\x1b\x7f\N{RIGHT-TO-LEFT OVERRIDE}\N{ZERO WIDTH SPACE}\ud800', '\ufffd' * 6),
        ('\N{LINE SEPARATOR}', ' '),
        ('', ''),
    ],
)
def test_cleaned_text(text, expected):
    assert clean(text) == expected


def test_sections_are_data(written):
    assert dataclasses.is_dataclass(Section)
    assert everything('a').pictures == (a_picture('plate', 'a'), a_picture('drawn', 'a'))
