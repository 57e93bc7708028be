"""Losses and scores of the tokens of texts: what memorization means, token by token.

Texts differ in length, so all arrays here hold the tokens of one text after those of another.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.analysis.views import Overview
from influence_jax.estimators.estimator import Method
from influence_jax.types import AnyArray


class Tokens(NamedTuple):
    """The tokens of T texts, one text after another.

    vocabulary: every token that occurs, as text.
    tokens: `[P]` positions in the vocabulary.
    lengths: `[T]` tokens of each text; they add up to P.
    answer_starts: `[T]` where its completion begins; 0 where all of it is one.
    cut: `[T]` whether the text is longer than what is read of it.
    """

    vocabulary: tuple[str, ...]
    tokens: Int[np.ndarray, ' P']
    lengths: Int[np.ndarray, ' T']
    answer_starts: Int[np.ndarray, ' T']
    cut: Bool[np.ndarray, ' T']

    def check(self) -> None:
        """Refuses lengths that do not add up and positions of which there is no token; ValueError.

        Files may hold any number.
        """
        if (self.lengths < 1).any() or self.lengths.sum() != len(self.tokens):
            raise ValueError(
                f'lengths of {self.lengths.sum()} tokens in all, but there are {len(self.tokens)}'
            )
        if not 0 <= self.tokens.min() <= self.tokens.max() < len(self.vocabulary):
            raise ValueError(f'tokens beyond the {len(self.vocabulary)} of the vocabulary')
        if ((self.answer_starts < 0) | (self.answer_starts >= self.lengths)).any():
            raise ValueError('an answer that begins outside its text')


class TokenLosses(NamedTuple):
    """The loss of every predicted token, in nats, averaged over members by membership.

    The first token of a text is not predicted: its losses are NaN. Those of the others have the
    record's loss as their mean. A mean over no member is NaN, an error of fewer than two.

    tokens: of the T targets.
    members: `[M]` which members were read, ascending; no two of the same subset.
    included: `[T]` how many of them were trained on each target.
    loss_in, error_in: `[P]` mean over members that were trained on the text, and its standard error
        over members.
    loss_out, error_out: `[P]` the same of members that were not.
    """

    tokens: Tokens
    members: Int[np.ndarray, ' M']
    included: Int[np.ndarray, ' T']
    loss_in: Float[np.ndarray, ' P']
    error_in: Float[np.ndarray, ' P']
    loss_out: Float[np.ndarray, ' P']
    error_out: Float[np.ndarray, ' P']

    def of_target(self, target: int) -> 'TargetTokens':
        """Returns the tokens of one target, and their losses."""
        ends = np.cumsum(self.tokens.lengths[: target + 1])
        some = slice(int(ends[-1] - self.tokens.lengths[target]), int(ends[-1]))
        return TargetTokens(
            tuple(self.tokens.vocabulary[token] for token in self.tokens.tokens[some]),
            int(self.tokens.answer_starts[target]),
            bool(self.tokens.cut[target]),
            int(self.included[target]),
            int(len(self.members) - self.included[target]),
            *(part[some] for part in self[3:]),
        )

    def check(self) -> None:
        """Refuses what does not belong together; ValueError."""
        self.tokens.check()
        if len(self.tokens.tokens) != len(self.loss_in):
            raise ValueError(f'{len(self.loss_in)} losses of {len(self.tokens.tokens)} tokens')


class TargetTokens(NamedTuple):
    """What `TokenLosses` has of one target of S tokens.

    texts: of the tokens.
    answer_start: where the completion begins.
    cut: whether the text is longer.
    included, left_out: how many members were trained on it, and how many were not.
    loss_in, error_in, loss_out, error_out: `[S]`.
    """

    texts: tuple[str, ...]
    answer_start: int
    cut: bool
    included: int
    left_out: int
    loss_in: Float[np.ndarray, ' S']
    error_in: Float[np.ndarray, ' S']
    loss_out: Float[np.ndarray, ' S']
    error_out: Float[np.ndarray, ' S']


class TokenScores(NamedTuple):
    """On which tokens of a target an example's influence falls, by a method of attribution.

    method: of attribution.
    unit: of the scores; empty where only their order means anything.
    member: whose parameters were read.
    examples, targets: `[Q]` the pairs.
    lengths: `[Q]` tokens of each pair's target; they add up to R.
    scores: `[R]` positive where including the example lowers what the token adds to the target's
        loss; 0 of tokens that are not predicted. Those of a pair add up to its score.
    """

    method: Method
    unit: str
    member: int
    examples: Int[np.ndarray, ' Q']
    targets: Int[np.ndarray, ' Q']
    lengths: Int[np.ndarray, ' Q']
    scores: Float[np.ndarray, ' R']

    def of_target(self, target: int) -> list[tuple[int, Float[np.ndarray, ' S']]]:
        """Returns the examples of which there are scores for a target, each with its `[S]`."""
        ends = np.cumsum(self.lengths)
        return [
            (int(self.examples[pair]), self.scores[ends[pair] - self.lengths[pair] : ends[pair]])
            for pair in np.flatnonzero(self.targets == target)
        ]

    def check(self, *, examples: int, lengths: Int[np.ndarray, ' T']) -> None:
        """Refuses pairs of other examples, or of targets of other lengths; ValueError."""
        for name, positions, count in (
            ('examples', self.examples, examples),
            ('targets', self.targets, len(lengths)),
        ):
            if len(positions) and not 0 <= positions.min() <= positions.max() < count:
                raise ValueError(f'scores of {name} outside 0 .. {count - 1}')
        if (self.lengths != lengths[self.targets]).any() or self.lengths.sum() != len(self.scores):
            raise ValueError('scores of other tokens than the losses are of')


def average_by_membership(
    losses: Iterable[Float[AnyArray, 'T S']],
    included: Bool[np.ndarray, 'M T'],
    tokens: Tokens,
    *,
    members: Sequence[int],
) -> TokenLosses:
    """Averages the token losses of members, one at a time.

    Args:
        losses: of each member: entry (t, s) is the loss of token s of text t, in nats. What is in
            place of a first token, or of padding, is not read.
        included: on which texts each member was trained.
        tokens: of the texts.
        members: their numbers.

    Raises:
        ValueError: there are losses of more or of fewer members.
    """
    inside = np.arange(tokens.lengths.max())[None] < tokens.lengths[:, None]
    sums, squares = np.zeros((2, 2, len(tokens.tokens)))
    counts = np.zeros((2, len(tokens.lengths)), np.int64)
    around = np.zeros(len(tokens.tokens))  # so that squares of little scatter keep their digits
    for number, (of_member, holds, _) in enumerate(zip(losses, included, members, strict=True)):
        own = np.asarray(of_member, np.float64)[:, : inside.shape[1]][inside]
        around = own if number == 0 else around
        for side in (0, 1):
            texts = holds if side else ~holds
            counted = np.repeat(texts, tokens.lengths)
            moved = np.where(counted, own - around, 0)
            sums[side] += moved
            squares[side] += moved**2
            counts[side] += texts
    first = np.cumsum(tokens.lengths) - tokens.lengths
    found = []
    for side in (1, 0):
        of_token = np.repeat(counts[side], tokens.lengths)
        with np.errstate(invalid='ignore', divide='ignore'):
            mean = sums[side] / of_token
            variance = (squares[side] - of_token * mean**2) / (of_token - 1)
            error = np.sqrt(np.maximum(variance, 0) / of_token)
        error[of_token < 2] = np.nan
        for values in (mean + around, error):
            values[first] = np.nan
            found.append(values.astype(np.float32))
    return TokenLosses(tokens, np.array(members, np.int64), counts[1], *found)


class Pairs(NamedTuple):
    """Examples and the targets that they influence.

    examples, targets: `[Q]`.
    """

    examples: Int[np.ndarray, ' Q']
    targets: Int[np.ndarray, ' Q']


def pairs_to_read(overview: Overview, *, targets: int = 50, influencers: int = 3) -> Pairs:
    """Chooses the pairs whose scores are worth splitting by token.

    The strongest other examples, of positive influence, of the most memorized targets and of those
    of lowest margin, in turn.

    Args:
        overview: of all targets.
        targets: how many, at most.
        influencers: of each, at most.
    """
    in_turn = itertools.zip_longest(
        overview.most_memorized.tolist(), overview.lowest_margin.tolist()
    )
    chosen = dict.fromkeys(target for target in itertools.chain(*in_turn) if target is not None)
    pairs = []
    for target in itertools.islice(chosen, targets):
        examples, values = (
            part[target] for part in (overview.summary.top_examples, overview.summary.top_values)
        )
        others = examples[(examples != overview.target_examples[target]) & (values > 0)]
        pairs += [(int(example), target) for example in others[:influencers]]
    found = np.array(pairs, np.int64).reshape(-1, 2)
    return Pairs(found[:, 0], found[:, 1])
