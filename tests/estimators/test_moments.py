"""Moments by groups of members beside numpy's of the numbers themselves."""

import numpy as np
import pytest
from scipy import stats

from influence_jax.estimators.moments import IN, OUT, moments_by_group


@pytest.fixture(scope='module')
def ensemble():
    generator = np.random.default_rng(0)
    masks = generator.random((41, 70)) < 0.4
    losses = generator.gamma(1.0, size=(41, 70))
    # Groups far apart, hardly any spread within: powers of the numbers themselves would cancel.
    losses[:, 3] = np.where(masks[:, 3], 0, 1) + 1e-5 * losses[:, 3]
    examples = np.arange(70)
    examples[5] = -1
    return masks, losses, examples


def test_groups_are_the_members_of_even_and_odd_number_without_the_example_and_with_it(ensemble):
    masks, losses, examples = ensemble
    found = moments_by_group(masks, losses, examples)
    for target, example in enumerate(examples):
        has = masks[:, example] & (example >= 0)
        for half in (0, 1):
            for group, which in ((OUT, ~has[half::2]), (IN, has[half::2])):
                of = losses[half::2, target][which]
                parts = (found.count, found.mean, found.second, found.third, found.fourth)
                count, mean, *powers = (part[half, group, target] for part in parts)
                assert count == len(of)
                if not of.size:
                    assert not mean and not any(powers)
                    continue
                d = of - of.mean()
                np.testing.assert_allclose(mean, of.mean(), rtol=1e-12)
                for power, value in zip((2, 3, 4), powers, strict=True):
                    size = np.sum(np.abs(d) ** power)
                    np.testing.assert_allclose(value, np.sum(d**power), atol=1e-9 * size)


def test_merged_groups_are_those_of_all_their_members(ensemble):
    masks, losses, examples = ensemble
    whole = moments_by_group(masks, losses, examples).merged().merged()
    np.testing.assert_array_equal(whole.count, 41)
    np.testing.assert_allclose(whole.mean, losses.mean(axis=0))
    np.testing.assert_allclose(whole.second / 41, losses.var(axis=0))
    skewness = whole.third / 41 / losses.std(axis=0) ** 3
    kurtosis = whole.fourth / 41 / losses.var(axis=0) ** 2 - 3
    np.testing.assert_allclose(skewness, stats.skew(losses), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(kurtosis, stats.kurtosis(losses), rtol=1e-8, atol=1e-9)
