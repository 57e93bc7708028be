"""Moments of losses within groups of members, each about its own mean, so that groups merge."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.threads import IN_CACHE, in_threads
from influence_jax.types import AnyArray

OUT, IN = range(2)
"""Groups: members without a target's example, and with it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Moments:
    """Of groups of numbers, arrays of one shape in float64; 0 of nobody.

    Attributes:
      count: how many numbers.
      mean: of these.
      second: sum of the squares of what they differ from their mean.
      third: of the third powers.
      fourth: of the fourth powers.
    """

    count: Float[np.ndarray, '...']
    mean: Float[np.ndarray, '...']
    second: Float[np.ndarray, '...']
    third: Float[np.ndarray, '...']
    fourth: Float[np.ndarray, '...']

    def merged(self) -> 'Moments':
        """The groups along the first axis as one.

        The binomial expansion of powers about the common mean (Chan, Golub and LeVeque 1983, The
        American Statistician 37:242, for squares).
        """
        count = self.count.sum(axis=0)
        mean = (self.count * self.mean).sum(axis=0) / np.maximum(count, 1)
        d = np.where(self.count > 0, self.mean - mean, 0)
        d2 = d * d
        second = self.second + self.count * d2
        third = self.third + 3 * d * self.second + self.count * d2 * d
        fourth = self.fourth + 4 * d * self.third + 6 * d2 * self.second + self.count * d2 * d2
        return Moments(count, mean, *(powers.sum(axis=0) for powers in (second, third, fourth)))


def moments_by_group(
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[AnyArray, 'M t'],
    examples: Int[np.ndarray, ' t'],
) -> Moments:
    """Moments `[2 2 t]`: of members of even and of odd number, without an example and with it.

    Args:
      masks: of all members.
      losses: of the same.
      examples: one for each target; -1 for none, which no member has.
    """
    found = np.zeros((5, 2, 2, len(examples)))

    def of_some(targets: slice) -> None:
        own = examples[targets]
        has = masks[:, own] & (own >= 0)
        groups = (OUT, IN) if has.any() else (OUT,)
        for half in (0, 1):
            y = np.asarray(losses[half::2, targets], np.float64)
            for group in groups:
                weights = (has[half::2] == bool(group)).astype(np.float64)
                count = weights.sum(axis=0)
                mean = np.einsum('mt,mt->t', weights, y) / np.maximum(count, 1)
                d = (y - mean) * weights
                d2 = d * d
                powers = (np.einsum('mt,mt->t', d2, other) for other in (weights, d, d2))
                found[:, half, group, targets] = count, mean, *powers

    in_threads(of_some, len(examples), step=IN_CACHE)
    return Moments(*found)
