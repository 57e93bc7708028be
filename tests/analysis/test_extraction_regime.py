"""Which regime of extraction a run is in, and what its page says of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from influence_jax.analysis.extraction import Extraction, by_membership
from influence_jax.analysis.extraction_regime import LEAST_BLEU, LEAST_RATIO, Regime, judge

NEAR = np.arange(12) >= 8
MASKS = np.array([[True] * 12, [False] * 12])


def given_back(unique, near_duplicated):
    """Two BLEUs of either kind around these means, alternating."""
    bleu = np.where(NEAR, near_duplicated, unique) + np.tile([-0.02, 0.02], 6)
    zero = np.zeros(12)
    return Extraction(bleu, zero > 0, zero.astype(int), zero)


def of_members(unique, near_duplicated):
    held = given_back(unique, near_duplicated).bleu
    return by_membership(MASKS, np.stack([held, 1 - held]))


@pytest.mark.parametrize(
    ('full', 'held', 'regime'),
    [
        ((0.070, 0.363), None, Regime.PAPER),  # the paper's own numbers
        ((0.053, 0.362), (0.048, 0.151), Regime.PAPER),  # NQ-open, 15 epochs
        ((0.130, 0.426), None, Regime.PAPER),
        ((0.402, 0.438), (0.919, 0.532), Regime.BEYOND),  # NQ-open, 30 epochs
        ((0.402, 0.438), None, Regime.BEYOND),
        ((0.070, 0.363), (0.919, 0.532), Regime.BEYOND),  # members alone know all
        ((0.950, 0.460), None, Regime.BEYOND),
        ((0.014, 0.023), (0.0, 0.0), Regime.BEFORE),  # NQ-open, 8 epochs
        ((0.0, 0.0), None, Regime.BEFORE),
        ((0.03, 0.03), (0.04, 0.02), Regime.BEFORE),  # what is hardly given back tells nothing
    ],
)
def test_regimes_that_were_seen(full, held, regime):
    found = judge(given_back(*full), NEAR, None if held is None else of_members(*held))
    assert found.regime is regime
    assert found.by_full_data_model == pytest.approx(full)
    if held is None:
        assert found.by_holders is None
    else:
        assert found.by_holders == pytest.approx(held)


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_papers_regime_is_that_of_clearly_more_near_duplicates(unique, near_duplicated):
    found = judge(given_back(unique, near_duplicated), NEAR)
    unique, near_duplicated = found.by_full_data_model
    if found.regime is Regime.PAPER:
        assert near_duplicated >= LEAST_BLEU
        assert unique < LEAST_BLEU or near_duplicated >= LEAST_RATIO * unique
    elif found.regime is Regime.BEYOND:
        assert unique >= LEAST_BLEU
    else:
        assert max(unique, near_duplicated / LEAST_RATIO) < LEAST_BLEU


@pytest.mark.parametrize('near', [np.ones(12, bool), np.zeros(12, bool)])
def test_one_kind_of_records_has_no_regime(near):
    assert judge(given_back(0.5, 0.5), near) is None


def test_records_that_no_member_held_are_left_out():
    held = of_members(0.1, 0.4)
    mean = np.where(np.arange(12) % 4 == 0, np.nan, held.held.mean)
    members = held._replace(held=held.held._replace(mean=mean))
    found = judge(given_back(0.1, 0.4), NEAR, members)
    assert found.by_holders.unique == pytest.approx(mean[[1, 2, 3, 5, 6, 7]].mean())
    assert found.by_holders.near_duplicated == pytest.approx(mean[9:].mean())
