"""What a target's influence distribution says of it, in a word: the rule of page and explorer."""

import enum

import numpy as np
from jaxtyping import Float, Int

from influence_jax.estimators import RELIABLE, Summary, p_values, z_scores
from influence_jax.estimators.uncertainty import z_of_p

_FALSE_MEMORIZED = 0.05
_OUTSIDE_INTERVAL = 0.05
_NEAR = 0.5


class Verdict(enum.IntEnum):
    """What becomes of a target, in the order in which legends list it."""

    UNIQUE = 0
    NEAR_DUPLICATED = 1
    UNLEARNED = 2
    NOT_MEMORIZED = 3
    UNCERTAIN = 4

    @property
    def title(self) -> str:
        """Returns the name for people."""
        return _WORDS[self][0]

    @property
    def help(self) -> str:
        """Returns the rule, in a sentence."""
        return _WORDS[self][1]


_WORDS = {
    Verdict.UNIQUE: (
        'unique',
        'memorized mostly from its own record: its self-influence stands out of the noise, and no '
        'other example that stands out influences it half as much',
    ),
    Verdict.NEAR_DUPLICATED: (
        'has near-duplicates',
        'another example stands out of the noise and influences it at least half as much as its '
        'own record (a floored margin of at most two): the two stand in for one another',
    ),
    Verdict.UNLEARNED: (
        'unlearned',
        'its loss is the same whether or not members hold it, and high: its self-influence is '
        'surely below half of what is typical of memorized targets here, and its mean loss is '
        'above all of that',
    ),
    Verdict.NOT_MEMORIZED: (
        'not memorized',
        'members do as well on it without it: its self-influence is surely below half of what is '
        'typical of memorized targets here, and what is left of its loss is less than that, or is '
        'not known',
    ),
    Verdict.UNCERTAIN: (
        'uncertain',
        f'its self-influence rests on fewer than {RELIABLE} effective members, or its error is too '
        'large for any of the other verdicts: more members help',
    ),
}


def verdicts(
    summary: Summary, *, mean_loss: Float[np.ndarray, ' T'] | None = None
) -> Int[np.ndarray, ' T']:
    """Returns the value of the `Verdict` on each target.

    Let s be the self-influence, e its standard error, o the strongest other influence. In order:

    1. uncertain, where s rests on fewer than `RELIABLE` effective members.
    2. near-duplicated, where o stands out (`Summary.other_stands_out`, which counts all N T
       entries) and o >= s / 2: the margin on its floored scale is at most 2, or the other example
       is stronger than the own one. A target that is no example has no s: there the first decides.
    3. unique, where s stands out: one-sided Student's t, at most 5 in a hundred runs without any
       influence have such a target (Bonferroni over the T own entries).
    4. unlearned or not memorized, where nothing stands out and the upper end of the 95 % interval
       of s is below S / 2, S being the median self-influence of the targets that are unique:
       the former where the mean loss is at least S, what memorizing typically takes away. As s is
       about nothing there, the mean over all members is that of those that hold the target, and
       that of those that do not.
    5. uncertain, everything else; all targets of columns without standard errors.

    Args:
      summary: of the influences.
      mean_loss: `[T]` mean measurement of each target over all members; None where not known.

    Raises:
      ValueError: `mean_loss` is not of these targets.
    """
    own, error, other = (
        np.asarray(values, np.float64)
        for values in (summary.self_influence, summary.self_standard_error, summary.other_value)
    )
    if mean_loss is not None and len(mean_loss) != len(own):
        raise ValueError(f'mean_loss has {len(mean_loss)} entries, not {len(own)}: one a target')
    members = summary.members_used or None
    p = p_values(z_scores(own, error), members=members) / 2
    stands_out = (own > 0) & (p * len(own) <= _FALSE_MEMORIZED)
    near = summary.other_stands_out & ~(other < _NEAR * own)
    unique = stands_out & ~near
    found = np.full(len(own), Verdict.UNCERTAIN, np.int32)
    known = ~(summary.effective_members < RELIABLE)
    if (unique & known).any():
        typical = np.median(own[unique & known])
        high = own + z_of_p(_OUTSIDE_INTERVAL, members=members) * error
        small = ~stands_out & ~summary.other_stands_out & (high < _NEAR * typical)
        found[small] = Verdict.NOT_MEMORIZED
        if mean_loss is not None:
            found[small & (mean_loss >= typical)] = Verdict.UNLEARNED
    found[unique] = Verdict.UNIQUE
    found[near] = Verdict.NEAR_DUPLICATED
    found[~known] = Verdict.UNCERTAIN
    return found
