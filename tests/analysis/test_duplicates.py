"""Near-duplicates: planted ones are found, and finding is measured as loops over all pairs do."""

import jax
import numpy as np
import pytest
import reference

from influence_jax.analysis import duplicates
from influence_jax.analysis.duplicates import ScoredPairs
from influence_jax.estimators import difference_in_means, summarize

EXAMPLES = 24
PLANTED = [(0, 1), (2, 3), (2, 4), (3, 4)]  # a pair and a triple
KEY = jax.random.key(0)


def ensemble(members=400, seed=0):
    """Any one of near-duplicates is enough; everything else teaches itself only."""
    generator = np.random.default_rng(seed)
    masks = generator.random((members, EXAMPLES)) < 0.5
    known = masks.copy()
    for cluster in ([0, 1], [2, 3, 4]):
        known[:, cluster] = masks[:, cluster].any(axis=1, keepdims=True)
    return masks, 2.0 * ~known + 0.3 * generator.normal(size=masks.shape)


MASKS, LOSSES = ensemble()
SUMMARY = summarize(MASKS, LOSSES, top_k=EXAMPLES)
TRUE = np.array([[1, 0], [2, 5], [5, 2], [7, 3]])
SCORED = ScoredPairs(
    np.array([[0, 1], [6, 2], [3, 4], [3, 7], [0, 7], [5, 6]]),
    np.array([3.0, 2.0, 2.0, 2.0, -1.0, 0.5]),
)


def pairs_of(found):
    return [tuple(pair) for pair in found.examples.tolist()]


def test_planted_near_duplicates_are_all_and_only_what_is_found():
    found = duplicates.candidate_pairs(SUMMARY)
    assert sorted(pairs_of(found)[:4]) == PLANTED
    # 1 where nothing else stands in, and for two of a triple 1 too: equal shares of the credit.
    np.testing.assert_allclose(found.scores[:4], 1, atol=0.25)
    assert (np.diff(found.scores) <= 0).all()
    assert (found.z[:4] > 6).all()
    assert (found.scores[4:] < 0.25).all()  # noise that passed the gate


def test_z_is_not_overconfident_though_both_directions_share_their_noise():
    """Masks that agree by chance give each example some of the credit of the other's effect."""
    unique = []
    for seed in range(8):
        masks, losses = ensemble(seed=seed)
        found = duplicates.candidate_pairs(
            summarize(masks, losses, top_k=EXAMPLES), z_threshold=-np.inf
        )
        unique.append(found.z[(found.examples > 4).all(axis=1)])
    assert 0.9 < np.std(np.concatenate(unique)) < 1.05


def test_all_scores_equal_the_loops():
    influence = difference_in_means(MASKS, LOSSES)
    own = range(EXAMPLES)
    found = duplicates.candidate_pairs(SUMMARY, z_threshold=-np.inf, floor=3)
    assert sorted(pairs_of(found)) == reference.unordered_pairs(EXAMPLES)
    for (i, j), score, z in zip(*found, strict=True):
        expected = reference.pair_score(*influence, own, i, j, floor=3)
        np.testing.assert_allclose((score, z), expected, rtol=1e-4, atol=1e-6)


def test_where_targets_are_some_of_the_examples_only_what_was_measured_counts():
    own = np.full(EXAMPLES, -1)
    own[[3, 7, 20]] = [9, 2, 0]
    losses = LOSSES[:, np.maximum(own, 0)]
    summary = summarize(MASKS, losses, top_k=EXAMPLES, target_examples=own)
    found = duplicates.candidate_pairs(summary, target_examples=own, z_threshold=-np.inf)
    measured = [pair for pair in reference.unordered_pairs(EXAMPLES) if {*pair} & {9, 2, 0}]
    assert sorted(pairs_of(found)) == measured
    influence = difference_in_means(MASKS, losses, target_examples=own)
    for (i, j), score, z in zip(*found, strict=True):
        expected = reference.pair_score(*influence, own, i, j, floor=4)
        np.testing.assert_allclose((score, z), expected, rtol=1e-4, atol=1e-6)
    assert pairs_of(found)[0] == (0, 1)


def without_significant_pairs(summary, keep=0):
    pairs = summary.pairs
    fields = {name: getattr(pairs, name)[:keep] for name in pairs._fields[:8]}
    return summary._replace(pairs=pairs._replace(**fields))


def test_a_direction_that_was_not_kept_counts_as_none():
    top = SUMMARY.top_examples.copy()
    top[1, top[1] == 0] = 1  # forget that 0 influences 1
    halved = duplicates.candidate_pairs(
        without_significant_pairs(SUMMARY._replace(top_examples=top))
    )
    pair = pairs_of(halved).index((0, 1))
    other = SUMMARY.top_values[0][SUMMARY.top_examples[0] == 1]
    assert halved.scores[pair] == pytest.approx(other / SUMMARY.self_influence[0] / 2, rel=1e-5)


