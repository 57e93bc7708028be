"""What a target's distribution comes to, in a word: one rule for all targets."""

import enum

import numpy as np
from jaxtyping import Float, Int

from influence_jax.estimators import RELIABLE, Summary

LOW_MARGIN = 3.0
"""Largest over strongest other influence up to which the other is taken for a near-duplicate."""

_BOUND = 0.1
_ERRORS = 2.0


class Verdict(enum.IntEnum):
    """Verdicts, in the order of `VERDICTS`."""

    UNIQUE = 0
    NEAR_DUPLICATED = 1
    UNLEARNED = 2
    UNCERTAIN = 3


VERDICTS = (
    (
        'unique',
        'Unique',
        'Memorized by itself: its influence on itself stands out from noise, and no other example '
        'has a third of it beyond noise.',
    ),
    (
        'near_duplicated',
        'Has near-duplicates',
        'Another example stands out from noise and does at least a third of what the strongest '
        'example does for it: it is learned with that one, or instead of it.',
    ),
    (
        'unlearned',
        'Unlearned',
        'Hard, and not learned: its mean loss is above the median, and members that were trained '
        'on it have nearly the loss of those that were not: with twice its error, self-influence '
        'is below a tenth of the mean loss and does not stand out.',
    ),
    (
        'uncertain',
        'Uncertain',
        f'Self-influence rests on fewer than {RELIABLE} members, or nothing stands out from noise '
        '(also of what is known from many others together): more members may tell.',
    ),
)
"""Name, title, and the rule in words."""


def verdicts(
    summary: Summary,
    self_index: Int[np.ndarray, ' T'],
    mean_loss: Float[np.ndarray, ' T'] | None,
) -> Int[np.ndarray, ' T']:
    """Returns the `Verdict` of every target; the rule is in `VERDICTS`.

    In this order: uncertain where too few members carry self-influence, near-duplicated, unique,
    unlearned, and else uncertain. A target that is no example is near-duplicated where an example
    stands out.

    Args:
        summary: of the influence matrix.
        self_index: the example that each target is, -1 where it is none.
        mean_loss: over all members; None where it is not known, so that nothing is unlearned.
    """
    own = summary.top_stands_out & (summary.top_examples == self_index[:, None])
    self_stands_out = own.any(axis=1)
    is_low = LOW_MARGIN * summary.other_value >= summary.top_values[:, 0]
    found = np.full(len(self_index), Verdict.UNCERTAIN, np.int32)
    if mean_loss is not None:
        bound = summary.self_influence + _ERRORS * summary.self_standard_error
        hard = (mean_loss > np.nanmedian(mean_loss)) & (mean_loss > 0)
        found[hard & (bound < _BOUND * mean_loss)] = Verdict.UNLEARNED
    found[self_stands_out] = Verdict.UNIQUE
    found[summary.other_stands_out & is_low] = Verdict.NEAR_DUPLICATED
    found[summary.effective_members < RELIABLE] = Verdict.UNCERTAIN  # NaN is of no example
    return found
