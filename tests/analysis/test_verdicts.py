"""The verdict on a target, where it is known what members did with it."""

import numpy as np
import pytest

from influence_jax.analysis.verdicts import Verdict, verdicts
from influence_jax.estimators import Columns, adjusted, summarize

MEMBERS, RECORDS = 400, 12
TWINS, HARD, EASY = (0, 1), (2, 3), (4, 5)
"""Records that stand in for one another, that nobody learns, that nobody needs to hold."""


def ensemble(rng, *, members=MEMBERS, noise=0.2):
    masks = rng.random((members, RECORDS)) < 0.5
    effect = np.eye(RECORDS)
    effect[np.ix_(TWINS, TWINS)] = 0.6
    effect[HARD + EASY, HARD + EASY] = 0.0
    losses = 2.0 - masks @ effect + noise * rng.normal(size=(members, RECORDS))
    losses[:, EASY] -= 1.8
    return masks, losses.astype(np.float32)


def judged(masks, losses, **settings):
    summary = summarize(masks, losses, estimator=adjusted, **settings)
    return verdicts(summary, mean_loss=losses.mean(axis=0), **settings)


def test_each_kind_is_known_by_what_it_is():
    expected = np.full(RECORDS, Verdict.UNIQUE)
    expected[[*TWINS]] = Verdict.NEAR_DUPLICATED
    expected[[*HARD]] = Verdict.UNLEARNED
    expected[[*EASY]] = Verdict.NOT_MEMORIZED
    masks, losses = ensemble(np.random.default_rng(6))  # of some draws one entry is noise
    np.testing.assert_array_equal(judged(masks, losses), expected)
    without = verdicts(summarize(masks, losses, estimator=adjusted))
    assert set(without[[*HARD, *EASY]]) == {Verdict.NOT_MEMORIZED}


def test_what_noise_hides_is_uncertain_and_noise_alone_is_nothing_else():
    masks, losses = ensemble(np.random.default_rng(1), members=40, noise=6.0)
    assert Verdict.UNLEARNED not in judged(masks, losses)
    unique, near, runs = 0, 0, 40
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=(60, RECORDS)).astype(np.float32)
        found = judged(rng.random((60, RECORDS)) < 0.5, noise)
        unique += (found == Verdict.UNIQUE).sum()
        near += (found == Verdict.NEAR_DUPLICATED).sum()
    # In 5 of 100 runs an own influence, and in each about one entry of the whole matrix.
    assert unique <= 0.05 * runs + 3
    assert near <= 1.2 * runs


def test_an_other_that_noise_hides_is_not_taken_for_none():
    """Twins whose influence on one another does not stand out are uncertain, and not unique."""
    twins = []
    for seed in range(30):
        found = judged(*ensemble(np.random.default_rng(seed), members=100, noise=0.7))
        twins += found[[*TWINS]].tolist()
    assert np.isin(Verdict.UNCERTAIN, twins)
    assert Verdict.UNIQUE not in twins


def test_a_negligible_influence_is_not_memorized_however_many_members_there_are():
    rng = np.random.default_rng(7)
    masks = rng.random((4000, RECORDS)) < 0.5
    effect = np.ones(RECORDS)
    effect[[*EASY]] = 0.03  # at ten standard errors
    losses = (1.0 - masks * effect + 0.04 * rng.normal(size=masks.shape)).astype(np.float32)
    summary = summarize(masks, losses, estimator=adjusted)
    assert (summary.self_influence > 6 * summary.self_standard_error).all()
    expected = np.full(RECORDS, Verdict.UNIQUE)
    expected[[*EASY]] = Verdict.NOT_MEMORIZED
    np.testing.assert_array_equal(verdicts(summary), expected)
    losses[:, EASY] += 3
    expected[[*EASY]] = Verdict.UNLEARNED
    np.testing.assert_array_equal(judged(masks, losses), expected)


def test_permuting_targets_and_another_unit_change_nothing():
    rng = np.random.default_rng(2)
    masks, losses = ensemble(rng)
    order = rng.permutation(RECORDS)
    found = judged(masks, losses)
    np.testing.assert_array_equal(
        judged(masks, losses[:, order], target_examples=order), found[order]
    )
    np.testing.assert_array_equal(judged(masks, 1e-4 * losses), found)


def test_few_effective_members_are_uncertain():
    masks, losses = ensemble(np.random.default_rng(3))
    summary = summarize(masks, losses, estimator=adjusted)
    few = summary.effective_members.copy()
    few[[0, 7]] = 19.0, 20.0
    found = verdicts(summary._replace(effective_members=few))
    assert found[0] == Verdict.UNCERTAIN and found[7] == Verdict.UNIQUE


def test_what_helps_all_is_the_near_duplicate_of_none():
    rng, records = np.random.default_rng(0), 60
    masks = rng.random((400, records)) < 0.5
    effect = np.zeros((records, records))
    effect[:5] = 0.15  # five prototypes, and no other influence
    losses = (2.0 - masks @ effect + 0.2 * rng.normal(size=(400, records))).astype(np.float32)
    found = judged(masks, losses)
    assert (found[5:] == Verdict.INFLUENCED).mean() > 0.9
    assert (found == Verdict.NEAR_DUPLICATED).sum() <= 5  # the prototypes, which help one another


def test_targets_in_another_order_than_examples():
    masks, losses = ensemble(np.random.default_rng(6))
    order = np.array([7, 1, 0, 3, 5])
    summary = summarize(masks, losses[:, order], estimator=adjusted, target_examples=order)
    found = verdicts(summary, target_examples=order)
    assert list(found[:3]) == [Verdict.UNIQUE, Verdict.NEAR_DUPLICATED, Verdict.NEAR_DUPLICATED]
    summary = summarize(masks, losses[:, :1], estimator=adjusted, target_examples=np.array([0]))
    assert verdicts(summary, target_examples=np.array([0])) == [Verdict.INFLUENCED]


def test_a_target_that_is_no_example_is_influenced_or_nothing():
    masks, losses = ensemble(np.random.default_rng(4))
    found = judged(masks, losses, target_examples=np.full(RECORDS, -1))
    influenced = np.isin(np.arange(RECORDS), [*HARD, *EASY], invert=True)
    assert (found[influenced] == Verdict.INFLUENCED).all()
    assert (found[~influenced] == Verdict.UNCERTAIN).all()


def test_columns_without_errors_are_uncertain():
    found = verdicts(summarize(Columns.of_matrix(np.eye(6, dtype=np.float32))))
    assert (found == Verdict.UNCERTAIN).all()


def test_losses_of_other_targets_are_refused():
    masks, losses = ensemble(np.random.default_rng(5))
    with pytest.raises(ValueError, match='mean_loss'):
        verdicts(summarize(masks, losses), mean_loss=np.zeros(3))


def test_verdicts_are_numbered_in_order_and_explained():
    assert [one.value for one in Verdict] == [*range(len(Verdict))]
    assert len({one.title for one in Verdict} | {one.help for one in Verdict}) == 2 * len(Verdict)
