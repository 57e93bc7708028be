import jax
import numpy as np
import pytest

from influence_jax.analysis import auroc
from influence_jax.analysis.extraction import nearest_siblings, scores
from influence_jax.analysis.near_duplicate_comparison import compare, in_a_group, spread
from influence_jax.analysis.scores import Score, aurocs, influence_scores
from influence_jax.analysis.views import at_even_steps, cluster_view
from influence_jax.estimators import difference_in_means, summarize

KEY = jax.random.key(0)
UNIQUE, CLUSTERS, COPIES = 30, 6, 3
N = UNIQUE + CLUSTERS * COPIES
GROUPS = np.concatenate([np.arange(UNIQUE), 900 + np.repeat(np.arange(CLUSTERS), COPIES)])
DUPLICATED = np.arange(N) >= UNIQUE
# Decoded as it should be: every second near-duplicate, one unique record.
DECODED = [t in (0, *range(UNIQUE, N, 2)) for t in range(N)]


def planted(members=300):
    """Records of a cluster stand in for one another: the first of them included does it all."""
    rng = np.random.default_rng(0)
    masks = rng.random((members, N)) < 0.5
    losses = rng.normal(5.0, 0.3, (members, N))
    for t in range(N):
        losses[:, t] -= 2.0 * masks[:, GROUPS[t] == GROUPS].any(axis=1)
    return masks, losses.astype(np.float32)


@pytest.fixture(scope='module')
def summary():
    return summarize(*planted())


@pytest.fixture(scope='module')
def compared(summary):
    truths = [f'answer {t}' for t in range(N)]
    texts = [truth if good else 'wrong' for truth, good in zip(truths, DECODED, strict=True)]
    return compare(
        summary,
        GROUPS,
        key=KEY,
        extraction=scores(texts, truths),
        siblings=nearest_siblings(texts, truths, GROUPS),
        resamples=200,
    )


def test_planted_clusters_have_low_self_influence_and_low_margins(compared, summary):
    np.testing.assert_array_equal(compared.near_duplicated, DUPLICATED)
    rows = {row.name: row for row in compared.scores}
    assert [*rows][:3] == ['self-influence', 'BLEU', 'margin']
    for name, (unique, near_duplicated) in {
        'self-influence': (2.0, 0.5),  # of 4 subsets of the two others, one holds none
        'BLEU': (1 / UNIQUE, 0.5),
    }.items():
        assert rows[name].unique.mean == pytest.approx(unique, abs=0.1)
        assert rows[name].near_duplicated.mean == pytest.approx(near_duplicated, abs=0.1)
    assert rows['margin'].near_duplicated.median < 1.5 < 5 < rows['margin'].unique.median
    assert rows['sum of all others'].near_duplicated.mean == pytest.approx(1.0, abs=0.3)
    assert rows['margin'].unique.targets == UNIQUE
    assert rows['margin'].near_duplicated.targets == CLUSTERS * COPIES


def test_scores_tell_near_duplicates_and_extractable_targets(compared, summary):
    scores = {score.name: score for score in compared.scores}
    assert scores['self-influence'].near_duplicates_auroc == (1.0, 1.0, 1.0)
    assert scores['floored margin'].near_duplicates_auroc.value == 1.0
    expected = auroc(summary.other_value, DUPLICATED)
    assert scores['strongest other'].near_duplicates_auroc.value == pytest.approx(expected)
    np.testing.assert_array_equal(compared.extractable, DECODED)
    # By BLEU they are defined; every other score has its own.
    assert [name for name, of in scores.items() if of.extractable_auroc is None] == ['BLEU']
    expected = auroc(-summary.self_influence, np.array(DECODED))
    value, low, high = scores['self-influence'].extractable_auroc
    assert value == pytest.approx(expected)
    assert low < value < high
    expected = auroc(summary.other_value, np.array(DECODED))
    assert scores['strongest other'].extractable_auroc.value == pytest.approx(expected)


def test_without_decoding_nothing_is_extractable(summary):
    more = Score('luck', np.arange(float(N)), low_marks=False)
    seen = compare(summary, GROUPS, key=KEY, more=[more], resamples=2)
    assert seen.extractable is None
    assert {score.extractable_auroc for score in seen.scores} == {None}
    names = [score.name for score in seen.scores]
    assert 'BLEU' not in names
    assert names[-1] == 'luck'
    assert seen.scores[-1].near_duplicates_auroc.value == 1.0


def test_an_exact_match_is_extractable_at_any_bleu(summary):
    truths = ['The Beatles'] * N
    texts = ['beatles', 'The Beatles and others', *['x'] * (N - 2)]
    for least, expected in ((0.3, [True, True]), (0.9, [True, False])):
        seen = compare(
            summary,
            GROUPS,
            key=KEY,
            extraction=scores(texts, truths),
            siblings=nearest_siblings(texts, truths, GROUPS),
            extractable_bleu=least,
            resamples=2,
        )
        assert seen.extractable[:2].tolist() == expected
        assert not seen.extractable[2:].any()


