"""P-values from the randomness of the masks, against every subset there is."""

import itertools

import numpy as np
import pytest
import scipy.stats

from influence_jax.estimators.uncertainty import randomization_p_values as p_values


def losses_of(kind, members, generator):
    return {
        'normal': generator.normal(size=members),
        'exponential': generator.exponential(size=members),
        'lognormal': np.exp(generator.normal(size=members)),
    }[kind]


@pytest.mark.parametrize(('members', 'included'), [(16, 8), (20, 5), (20, 15), (22, 6)])
@pytest.mark.parametrize('kind', ['normal', 'exponential', 'lognormal'])
def test_tails_are_those_of_all_subsets(kind, members, included):
    losses = losses_of(kind, members, np.random.default_rng(3))
    subsets = np.array(list(itertools.combinations(range(members), included)))
    sums = losses[subsets].sum(axis=1)
    order = np.argsort(sums)
    for level in (0.002, 0.01, 0.1, 0.9, 0.99, 0.998):
        at = order[int(level * len(sums))]
        column = np.zeros((1, members), bool)
        column[0, subsets[at]] = True
        lower, upper = (sums <= sums[at] + 1e-9).mean(), (sums >= sums[at] - 1e-9).mean()
        exact = 2 * min(lower, upper)
        assert p_values(column, losses[None])[0] == pytest.approx(exact, rel=0.25)


def test_far_out_it_is_the_tail_of_students_t_for_normal_losses():
    """Independent losses, half of 4,000 members in: the difference of means is nearly normal."""
    generator = np.random.default_rng(0)
    columns = np.zeros((3, 4000), bool)
    columns[:, ::2] = True
    losses = generator.normal(size=4000)
    losses -= np.where(columns[0], losses[::2].mean(), losses[1::2].mean())
    shifts = np.array([3.0, 5, -7])[:, None]
    moved = losses + shifts * losses.std() / np.sqrt(4000) * np.where(columns, 1, -1)
    z = np.array([3.0, 5, 7])
    expected = 2 * scipy.stats.t.sf(z, 3998)
    np.testing.assert_allclose(p_values(columns, moved), expected, rtol=0.03)


def test_losses_of_two_values_are_counted_exactly():
    columns = np.zeros((3, 100), bool)
    columns[:, :10] = True
    losses = np.zeros((3, 100))
    losses[0, :20] = losses[1, 5:25] = losses[2, 9:29] = 1
    of = scipy.stats.hypergeom(100, 20, 10)
    expected = [2 * min(of.sf(k - 1), of.cdf(k)) for k in (10, 5, 1)]
    np.testing.assert_allclose(p_values(columns, losses), np.minimum(expected, 1), rtol=1e-9)


def test_no_p_value_is_below_what_the_number_of_subsets_allows():
    columns = np.zeros((1, 12), bool)
    columns[0, :6] = True
    losses = np.where(columns, 0.0, 1.0)
    assert p_values(columns, losses)[0] == pytest.approx(2 / 924)


def test_losses_without_any_spread_are_no_discovery():
    columns = np.random.default_rng(0).random((2, 30)) < 0.5
    np.testing.assert_array_equal(p_values(columns, np.full((2, 30), 3.0)), 1)


def test_it_does_not_depend_on_unit_or_on_what_is_beside():
    generator = np.random.default_rng(0)
    columns, losses = generator.random((70, 40)) < 0.3, generator.exponential(size=(70, 40))
    whole = p_values(columns, losses)
    np.testing.assert_allclose(p_values(columns[:5], 1e6 * losses[:5] + 3), whole[:5], rtol=1e-3)
