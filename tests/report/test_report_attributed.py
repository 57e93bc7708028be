"""Scores of attribution on the page, in the file and on the terminal, beside the ensemble's."""

import csv
import io

import numpy as np
import pytest
from rich.console import Console

from influence_jax import analysis, report
from influence_jax.estimators import Columns, joint_margin
from influence_jax.report import Results
from influence_jax.report.attributed import attributed, attribution_rows
from influence_jax.report.tables import attribution_csv, terminal

N = 12


@pytest.fixture
def scores():
    """One of the strongest examples is the target itself; 1 and 0 are each other's next."""
    scores = 0.1 * np.random.default_rng(3).random((N, N)) + 2.0 * np.eye(N)
    scores[0, 1] = scores[1, 0] = 1.9
    return scores


@pytest.fixture
def results(arguments, scores):
    columns = Columns.of_matrix(scores, name='cosine', title='gradient cosine <b>', unit='')
    return Results(**arguments, attributed=(attributed(columns, np.arange(N)),))


def test_what_is_kept_of_scores(results, scores):
    (kept,) = results.attributed
    np.testing.assert_allclose(kept.self_score, np.diag(scores), rtol=1e-6)
    ordered = np.sort(scores, axis=0)[::-1]
    np.testing.assert_allclose(kept.margin, ordered[0] / ordered[1], rtol=1e-5)
    off = np.where(np.eye(N, dtype=bool), -np.inf, scores)
    np.testing.assert_array_equal(kept.strongest_other, off.argmax(0))
    np.testing.assert_array_equal(kept.examples[:, 0], scores.argmax(0))
    with pytest.raises(ValueError, match='12 targets, and the run 3'):
        attributed(Columns.of_matrix(scores), np.arange(3))


def test_rows_compare_methods_with_the_ensemble(results):
    ensemble, cosine, _ = attribution_rows(results)
    assert ensemble[0].startswith('ensemble')
    assert cosine[0] == 'gradient cosine <b>'
    assert cosine[2] == '1.000'  # low margins mark the two near-duplicates, 0 and 1
    summary, (kept,) = results.summary, results.attributed
    same = (kept.strongest_other == summary.strongest_other)[summary.other_stands_out].mean()
    assert cosine[3] == f'{same:.0%}'


def test_the_joint_margin_is_that_of_ensemble_and_methods(results):
    (kept,) = results.attributed
    joint = joint_margin(results.summary.margin, kept.margin)
    *_, (name, median, auroc, *_) = attribution_rows(results)
    assert 'joint margin' in name
    assert float(median) == pytest.approx(np.sort(joint)[N // 2], abs=0.01)
    expected = analysis.auroc(-joint, results.near_duplicates)
    assert float(auroc) == pytest.approx(expected, abs=1e-3)
    lines = csv.DictReader(io.StringIO(attribution_csv(results)))
    np.testing.assert_allclose([float(line['joint_margin']) for line in lines], joint, rtol=1e-4)


def test_the_file_has_a_line_a_target(results, scores):
    lines = list(csv.DictReader(io.StringIO(attribution_csv(results))))
    assert len(lines) == N
    assert lines[0]['id'] == 'id-0'
    assert lines[0]['cosine_strongest_other'] == 'id-1'
    assert float(lines[0]['cosine_self']) == pytest.approx(scores[0, 0], rel=1e-5)
    assert float(lines[0]['cosine_other']) == pytest.approx(1.9)


def test_the_report_shows_them_escaped_and_comes_back(results, tmp_path):
    page = report.save(results, tmp_path / 'report')
    text = page.read_text()
    assert 'gradient cosine &lt;b&gt;' in text
    assert 'gradient cosine <b>' not in text
    assert text.count('<li class="card">') >= 8
    assert (page.parent / 'attribution.csv').exists()
    (again,) = Results.load(page.parent).attributed
    np.testing.assert_array_equal(again.scores, results.attributed[0].scores)
    console = Console(file=io.StringIO(), width=100)
    console.print(terminal(results))
    assert 'gradient cosine' in console.file.getvalue()


def test_without_scores_there_is_nothing_of_them(arguments, tmp_path):
    page = report.save(Results(**arguments), tmp_path / 'report')
    assert 'Cheaper attribution' not in page.read_text()
    assert not (page.parent / 'attribution.csv').exists()
