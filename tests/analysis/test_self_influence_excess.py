"""What own influences say of tensors that mean something else, on members that learned."""

import numpy as np
import pytest

from influence_jax.analysis.margins import self_influence_excess
from influence_jax.estimators import summarize


def drawn(rng, members, records, *, effect=1.0):
    masks = rng.random((members, records)) < 0.5
    noise = 0.5 * rng.normal(size=(members, records)) + 0.3 * rng.normal(size=(members, 1))
    return masks, (3 + noise - effect * masks).astype(np.float32)


def found(masks, losses, **settings):
    return self_influence_excess(summarize(masks, losses, **settings), examples=masks.shape[1])


@pytest.mark.parametrize(('members', 'records'), [(24, 60), (200, 8)])
def test_members_that_learned_are_told_from_what_is_wrong(members, records):
    wrong = 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        masks, losses = drawn(rng, members, records)
        assert found(masks, losses).stands_out
        assert found(~masks, losses).is_reversed
        assert found(masks, np.exp(-losses)).is_reversed
        nothing = drawn(rng, members, records, effect=0.0)[1]
        wrong += found(masks, nothing).stands_out
        wrong += found(masks, losses[rng.permutation(members)]).stands_out
        # Another order that leaves no target in its place.
        wrong += found(masks, np.roll(losses, 1, axis=1)).stands_out
    assert wrong <= 1


def test_nothing_is_said_of_targets_that_are_no_examples():
    masks, losses = drawn(np.random.default_rng(0), 24, 8)
    assert found(masks, losses[:, :3]) is None
    assert found(masks, losses, target_examples=np.full(8, -1)) is None


def test_losses_that_never_differ_do_not_stand_out():
    masks, losses = drawn(np.random.default_rng(0), 24, 8)
    constant = found(masks, np.full_like(losses, 0.1))
    assert constant.targets == 0
    assert not constant.stands_out and not constant.is_reversed


def test_an_own_influence_beyond_all_rounding_stands_out():
    """Of the others nothing is left in the moments."""
    masks, losses = drawn(np.random.default_rng(1), 400, 8)
    assert found(masks, losses - 1e6 * masks).stands_out
