import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from influence_jax import report
from influence_jax.analysis.verdicts import Verdict
from influence_jax.report import Results


def rows_of(page, name='targets.csv'):
    with (page.parent / name).open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def test_targets_csv_gives_back_what_went_in(written, overview, hostile):
    rows, summary = rows_of(written), overview.summary
    assert [row['id'] for row in rows] == [f'id-{i}' for i in range(12)]
    assert rows[0]['name'] == rows[0]['label'] == hostile
    assert rows[1]['name'] == 'comma, "quote"\nline'
    for column, expected in (
        ('self_influence', summary.self_influence),
        ('self_influence_standard_error', summary.self_standard_error),
        ('self_influence_effective_members', summary.effective_members),
        ('margin', summary.margin),
        ('floored_margin', summary.floored_margin),
        ('z_margin', summary.z_margin),
        ('strongest_other_influence', summary.other_value),
        ('strongest_other_standard_error', summary.other_standard_error),
        ('strongest_other_stands_out', summary.other_stands_out),
        ('strongest_other_cross_fitted', summary.other_cross_fitted),
        ('column_mean', summary.mean),
        ('column_standard_deviation', summary.standard_deviation),
        ('column_skewness', summary.skewness),
        ('column_kurtosis', summary.kurtosis),
        ('column_noise', summary.null_standard_error),
        ('column_quantile_0.5', summary.quantiles[:, list(summary.quantile_levels).index(0.5)]),
        ('mean_loss', np.linspace(0, 1, 12)),
        ('near_duplicate', [1, 1] + [0] * 10),
    ):
        np.testing.assert_allclose([float(row[column]) for row in rows], expected, rtol=1e-5)
    assert [row['strongest_other'] for row in rows[:2]] == ['id-1', 'id-0']
    stored = Results.load(written.parent)
    assert [row['verdict'] for row in rows] == [
        Verdict(code).name.lower() for code in stored.verdicts
    ]


def test_pairs_csv_gives_back_what_went_in(written, overview):
    rows, pairs = rows_of(written, 'pairs.csv'), overview.summary.pairs
    assert [row['example'] for row in rows] == [f'id-{i}' for i in pairs.examples]
    assert [row['target'] for row in rows] == [f'id-{t}' for t in pairs.targets]
    for column, expected in (
        ('influence', pairs.values),
        ('standard_error', pairs.standard_errors),
        ('z', pairs.values / pairs.standard_errors),
        ('p_value', pairs.p_values),
        ('interval_low', pairs.low),
        ('interval_high', pairs.high),
        ('influence_cross_fitted', pairs.cross_fitted),
    ):
        np.testing.assert_allclose([float(row[column]) for row in rows], expected, rtol=1e-5)
    assert min(float(row['influence']) for row in rows) < 0


@pytest.mark.usefixtures('unsaved')
def test_no_cell_of_text_is_calculated_and_all_columns_are_documented(arguments, write):
    texts = ('=1+1', '+1', '-1', '@sum', '\t=1', '\r=1', '\n=1', 'a=1', '', ' ', '7', "'x")
    ids = tuple(f'{text}{i}' for i, text in enumerate(texts))
    arguments |= {'example_names': texts, 'example_labels': texts}
    arguments |= {'example_ids': ids, 'target_ids': ids}
    page = write(arguments)
    rows = rows_of(page)
    expected = [f"'{text}" if i < 7 else text for i, text in enumerate(texts)]
    assert [row['name'] for row in rows] == expected
    assert [row['label'] for row in rows] == expected
    documented = (Path(__file__).parents[2] / 'docs' / 'tables.md').read_text()
    for name in ('targets.csv', 'pairs.csv'):
        for row in rows_of(page, name):
            for column, cell in row.items():
                if cell.startswith(('=', '+', '-', '@', '\t', '\r', '\n')):
                    float(cell)
                assert f'`{re.sub("quantile_.*", "quantile_Q", column)}`' in documented


FORMULAS = [
    '\uff1d1',
    '\uff0b1',
    '\uff0d1',
    '\uff20a',
    '\ufe661',
    '\u207a1',
    ' =1',
    '\u3000\uff1d1',
]


@pytest.mark.usefixtures('unsaved')
def test_formulas_in_wide_characters_or_after_spaces_are_guarded(arguments, write):
    arguments |= {'example_names': tuple((FORMULAS * 2)[:12])}
    page = write(arguments)
    for row, name in zip(rows_of(page), (FORMULAS * 2)[:12], strict=True):
        assert row['name'] == "'" + name.replace('\u3000', ' ')


@pytest.mark.usefixtures('unsaved')
def test_long_ids_are_short_in_the_tables_and_stay_different(arguments, write):
    ids = tuple(f'{"x" * 2000}{i}' for i in range(12))
    arguments |= {'example_ids': ids, 'target_ids': ids}
    page = write(arguments)
    found = [row['id'] for row in rows_of(page)]
    assert len(set(found)) == 12
    assert all(len(one) < 1100 for one in found)
    assert {row['strongest_other'] for row in rows_of(page)} <= set(found)


@pytest.mark.usefixtures('unsaved')
def test_targets_csv_is_empty_where_nothing_is_known(arguments, foreign_overview, write):
    arguments |= {'overview': foreign_overview, 'near_duplicates': None, 'mean_loss': None}
    rows = rows_of(write(arguments))
    assert {row['self_influence'] for row in rows} == {''}
    assert rows[0]['name'] == 'id-0'
    assert rows[0]['label'] == ''
    assert not {'near_duplicate', 'mean_loss'} & set(rows[0])


@pytest.fixture
def printed(arguments):
    def printed(names, width=80):
        results = Results(**arguments | {'example_names': tuple(names), 'facts': {}})
        console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
        console.print(report.terminal(results))
        return console.file.getvalue()

    return printed


def test_terminal_table_shows_every_number_in_80_columns(overview, printed):
    text = printed([f'a rather long name of example {i}' for i in range(12)])
    assert max(len(line) for line in text.splitlines()) <= 80
    summary, target = overview.summary, int(overview.lowest_margin[0])
    for value, error in (
        (summary.self_influence[target], summary.self_standard_error[target]),
        (summary.other_value[target], summary.other_standard_error[target]),
    ):
        assert f'{value:.2f} ± {error:.2f}' in text
    assert f'{summary.margin[target]:.2f}' in text


@pytest.mark.parametrize('name', ['[red]name[/red]', '[/nothing]'])
def test_terminal_table_takes_names_literally(printed, name):
    assert name in printed([name] * 12)


def test_names_cannot_steer_the_terminal(printed):
    text = printed(['\x1b]0;owned\x07\x1b[2Jname\r\n'] * 12)
    assert not {'\x1b]', '\x1b[2J', '\x07', '\r'} & {
        text[i : i + n] for i in range(len(text)) for n in (1, 2, 4)
    }
    assert 'name' in text
