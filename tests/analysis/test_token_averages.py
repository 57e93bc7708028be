"""Losses of tokens averaged by membership, and pairs worth splitting: against loops."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from influence_jax.analysis.tokens import (
    Tokens,
    TokenScores,
    average_by_membership,
    pairs_to_read,
)
from influence_jax.estimators import Method

LENGTHS = (2, 7, 3, 2)  # the shortest that there are: one predicted token
MEMBERS = [0, 2, 5, 6, 9]


@pytest.fixture
def tokens():
    vocabulary = ('a', ' b', '\n', '<0xE2>', ' ')
    count = sum(LENGTHS)
    return Tokens(
        vocabulary,
        np.arange(count) % len(vocabulary),
        np.array(LENGTHS),
        np.array([1, 3, 0, 0]),
        np.array([False, True, False, False]),
    )


@pytest.fixture
def losses():
    """Of all members; where no token is predicted there is what must not be read."""
    found = np.random.default_rng(0).gamma(2, 2, (len(MEMBERS), len(LENGTHS), 8))
    for text, length in enumerate(LENGTHS):
        found[:, text, length:] = np.nan
    return found.astype(np.float32)


INCLUDED = np.array(
    [
        [1, 1, 0, 1],
        [1, 0, 0, 1],
        [0, 0, 0, 1],
        [0, 1, 1, 1],
        [1, 0, 0, 1],
    ],
    bool,
)


def test_means_and_errors_are_those_of_the_members_on_each_side(tokens, losses):
    found = average_by_membership(iter(losses), INCLUDED, tokens, members=MEMBERS)
    assert found.members.tolist() == MEMBERS
    assert found.included.tolist() == [3, 2, 1, 5]
    for text, length in enumerate(LENGTHS):
        of_text = found.of_target(text)
        assert len(of_text.texts) == len(of_text.loss_in) == length
        assert of_text.included + of_text.left_out == len(MEMBERS)
        for holds, mean, error in (
            (INCLUDED[:, text], of_text.loss_in, of_text.error_in),
            (~INCLUDED[:, text], of_text.loss_out, of_text.error_out),
        ):
            assert np.isnan(mean[0]) and np.isnan(error[0])  # the first token is not predicted
            own = losses[holds, text, 1:length].astype(np.float64)
            if len(own):
                np.testing.assert_allclose(mean[1:], own.mean(axis=0), rtol=1e-6)
            else:
                assert np.isnan(mean).all()
            if len(own) > 1:
                expected = own.std(axis=0, ddof=1) / np.sqrt(len(own))
                np.testing.assert_allclose(error[1:], expected, rtol=1e-5)
            else:
                assert np.isnan(error).all()


def test_a_target_has_its_own_tokens(tokens, losses):
    found = average_by_membership(losses, INCLUDED, tokens, members=MEMBERS)
    second = found.of_target(1)
    assert second.texts == ('\n', '<0xE2>', ' ', 'a', ' b', '\n', '<0xE2>')
    assert (second.answer_start, second.cut) == (3, True)
    assert found.of_target(3).texts == ('\n', '<0xE2>') and not found.of_target(3).cut


def test_little_scatter_around_large_losses_keeps_its_digits(tokens):
    """Sums of squares would lose it."""
    around = 1e4 + np.arange(8.0)[None, None] + 1e-3 * np.arange(5.0)[:, None, None]
    losses = np.broadcast_to(around, (5, len(LENGTHS), 8))
    found = average_by_membership(losses, INCLUDED, tokens, members=MEMBERS)
    expected = 1e-3 * np.arange(5).std(ddof=1) / np.sqrt(5)
    np.testing.assert_allclose(found.of_target(3).error_in[1:], expected, rtol=1e-4)


def test_losses_of_too_few_members_are_refused(tokens, losses):
    with pytest.raises(ValueError, match='argument'):
        average_by_membership(losses[:4], INCLUDED, tokens, members=MEMBERS)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'lengths': np.array([2, 7, 3, 3])}, '15 tokens'),
        ({'lengths': np.array([0, 9, 3, 2])}, 'lengths'),
        ({'vocabulary': ('a', 'b')}, 'vocabulary'),
        ({'answer_starts': np.array([2, 3, 0, 0])}, 'answer'),
    ],
)
def test_tokens_that_do_not_belong_together_are_refused(tokens, changes, message):
    tokens.check()
    with pytest.raises(ValueError, match=message):
        tokens._replace(**changes).check()


def scores(**changes):
    of_pairs = TokenScores(
        Method('dot', 'gradient product', 'a product'),
        '',
        3,
        np.array([5, 2, 0]),
        np.array([0, 1, 1]),
        np.array([2, 7, 7]),
        np.array([0, 1, *range(14)], np.float32),
    )
    return of_pairs._replace(**changes)


def test_scores_of_a_target_are_found():
    found = scores()
    found.check(examples=6, lengths=np.array(LENGTHS))
    assert [(example, values.tolist()) for example, values in found.of_target(0)] == [
        (5, [0.0, 1.0])
    ]
    assert [example for example, _ in found.of_target(1)] == [2, 0]
    assert found.of_target(1)[1][1].tolist() == list(range(7, 14))
    assert found.of_target(2) == []


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'examples': np.array([6, 0, 0])}, 'examples'),
        ({'targets': np.array([0, 4, 1])}, 'targets'),
        ({'lengths': np.array([2, 7, 6])}, 'other tokens'),
        ({'scores': np.zeros(15, np.float32)}, 'other tokens'),
    ],
)
def test_scores_of_other_pairs_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        scores(**changes).check(examples=6, lengths=np.array(LENGTHS))


@pytest.mark.unchecked
def test_pairs_are_of_the_most_memorized_and_of_the_lowest_margin_in_turn():
    summary = SimpleNamespace(
        top_examples=np.array([[0, 1, 2, 3], [3, 1, 0, 2], [0, 3, 1, 2], [2, 1, 0, 3]]),
        top_values=np.array([[9, 3, 2, 1], [4, 3, 2, 1], [3, 1, -1, -2], [4, 3, 2, 1]]),
    )
    overview = SimpleNamespace(
        summary=summary,
        target_examples=np.array([0, 1, 2, -1]),
        most_memorized=np.array([2, 0, 1]),
        lowest_margin=np.array([0, 1, 2, 3]),
    )
    examples, targets = pairs_to_read(overview, influencers=2)
    assert list(zip(targets.tolist(), examples.tolist(), strict=True)) == [
        *((2, 0), (2, 3)),  # the others do not help
        *((0, 1), (0, 2)),  # its own is left out
        *((1, 3), (1, 0)),
        *((3, 2), (3, 1)),
    ]
    assert set(pairs_to_read(overview, targets=2).targets.tolist()) == {0, 2}
    nobody = dataclasses.make_dataclass('Overview', vars(overview))(**vars(overview))
    nobody.summary.top_values[:] = -1
    assert len(pairs_to_read(nobody).examples) == 0
