"""Influence of whole groups: exact by enumeration, planted interactions, honest errors."""

import jax
import numpy as np
import pytest
import reference

from influence_jax import subsets
from influence_jax.analysis.groups import additive_group_influence, group_influence
from influence_jax.estimators import adjusted, difference_in_means

GROUPS = np.array([7, -2, 7, 30, -2, 7, 30, 4])  # in no order; 7 has three, 4 has one


def drawn(*, members, groups=None, examples=8, seed=0):
    return subsets.draw(
        subsets.Design.INDEPENDENT,
        key=jax.random.key(seed),
        members=members,
        examples=examples,
        groups=groups,
    )


def ridge_problem():
    generator = np.random.default_rng(1)
    features = generator.normal(size=(len(GROUPS), 2))
    labels = features @ [1.0, -2.0] + generator.normal(size=len(GROUPS))
    return features, labels


def test_exact_where_every_subset_of_groups_is_enumerated():
    order = np.unique(GROUPS, return_inverse=True)[1]
    masks = reference.all_subsets(4)[:, order]
    losses = reference.ridge_losses(masks, *ridge_problem(), penalty=1.0)
    found = group_influence(masks, losses, GROUPS)
    np.testing.assert_array_equal(found.ids, [-2, 4, 7, 30])
    np.testing.assert_allclose(
        found.influence.values, reference.group_influence(masks, losses, GROUPS), rtol=1e-4
    )


@pytest.mark.parametrize('estimator', [difference_in_means, adjusted])
def test_drawn_subsets_converge_to_the_exact_influence(estimator):
    order = np.unique(GROUPS, return_inverse=True)[1]
    every = reference.all_subsets(4)[:, order]
    exact = reference.group_influence(
        every, reference.ridge_losses(every, *ridge_problem(), penalty=1.0), GROUPS
    )
    masks = drawn(members=4000, groups=GROUPS)
    losses = reference.ridge_losses(masks, *ridge_problem(), penalty=1.0)
    losses += 0.1 * np.random.default_rng(2).normal(size=losses.shape)
    influence = group_influence(masks, losses, GROUPS, estimator=estimator).influence
    z = (influence.values - exact) / influence.standard_error
    assert np.abs(z).max() < 4
    assert np.abs(influence.values).max() > 20 * influence.standard_error.max()


def test_the_targets_own_group_is_what_is_adjusted_for():
    masks = drawn(members=4000, groups=GROUPS)
    target_examples = np.array([5, -1, 3, 1, 2, -1, -1, 7])
    losses = np.random.default_rng(3).normal(size=(4000, 8)) - 2.0 * masks[:, target_examples]
    found = group_influence(
        masks, losses, GROUPS, estimator=adjusted, target_examples=target_examples
    ).influence
    of_target = np.array([2, -1, 3, 0, 2, -1, -1, 1])
    by_hand = adjusted(masks[:, [1, 7, 0, 3]], losses, target_examples=of_target)
    np.testing.assert_array_equal(found.values, by_hand.values)
    np.testing.assert_array_equal(found.standard_error, by_hand.standard_error)


def test_near_duplicates_do_together_what_they_do_not_add_up_to():
    groups = np.array([0, 0, 0, 1, 2])
    generator = np.random.default_rng(4)

    def losses_of(masks):  # any one of the three is enough
        learned = 2.0 * masks[:, :3].any(axis=1, keepdims=True)
        return 3 - learned + 0.1 * generator.normal(size=(len(masks), 1))

    together = drawn(members=4000, examples=5, groups=groups)
    whole = group_influence(together, losses_of(together), groups).influence
    apart = drawn(members=4000, examples=5, seed=1)
    added = additive_group_influence(apart, losses_of(apart), groups).influence
    for found, expected in ((whole, 2.0), (added, 2.0 * 3 / 4)):
        assert abs(found.values[0, 0] - expected) < 4 * found.standard_error[0, 0] < 0.3
        assert (np.abs(found.values[1:]) < 4 * found.standard_error[1:]).all()


def test_effects_that_add_up_are_the_same_by_both():
    effects = np.array([1.0, -0.5, 0.25, 0, 0, 2.0, 1.0, 0.125])
    exact = [effects[group == GROUPS].sum() for group in (-2, 4, 7, 30)]
    generator = np.random.default_rng(5)
    for masks, estimate in (
        (drawn(members=6000, groups=GROUPS), group_influence),
        (drawn(members=6000), additive_group_influence),
    ):
        losses = 5 - masks @ effects[:, None] + generator.normal(size=(6000, 1))
        influence = estimate(masks, losses, GROUPS).influence
        z = (influence.values[:, 0] - exact) / influence.standard_error[:, 0]
        assert np.abs(z).max() < 4
        assert influence.standard_error.max() < 0.15


