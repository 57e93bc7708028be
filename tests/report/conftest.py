from collections.abc import Callable
from pathlib import Path
from typing import Any

import language_run
import numpy as np
import pytest
import scipy.stats

from influence_jax import report
from influence_jax.analysis.convergence import Convergence
from influence_jax.analysis.views import Overview
from influence_jax.estimators import Method, SignificantPairs
from influence_jax.estimators.summary import Summary
from influence_jax.report import Results, matrix, theme
from influence_jax.report.results import ShownExamples
from influence_jax.report.theme import Theme

N = 12
METHOD = Method('adjusted', 'adjusted difference of means', 'the mean loss of members')
HOSTILE = '"><script>document.title="owned"</script><img src=x onerror=document.title="owned">'


def summary_of(values: np.ndarray, standard_error: np.ndarray, own: np.ndarray) -> Summary:
    """The loops' version of what the report is given."""
    examples, targets = values.shape
    order = np.argsort(-values, axis=0)
    top = np.sort(values, axis=0)[::-1]
    others = np.array(
        [next(i for i in order[:, t] if i != own[t]) for t in range(targets)], np.int32
    )
    at = np.arange(targets)
    is_example = own >= 0
    edges = np.linspace(-8, 8, 65)
    is_other = np.arange(examples)[:, None] != own[None, :]
    z = np.where(is_other, values / standard_error, 0)
    found = sorted(np.argwhere(np.abs(z) > 2.5).tolist(), key=lambda pair: -abs(z[tuple(pair)]))
    pairs = np.array(found).T
    top_errors = np.take_along_axis(standard_error, order, 0)
    return Summary(
        self_influence=np.where(is_example, values[own, at], np.nan),
        self_standard_error=np.where(is_example, standard_error[own, at], np.nan),
        effective_members=np.where(is_example, np.where(at < 2, 3.5, 40.0), np.nan),
        margin=np.where(top[1] > 0, top[0] / top[1], np.inf),
        floored_margin=top[0] / np.maximum(top[1], 5 * top_errors[1]),
        z_margin=(top[0] - top[1]) / np.hypot(top_errors[0], top_errors[1]),
        top_examples=order[:5].T,
        top_values=top[:5].T,
        top_standard_errors=top_errors[:5].T,
        bottom_examples=order[-5:][::-1].T,
        bottom_values=top[-5:][::-1].T,
        bottom_standard_errors=top_errors[-5:][::-1].T,
        strongest_other=others,
        other_value=values[others, at],
        other_standard_error=standard_error[others, at],
        other_cross_fitted=0.9 * values[others, at],
        other_stands_out=values[others, at] > 3.5 * standard_error[others, at],
        top_stands_out=(top[:5] > 3.5 * top_errors[:5]).T,
        mean=values.mean(0),
        standard_deviation=values.std(0),
        skewness=scipy.stats.skew(values, axis=0),
        kurtosis=scipy.stats.kurtosis(values, axis=0),
        quantile_levels=np.array([0.0, 0.5, 1.0]),
        quantiles=np.quantile(values, [0.0, 0.5, 1.0], axis=0).T,
        null_standard_error=np.median(standard_error, axis=0),
        z_edges=edges,
        z_histogram=np.histogram(z[is_other].clip(-7.99, 7.99), edges)[0],
        pairs=SignificantPairs(
            examples=pairs[0],
            targets=pairs[1],
            values=values[*pairs],
            standard_errors=standard_error[*pairs],
            p_values=2 * scipy.stats.norm.sf(np.abs(z[*pairs])),
            cross_fitted=0.9 * values[*pairs],
            low=values[*pairs] - 4 * standard_error[*pairs],
            high=values[*pairs] + 4 * standard_error[*pairs],
            level=0.05,
            tests=int(is_other.sum()),
            untested_examples=0,
            complete=True,
        ),
        estimator=METHOD,
        members_used=64,
    )