def test_the_significant_pairs_are_seen_beyond_the_strongest():
    summary = SUMMARY._replace(
        **{
            name: getattr(SUMMARY, name)[:, :1]
            for name in ('top_examples', 'top_values', 'top_standard_errors')
        }
    )
    assert sorted(pairs_of(duplicates.candidate_pairs(summary))[:4]) == PLANTED
    fewer = duplicates.candidate_pairs(without_significant_pairs(summary))
    assert len(fewer.scores) < 4


def test_permuting_examples_permutes_the_pairs():
    order = np.random.default_rng(1).permutation(EXAMPLES)
    permuted = duplicates.candidate_pairs(
        summarize(MASKS[:, order], LOSSES[:, order], top_k=EXAMPLES), z_threshold=1
    )
    plain = duplicates.candidate_pairs(SUMMARY, z_threshold=1)
    back = np.sort(order[permuted.examples], axis=1)
    assert [tuple(pair) for pair in back.tolist()] == pairs_of(plain)
    np.testing.assert_allclose(permuted.scores, plain.scores, rtol=1e-4)


def test_noise_is_gated_and_its_ratios_are_floored():
    losses = np.random.default_rng(2).normal(size=MASKS.shape)
    summary = summarize(MASKS, losses, top_k=EXAMPLES)
    assert len(duplicates.candidate_pairs(summary).scores) == 0
    loose = duplicates.candidate_pairs(summary, z_threshold=-np.inf)
    assert np.abs(loose.scores).max() < 1.2  # a z of 5 would be needed


def test_clusters_are_connected_components():
    generator = np.random.default_rng(3)
    every = np.array(reference.unordered_pairs(12))
    scores = generator.random(len(every))
    lowest = np.sort(scores)[-6]  # itself joins
    found = duplicates.clusters(ScoredPairs(every, scores), examples=13, threshold=lowest)
    expected = reference.connected(13, every[np.argsort(scores)[-6:]].tolist())
    assert expected != reference.connected(13, every[np.argsort(scores)[-5:]].tolist())
    np.testing.assert_array_equal(found, expected)
    assert 3 < len(set(expected)) < 13


def test_clusters_of_the_planted():
    found = duplicates.clusters(
        duplicates.candidate_pairs(SUMMARY), examples=EXAMPLES, threshold=0.5
    )
    assert found.tolist() == [0, 0, 1, 1, 1, *range(2, 21)]
    none = duplicates.clusters(
        ScoredPairs(np.empty((0, 2), int), np.empty(0)), examples=3, threshold=0
    )
    assert none.tolist() == [0, 1, 2]


def test_best_score_of_each_example():
    best = duplicates.best_scores(SCORED, examples=9)
    np.testing.assert_array_equal(best, [3, 3, 2, 2, 2, 0.5, 2, 2, -np.inf])


def score_of(scored):
    pairs = [tuple(sorted(pair)) for pair in scored.examples.tolist()]
    return dict(zip(pairs, scored.scores.tolist(), strict=True))


def reference_evaluation(scored, true, examples, ks):
    every = reference.unordered_pairs(examples)
    scores = np.array([score_of(scored).get(pair, -np.inf) for pair in every])
    positives = np.array([pair in {tuple(sorted(t)) for t in true.tolist()} for pair in every])
    return [
        reference.auroc(scores, positives),
        reference.average_precision(scores, positives),
        *(reference.precision_at_k(scores, positives, k) for k in ks),
    ]


@pytest.mark.parametrize('scored', [SCORED, ScoredPairs(np.empty((0, 2), int), np.empty(0))])
def test_evaluation_equals_the_loops_over_all_pairs(scored):
    ks = (1, 2, 5, 20)
    found = duplicates.evaluate(scored, TRUE, examples=9, key=KEY, ks=ks, resamples=5)
    assert found.ks == (*ks, 3)
    assert (found.true_pairs, found.found) == (3, 2 if len(scored.scores) else 0)
    estimates = [found.auroc.value, found.average_precision.value]
    estimates += [precision.value for precision in found.precision]
    expected = reference_evaluation(scored, TRUE, 9, found.ks)
    np.testing.assert_allclose(estimates, expected, rtol=1e-12)


def test_all_pairs_scored_as_by_the_loops():
    generator = np.random.default_rng(4)
    scored = ScoredPairs(
        np.array(reference.unordered_pairs(9)), generator.integers(8, size=36).astype(float)
    )
    found = duplicates.evaluate(scored, TRUE, examples=9, key=KEY, ks=(4,), resamples=5)
    expected = reference_evaluation(scored, TRUE, 9, (4, 3))
    np.testing.assert_allclose(
        [found.auroc.value, found.average_precision.value, *(p.value for p in found.precision)],
        expected,
        rtol=1e-12,
    )