def test_additive_values_and_errors_equal_the_loops():
    generator = np.random.default_rng(6)
    masks = generator.random((40, 8)) < 0.3
    losses = generator.normal(size=(40, 2)) - 3 * masks[:, [2, 5]] + 1e3
    found = additive_group_influence(masks, losses, GROUPS).influence
    values, _ = reference.difference_in_means(masks, losses)
    for row, group in enumerate((-2, 4, 7, 30)):
        members = np.flatnonzero(group == GROUPS)
        np.testing.assert_allclose(found.values[row], values[members].sum(axis=0), rtol=1e-4)
        for t in range(2):
            variance = sum(
                reference.covariance_of_differences(masks, losses[:, t], i, k)
                for i in members
                for k in members
            )
            expected = reference.error_of_sum(masks, losses[:, t], members, variance)
            np.testing.assert_allclose(found.standard_error[row, t], expected, rtol=1e-4)


def test_a_group_of_one_is_the_difference_in_means(monkeypatch):
    monkeypatch.setattr('influence_jax.analysis.groups._TARGETS_AT_ONCE', 2)
    masks = drawn(members=50)
    losses = np.random.default_rng(7).normal(size=(50, 5))
    losses[3] = np.nan  # a diverged member
    single = difference_in_means(masks, losses)
    for estimate in (group_influence, additive_group_influence):
        found = estimate(masks, losses, np.arange(8)).influence
        np.testing.assert_allclose(found.values, single.values, atol=1e-6)
        np.testing.assert_allclose(found.standard_error, single.standard_error, rtol=1e-5)


@pytest.mark.parametrize('size', [5, 50])
def test_errors_of_sums_are_honest(size):
    """Effects within the group, unequal rates and skewed losses."""
    generator = np.random.default_rng(8)
    groups = (np.arange(60) >= size).astype(int)
    z = []
    for _ in range(20):
        masks = generator.random((300, 60)) < generator.uniform(0.25, 0.75, 60)
        effects = generator.normal(size=(60, 200)) * (groups == 0)[:, None] / 3
        losses = generator.exponential(size=(300, 200)) - masks @ effects
        influence = additive_group_influence(masks, losses, groups).influence
        exact = np.stack([effects.sum(axis=0), np.zeros(200)])
        z.append((influence.values - exact) / influence.standard_error)
    spread = np.sqrt(np.mean(np.square(z), axis=(0, 2)))
    assert ((spread > 0.93) & (spread < 1.07)).all(), spread


@pytest.mark.parametrize('estimate', [group_influence, additive_group_influence])
def test_permuting_examples_or_renaming_groups_changes_only_the_order(estimate):
    masks = drawn(members=60, groups=GROUPS if estimate is group_influence else None)
    losses = np.random.default_rng(9).normal(size=(60, 3)).astype(np.float32)
    plain = estimate(masks, losses, GROUPS)
    order = np.random.default_rng(10).permutation(len(GROUPS))
    permuted = estimate(masks[:, order], losses, GROUPS[order])
    renamed = estimate(masks, losses, -GROUPS)
    np.testing.assert_array_equal(renamed.ids, -plain.ids[::-1])
    for a, p, r in zip(plain.influence, permuted.influence, renamed.influence, strict=True):
        np.testing.assert_allclose(a, p, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(a, r[::-1], rtol=1e-5, atol=1e-6)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (
            lambda m, x: group_influence(m, x, GROUPS),
            'masks were not drawn over these groups: in 3 of 4, first group -2',
        ),
        (
            lambda m, x: additive_group_influence(m[:, [0, 0, 1]], x, np.array([5, 5, 6])),
            'the examples of 1 of 2 groups, first group 5, are only ever .* use group_influence',
        ),
        (lambda m, x: group_influence(m, x, GROUPS[:5]), r'8 examples, not int64 \[5\]'),
        (lambda m, x: group_influence(m, x, GROUPS * 0.5), 'one integer id'),
        (lambda m, x: group_influence(m.astype(int), x, GROUPS), 'masks must be bool'),
        (lambda m, x: additive_group_influence(m, x[:, 0], GROUPS), r'losses \[members targets\]'),
        (lambda m, x: additive_group_influence(m[:9], x, GROUPS), 'masks have 9 members'),
        (lambda m, x: additive_group_influence(m & False, x, np.arange(8)), 'fewer than 2'),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    masks = drawn(members=30)
    with pytest.raises(ValueError, match=message) as refused:
        call(masks, np.random.default_rng(0).normal(size=(30, 4)))
    assert '\n' not in str(refused.value)
