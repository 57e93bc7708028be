"""What a target's influence distribution says of it, in a word: the rule of page and explorer."""

import enum

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators import RELIABLE, Summary, p_values, z_scores
from influence_jax.estimators.uncertainty import z_of_p

_FALSE_MEMORIZED = 0.05
_OUTSIDE_INTERVAL = 0.05
_NEAR = 0.5
_NEGLIGIBLE = 0.1
_IN_TURN = 3.0  # standard errors of one entry that is named beforehand


class Verdict(enum.IntEnum):
    """What becomes of a target, in the order in which legends list it."""

    UNIQUE = 0
    NEAR_DUPLICATED = 1
    INFLUENCED = 2
    UNLEARNED = 3
    NOT_MEMORIZED = 4
    UNCERTAIN = 5

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
        'memorized mostly from its own record: its self-influence stands out of the noise, and the '
        'strongest influence of any other example is surely below half of it',
    ),
    Verdict.NEAR_DUPLICATED: (
        'has near-duplicates',
        'another example stands out of the noise and influences it at least half as much as its '
        'own record (a floored margin of at most two), and is influenced by it in turn: the two '
        'stand in for one another',
    ),
    Verdict.INFLUENCED: (
        'influenced by others',
        'another example stands out of the noise and influences it at least half as much as its '
        'own record, if it has one here; whether the other is influenced in turn is not shown, or '
        'not known',
    ),
    Verdict.UNLEARNED: (
        'unlearned',
        'its loss is the same whether or not members hold it, and high: its self-influence is '
        'surely below half of what is typical of memorized targets here (below a tenth, where it '
        'stands out of the noise), and its mean loss is above all of that',
    ),
    Verdict.NOT_MEMORIZED: (
        'not memorized',
        'members do as well on it without it: its self-influence is surely below half of what is '
        'typical of memorized targets here (below a tenth, where it stands out of the noise), and '
        'what is left of its loss is less than what is typical, or is not known',
    ),
    Verdict.UNCERTAIN: (
        'uncertain',
        f'its self-influence rests on fewer than {RELIABLE} effective members, or errors are too '
        'large for any of the other verdicts, such as that of another example that may or may not '
        'be a near-duplicate: more members help',
    ),
}


def verdicts(
    summary: Summary,
    *,
    mean_loss: Float[np.ndarray, ' T'] | None = None,
    target_examples: Int[np.ndarray, ' T'] | None = None,
) -> Int[np.ndarray, ' T']:
    """Returns the value of the `Verdict` on each target.

    Let s be the self-influence, e its standard error, o the strongest other influence. In order:

    1. uncertain, where s rests on fewer than `RELIABLE` effective members.
    2. near-duplicated or influenced, where o stands out (`Summary.other_stands_out`, which counts
       all N T entries) and o >= s / 2: the margin on its floored scale is at most 2, or the other
       example is stronger than the own one. A target that is no example has no s: there the first
       decides. Near-duplicated where the target's example influences a target that is the other
       example, too: among that one's strongest, by three standard errors. Examples that help all
       others, as prototypes do, are helped by none of them.
    3. unlearned or not memorized, where no other stands out and the upper end of the 95 % interval
       of s is below S / 10, or below S / 2 where s does not stand out; S is the median of s over
       the targets where it stands out and none of rule 2 does. s stands out by one-sided Student's
       t: at most 5 in a hundred runs without any influence have such a target (Bonferroni over the
       T own entries). With many members the smallest influence stands out: it is none to speak of.
       Unlearned where the mean loss is at least S, what memorizing typically takes away. As s is
       about nothing there, the mean over all members is that of those that hold the target, and
       that of those that do not.
    4. unique, where s stands out and the upper end of the 95 % interval of o is below s / 2: that o
       does not stand out among all entries does not make it small.
    5. uncertain, everything else; all targets of columns without standard errors.

    Args:
      summary: of the influences.
      mean_loss: `[T]` mean measurement of each target over all members; None where not known.
      target_examples: `[T]` position of the example that each target is, -1 where it is none; by
        default target t is example t where it has a self-influence.

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
    influenced = summary.other_stands_out & ~(other < _NEAR * own)
    if target_examples is None:
        target_examples = np.where(np.isnan(own), -1, np.arange(len(own)))
    near = influenced & _in_turn(summary, target_examples)
    memorized = stands_out & ~influenced
    wide = z_of_p(_OUTSIDE_INTERVAL, members=members)
    found = np.full(len(own), Verdict.UNCERTAIN, np.int32)
    known = ~(summary.effective_members < RELIABLE)
    # Where there is no other example, nothing is known to be near.
    alone = ~(other + wide * summary.other_standard_error >= _NEAR * own)
    found[memorized & alone] = Verdict.UNIQUE
    if (memorized & known).any():
        typical = np.median(own[memorized & known])
        high = own + wide * error
        small = (high < _NEGLIGIBLE * typical) | (~stands_out & (high < _NEAR * typical))
        small &= ~summary.other_stands_out
        found[small] = Verdict.NOT_MEMORIZED
        if mean_loss is not None:
            found[small & (mean_loss >= typical)] = Verdict.UNLEARNED
    found[influenced] = Verdict.INFLUENCED
    found[near] = Verdict.NEAR_DUPLICATED
    found[~known] = Verdict.UNCERTAIN
    return found


def _in_turn(summary: Summary, target_examples: Int[np.ndarray, ' T']) -> Bool[np.ndarray, ' T']:
    """Whether each target's own example is known to influence what influences it most."""
    known = np.flatnonzero(target_examples >= 0)
    if not known.size:
        return np.zeros(len(target_examples), bool)
    examples = max(int(target_examples.max()), int(summary.strongest_other.max())) + 1
    target_of = np.full(examples, -1)
    target_of[target_examples[known]] = known
    other = target_of[summary.strongest_other]
    strong = (summary.top_examples[other] == target_examples[:, None]) & (
        summary.top_z[other] >= _IN_TURN
    )
    return (target_examples >= 0) & (other >= 0) & strong.any(axis=1)