def test_a_resample_counts_pairs_as_often_as_their_examples_were_drawn(monkeypatch):
    weights = np.array([2.0, 1, 0, 3, 1, 1, 0, 1, 0])
    monkeypatch.setattr(
        'influence_jax.analysis.resampling.weights',
        lambda key, *, units, resamples: iter([np.stack([weights] * resamples)]),
    )
    found = duplicates.evaluate(SCORED, TRUE, examples=9, key=KEY, ks=(2,), resamples=3)
    copies = np.repeat(np.arange(9), weights.astype(int))
    kept = [
        tuple(sorted((int(copies[a]), int(copies[b]))))
        for a, b in reference.unordered_pairs(9)
        if copies[a] != copies[b]
    ]
    scores = np.array([score_of(SCORED).get(pair, -np.inf) for pair in kept])
    positives = np.array([pair in {(0, 1), (2, 5), (3, 7)} for pair in kept])
    for interval, expected in (
        (found.auroc, reference.auroc(scores, positives)),
        (found.average_precision, reference.average_precision(scores, positives)),
        (found.precision[0], reference.precision_at_k(scores, positives, 2)),
    ):
        assert interval.low == interval.high == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
def test_intervals_hold_what_other_records_would_give():
    """Of a score whose chance of being right is the same for every record."""
    generator = np.random.default_rng(5)
    inside = 0
    for _ in range(25):
        every = np.array(reference.unordered_pairs(40))
        partner = every[:, 0] // 2 == every[:, 1] // 2
        scores = generator.normal(size=len(every)) + 1.5 * partner
        found = duplicates.evaluate(
            ScoredPairs(every, scores), every[partner], examples=40, key=KEY, resamples=100
        )
        inside += found.auroc.low <= 0.8556 <= found.auroc.high  # of two normals 1.5 apart
    assert inside >= 20


def test_low_self_influence_is_a_ranking_of_all_pairs():
    values = np.array([0.5, np.nan, 0.1, 0.9, 0.3])
    whole = duplicates.low_self_influence_pairs(values)
    expected = {
        (i, j): -max(values[i], values[j])
        for i, j in reference.unordered_pairs(5)
        if 1 not in (i, j)
    }
    assert dict(zip(pairs_of(whole), whole.scores.tolist(), strict=True)) == expected
    assert (np.diff(whole.scores) <= 0).all()
    for at_most in range(1, 7):
        some = duplicates.low_self_influence_pairs(values, at_most=at_most)
        np.testing.assert_array_equal(some.scores, whole.scores[:at_most])
        np.testing.assert_array_equal(some.examples, whole.examples[:at_most])
    named = duplicates.low_self_influence_pairs(values, target_examples=np.array([4, -1, 8, 2, 0]))
    assert pairs_of(named)[0] == (0, 8)


def candidates(own, told=...):
    told = own if told is ... else told
    return lambda: duplicates.candidate_pairs(
        summarize(MASKS, LOSSES, top_k=EXAMPLES, target_examples=own), target_examples=told
    )


def evaluated(examples=9, **changes):
    given = {'pairs': SCORED, 'true_pairs': TRUE, 'ks': (1,), **changes}
    return lambda: duplicates.evaluate(**given, examples=examples, key=KEY)


def scored_as(pairs, scores):
    return ScoredPairs(np.array(pairs), np.array(scores))


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (evaluated(true_pairs=np.array([[1, 1]])), 'true pairs hold an example paired with itself'),
        (evaluated(true_pairs=np.array([[1, 9]])), 'true pairs must name the examples 0 to 8'),
        (evaluated(true_pairs=np.array([1, 2])), r'integers \[pairs 2\]'),
        (evaluated(true_pairs=np.empty((0, 2), int)), '0 of 36 pairs are true'),
        (evaluated(pairs=scored_as([[1, 2], [2, 1]], [1.0, 2.0])), 'a pair is scored twice'),
        (evaluated(pairs=scored_as([[1, 2]], [np.nan])), 'none of them NaN'),
        (evaluated(pairs=scored_as([[1, 2]], [1.0, 2.0])), 'as many scores'),
        (evaluated(ks=(0,)), r'ks must lie in 1 .. 36, the number of pairs, not \(0,\)'),
        (evaluated(ks=(37,)), 'ks must lie in 1 .. 36'),
        (lambda: duplicates.clusters(SCORED, examples=5, threshold=0), 'the examples 0 to 7'),
        (lambda: duplicates.best_scores(SCORED, examples=5), 'the examples 0 to 7'),
        (lambda: duplicates.candidate_pairs(SUMMARY, floor=0), 'floor=0 must be positive'),
        (candidates(np.full(EXAMPLES, -1)), 'no target is an example'),
        (
            candidates(np.arange(-1, EXAMPLES - 1), told=None),
            '1 of 24 targets are no examples: give target_examples',
        ),
        (
            candidates(np.arange(-1, EXAMPLES - 1), told=np.arange(EXAMPLES)),
            'not those of the summary',
        ),
        (candidates(np.arange(EXAMPLES) // 2), 'example 0 is more than one target'),
        (lambda: duplicates.low_self_influence_pairs([1.0, np.nan]), 'at least 2'),
        (lambda: duplicates.low_self_influence_pairs([1.0, 2.0], at_most=0), 'at_most=0 must be'),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as refused:
        call()
    assert '\n' not in str(refused.value)