def overview_of(own: np.ndarray) -> Overview:
    rng = np.random.default_rng(0)
    values = 0.1 * rng.normal(size=(N, N)) + 3.0 * np.eye(N)
    values[0, 1], values[1, 0] = 2.5, 2.0
    values[4, 7] = -0.9
    standard_error = rng.uniform(0.08, 0.12, size=(N, N))
    summary = summary_of(values, standard_error, own)
    chosen = np.array([0, 1, 5])
    block = np.arange(6)
    most_memorized = np.argsort(-summary.self_influence)[: int((own >= 0).sum())]
    return Overview(
        summary=summary,
        convergence=Convergence(
            members=np.array([8, 16, 32]),
            self_influence=np.array([0.7, 0.8, 0.9]),
            off_diagonal=np.array([-0.01, 0.0, 0.02]),
            margin=np.array([0.2, 0.4, 0.5]),
            significant=np.full(3, np.nan),
            significant_pairs=np.zeros(3),
        ),
        target_examples=own,
        z_threshold=3.5,
        lowest_margin=np.argsort(summary.margin),
        most_memorized=most_memorized,
        matrix_block=values[:6, :6],
        block_examples=block,
        block_targets=block,
        chosen=chosen,
        distributions=values[:, chosen],
        distribution_standard_errors=standard_error[:, chosen],
    )


def arguments_of(overview: Overview) -> dict[str, Any]:
    """What `Results` takes; every text that comes from data is hostile somewhere."""
    ids = tuple(f'id-{i}' for i in range(N))
    images = np.random.default_rng(1).integers(0, 256, (N, 8, 8, 3), np.uint8)
    return {
        'overview': overview,
        'facts': {'seed': '0', HOSTILE: HOSTILE},
        'target_ids': ids,
        'example_ids': ids,
        'example_names': (HOSTILE, 'comma, "quote"\nline', *(f'name {i}' for i in range(2, N))),
        'example_labels': (HOSTILE, *['class'] * (N - 1)),
        'example_changes': ('',) * N,
        'shown': ShownExamples(np.arange(N), images),
        'title': f'A run {HOSTILE}',
        'near_duplicates': np.arange(N) < 2,
        'mean_loss': np.linspace(0, 1, N),
        'missing': np.array([3]),
        'diverged': np.array([5, 9]),
        'method': METHOD,
        'unit': 'nats',
    }


@pytest.fixture(scope='session')
def overview() -> Overview:
    return overview_of(np.arange(N))


@pytest.fixture(scope='session')
def foreign_overview() -> Overview:
    """No target is an example."""
    return overview_of(np.full(N, -1))


@pytest.fixture(scope='session')
def hostile() -> str:
    return HOSTILE


@pytest.fixture(scope='session')
def written(tmp_path_factory: pytest.TempPathFactory, overview: Overview) -> Path:
    """The page of a report, for tests that only read it."""
    directory = tmp_path_factory.mktemp('written') / 'report'
    return report.save(Results(**arguments_of(overview)), directory)


@pytest.fixture(scope='session')
def language() -> Results:
    """Of a run on texts, some of them hostile."""
    return language_run.results()


@pytest.fixture(scope='session')
def language_page(tmp_path_factory: pytest.TempPathFactory, language: Results) -> Path:
    return report.save(language, tmp_path_factory.mktemp('language') / 'report')


@pytest.fixture
def arguments(overview: Overview) -> dict[str, Any]:
    return arguments_of(overview)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a report of results with these arguments, and returns its page."""

    def write(arguments: dict[str, Any], directory: str = 'report') -> Path:
        return report.save(Results(**arguments), tmp_path / directory)

    return write


@pytest.fixture
def unsaved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spares tests that look at no figure the saving of one."""
    blank = matrix.matrix_pixels(np.zeros((1, 1)), limit=1.0, theme=Theme.light())
    monkeypatch.setattr(theme, 'png', lambda _: blank)