def test_a_sibling_that_is_given_back_is_not_the_record(summary):
    """All of a cluster have the same prompt, so that one of them at most can be meant."""
    truths = [f'the year of our lord {1800 + t}' for t in range(N)]
    texts = truths[:UNIQUE] + [truths[UNIQUE + 3 * ((t - UNIQUE) // 3)] for t in range(UNIQUE, N)]
    extraction = scores(texts, truths)
    assert (extraction.bleu >= 0.5).all()
    seen = compare(
        summary,
        GROUPS,
        key=KEY,
        extraction=extraction,
        siblings=nearest_siblings(texts, truths, GROUPS),
        resamples=2,
    )
    assert seen.extractable[:UNIQUE].all()
    assert seen.extractable[UNIQUE:].tolist() == [True, False, False] * CLUSTERS


def test_extraction_of_near_duplicates_needs_their_siblings(summary):
    texts = [f'answer {t}' for t in range(N)]
    extraction, few = scores(texts, texts), nearest_siblings(texts[:4], texts[:4], GROUPS[:4])
    for siblings, message in ((None, f'{N} targets, not none'), (few, f'{N} targets, not .* 4')):
        with pytest.raises(ValueError, match=message) as refused:
            compare(summary, GROUPS, key=KEY, extraction=extraction, siblings=siblings)
        assert '\n' not in str(refused.value)
    alone = compare(summary, np.arange(N), key=KEY, extraction=extraction, resamples=2)
    assert alone.extractable.all()


def test_sum_of_others_is_that_of_the_matrix(summary):
    values = difference_in_means(*planted()).values
    others = {of.name: of for of in influence_scores(summary, examples=N)}['sum of all others']
    expected = np.asarray(values).sum(axis=0) - np.diag(values)
    np.testing.assert_allclose(others.values, expected, atol=1e-4)


def test_spread_leaves_out_what_is_not_defined():
    unique = spread(np.array([1.0, 3.0, np.inf, np.nan]))
    assert unique == (2.0, np.sqrt(2), 3.0, 3, 1)
    one = spread(np.array([5.0, np.nan]))
    assert one.mean == one.median == 5.0
    assert np.isnan(one.standard_deviation)
    nothing = spread(np.array([np.nan]))
    assert np.isnan(nothing.mean)
    assert nothing.targets == 0


def test_auroc_of_scores_that_are_infinite_equal_or_not_defined():
    values = np.array([1.0, 1.0, np.inf, -2.0, np.nan, 3.0])
    positives = np.array([True, False, False, True, True, False])
    known = ~np.isnan(values)
    for low_marks in (True, False):
        (found,) = aurocs(
            [Score('s', values, low_marks)], positives, groups=np.arange(6), key=KEY, resamples=2
        )
        signed = -values if low_marks else values
        assert found.value == pytest.approx(auroc(signed[known], positives[known]))


@pytest.mark.parametrize('positives', [np.zeros(6, bool), np.ones(6, bool)])
def test_one_kind_alone_has_no_auroc(positives):
    for values in (np.arange(6.0), np.full(6, np.nan)):
        (found,) = aurocs(
            [Score('s', values, True)], positives, groups=np.arange(6), key=KEY, resamples=3
        )
        assert np.isnan(found).all()


def test_intervals_count_clusters_not_their_records():
    """Ten copies of every target say no more than one."""
    rng = np.random.default_rng(0)
    positives = np.arange(60) < 30
    values = rng.normal(size=60) + positives

    def interval(copies):
        (found,) = aurocs(
            [Score('s', np.repeat(values, copies), False)],
            np.repeat(positives, copies),
            groups=np.repeat(np.arange(60), copies),
            key=KEY,
            resamples=400,
        )
        return found

    np.testing.assert_allclose(interval(1), interval(10))
    assert interval(1).high - interval(1).low > 0.1


def test_intervals_cover():
    """Of scores apart by one standard deviation the area is 0.760."""
    rng = np.random.default_rng(1)
    positives = np.arange(80) < 40
    samples = [Score('s', rng.normal(size=80) + positives, False) for _ in range(120)]
    intervals = aurocs(samples, positives, groups=np.arange(80), key=KEY, resamples=200)
    covered = np.mean([one.low < 0.7602 < one.high for one in intervals])
    assert 0.87 < covered < 1


def test_view_shows_whole_clusters_and_then_unique_records(summary):
    masks, losses = planted()
    view = cluster_view(masks, losses, GROUPS, summary=summary, clusters=4, unique=5)
    values = difference_in_means(masks, losses).values
    np.testing.assert_allclose(view.block, values[np.ix_(view.targets, view.targets)], atol=1e-5)
    assert view.clusters == ((0, 3), (3, 6), (6, 9), (9, 12))
    for start, end in view.clusters:
        assert len(set(GROUPS[view.targets[start:end]])) == 1
        assert view.block[start:end, start:end].min() > 0.2
    assert not DUPLICATED[view.targets[12:]].any()
    assert len(view.targets) == len(set(view.targets.tolist())) == 17
    own = summary.self_influence
    unique = own[view.targets[12:]]
    assert (unique[0], unique[-1]) == (own[:UNIQUE].min(), own[:UNIQUE].max())
    assert np.all(np.diff(unique) > 0)
    off = view.block - np.diag(np.diag(view.block))
    assert np.abs(off[12:]).max() < 0.4


def test_view_has_columns_of_middling_margin(summary):
    view = cluster_view(*planted(), GROUPS, summary=summary)
    values, errors = difference_in_means(*planted())
    for column, kind, siblings in ((view.unique, ~DUPLICATED, 0), (view.duplicated, DUPLICATED, 2)):
        assert kind[column.target]
        assert column.self_index == column.target
        assert len(column.siblings) == siblings
        assert set(GROUPS[column.siblings]) <= {GROUPS[column.target]}
        assert column.target not in column.siblings
        np.testing.assert_allclose(column.values, values[:, column.target], atol=1e-5)
        np.testing.assert_allclose(column.standard_errors, errors[:, column.target], rtol=1e-4)
        below = (summary.margin[kind] < summary.margin[column.target]).sum()
        assert abs(below - kind.sum() / 2) <= 1


def test_view_of_targets_in_another_order_and_with_members_missing(summary):
    masks, losses = planted()
    order = np.random.default_rng(3).permutation(N)[: N - 5]
    own = order.copy()
    own[0] = -1
    shuffled = losses[:, order].copy()
    shuffled[4, 0] = np.nan  # of a target that is not shown
    kept = np.delete(np.arange(300), 4)
    found = summarize(masks, shuffled, target_examples=own)
    view = cluster_view(masks, shuffled, GROUPS[order], summary=found, target_examples=own)
    assert 0 not in view.targets
    values = difference_in_means(masks[kept], shuffled[kept]).values
    expected = values[np.ix_(own[view.targets], view.targets)]
    np.testing.assert_allclose(view.block, expected, atol=1e-5)
    assert view.duplicated.self_index == own[view.duplicated.target]
    assert set(GROUPS[view.duplicated.siblings]) == {GROUPS[view.duplicated.self_index]}


def test_view_of_one_kind_alone(summary):
    masks, losses = planted()
    alone = cluster_view(masks, losses, np.arange(N), summary=summary)
    assert alone.duplicated is None
    assert alone.clusters == ()
    assert len(alone.targets) == 18
    together = cluster_view(masks, losses, np.zeros(N, int), summary=summary)
    assert together.unique is None
    assert together.clusters == ((0, 8),)


def test_even_steps_end_at_the_lowest_and_the_highest():
    names = np.array([5, 7, 5, 9, 8])
    values = np.array([1.0, 0.0, 3.0, 9.0, 4.0])
    assert at_even_steps(names, values, 3).tolist()[::2] == [7, 9]
    assert at_even_steps(names, values, 10).tolist() == [7, 5, 8, 9]
    assert at_even_steps(names[:0], values[:0], 3).size == 0
    for many in range(1, 40):
        names, values = np.arange(many), np.arange(float(many))
        for most in range(1, many + 1):
            assert len(set(at_even_steps(names, values, most))) == most


def test_groups_of_more_than_one():
    assert in_a_group(np.array([4, 9, 4, 1])).tolist() == [True, False, True, False]


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda s: compare(s, GROUPS[1:], key=KEY), rf'groups must be {N} integers'),
        (lambda s: compare(s, GROUPS * 1.0, key=KEY), 'not float64'),
        (lambda s: compare(s, GROUPS, key=KEY, extractable_bleu=0), r'must lie in \(0, 1\]'),
        (
            lambda s: compare(s, GROUPS, key=KEY, extraction=scores(['a'], ['a'])),
            r"'BLEU' has the shape \[1\]",
        ),
        (
            lambda s: compare(s, GROUPS, key=KEY, more=[Score('x', np.zeros(3), True)]),
            r"'x' has the shape \[3\]",
        ),
        (lambda s: compare(s, GROUPS, key=KEY, level=1.0), 'level=1.0'),
        (lambda s: compare(s, GROUPS, key=KEY, resamples=1), 'resamples=1'),
        (lambda s: cluster_view(*planted(), GROUPS[1:], summary=s), 'as many groups'),
        (
            lambda s: cluster_view(*planted(), GROUPS, summary=s, target_examples=np.full(N, -1)),
            'no target is an example',
        ),
    ],
)
def test_bad_input_is_refused_in_one_line(summary, call, message):
    with pytest.raises(ValueError, match=message) as refused:
        call(summary)
    assert '\n' not in str(refused.value)
