"""How much a target depends on itself, and how much more than on anything else.

Wherever members learned, self-influences stand out of their columns (`self_influence_excess`). That
they do not is what the numbers show of tensors that mean something else: targets or members in
another order than the masks have, inverted masks, something of which more is better.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Real

from influence_jax.estimators.ensemble import examples_of_targets
from influence_jax.estimators.margin import margin_of_largest
from influence_jax.estimators.summary import Summary
from influence_jax.types import AnyArray, Influence


def influence_values(influence: Influence | Real[AnyArray, 'N T']) -> Float[np.ndarray, 'N T']:
    """The matrix `[N T]` itself, as a floating numpy array.

    Raises:
      ValueError: it is not a matrix, has an empty axis, or does not hold real numbers.
    """
    values = np.asarray(influence.values if isinstance(influence, Influence) else influence)
    if values.ndim != 2 or not values.size or values.dtype.kind not in 'fiu':
        raise ValueError(
            'influence must be real numbers [examples targets], '
            f'not {values.dtype} {list(values.shape)}'
        )
    return values if values.dtype.kind == 'f' else values.astype(np.float64)


def self_influence(
    influence: Influence | Real[AnyArray, 'N T'],
    target_examples: Int[AnyArray, ' T'] | None = None,
) -> Float[np.ndarray, ' T']:
    """Influence of each target's own example on it, I(t => t): its memorization (Feldman, 2020).

    Args:
      influence: `[N T]`, or an `Influence` of that.
      target_examples: `[T]` position of the example that each target is, -1 where it is none. May
        be left out of a square matrix: target t is example t.

    Returns:
      `[T]`, in the unit of `influence`; positive where training on the target lowers its own
      loss; NaN where a target is no example.

    Raises:
      ValueError: wrong shapes, positions out of range, or a matrix that is not square
        without `target_examples`.
    """
    values = influence_values(influence)
    examples, targets = values.shape
    if target_examples is None and examples != targets:
        raise ValueError(
            f'{examples} examples are not the {targets} targets: '
            'say with target_examples which example each target is'
        )
    self_index = examples_of_targets(target_examples, examples=examples, targets=targets)
    return np.where(
        self_index >= 0, values[self_index, np.arange(targets)], values.dtype.type(np.nan)
    )


def top1_margin(influence: Influence | Real[AnyArray, 'N T']) -> Float[np.ndarray, ' T']:
    """The paper's Top-1 Influence Margin: largest / second largest influence on each target.

    A ratio, self included (arXiv 2506.20481). Near 1 where a target has near-duplicates, large
    where it alone teaches itself. Of a unique target the denominator is an extreme of the noise,
    so margins of ensembles of different size are not comparable.

    Args:
      influence: `[N T]`, or an `Influence` of that; N at least 2.

    Returns:
      `[T]`; at least 1; inf where only the largest influence is positive, NaN where none is or
      where the column holds NaN.

    Raises:
      ValueError: wrong shape, or a single example.
    """
    values = influence_values(influence)
    if len(values) < 2:
        raise ValueError('a margin needs the influence of at least 2 examples, not 1')
    # Two maxima: many times faster than a partition. A column that holds NaN has NaN for both.
    largest = values.max(axis=0)
    is_largest = values == largest[None, :]
    rest = np.where(is_largest, values.dtype.type(-np.inf), values).max(axis=0)
    return margin_of_largest(largest, np.where(is_largest.sum(axis=0) > 1, largest, rest))


_LARGEST = 3.0  # so that a few large ones do not speak for all
_SURE = 3.0
_REVERSED = 0.5
_ROUNDING = 1e-6


class SelfInfluenceExcess(NamedTuple):
    """How far self-influences lie above those of all other examples on the same targets.

    above: mean over the targets, in standard deviations of the other entries of the column, each
      within [-3, 3].
    standard_error: of it, if own examples were like all others, or members were permuted: about one
      then stays in its place, and shows at most 3 / (M - 1) of self-influences.
    targets: how many it is of: those that are examples, and whose column is not constant.
    """

    above: float
    standard_error: float
    targets: int

    @property
    def stands_out(self) -> bool:
        """Whether they are larger than chance would have them (by 3 standard errors)."""
        return self.above >= _SURE * self.standard_error

    @property
    def is_reversed(self) -> bool:
        """Whether they are smaller than chance would have them, and not by a little.

        A few members that are exchanged for others make them a little smaller, too.
        """
        return self.above <= min(-_SURE * self.standard_error, -_REVERSED)


def self_influence_excess(summary: Summary, *, examples: int) -> SelfInfluenceExcess | None:
    """Compares each self-influence with the rest of its column; None where no target is an example.

    The column's own scatter is the measure: it is right whatever the standard errors are worth, and
    whatever examples do to targets in general. If the own example is like any other, each
    comparison has a mean of 0 and a standard deviation of about 1.

    Args:
      summary: of the influences.
      examples: N.
    """
    self_index = summary.self_influence.astype(np.float64)
    is_example = np.isfinite(self_index)
    if not is_example.any() or examples < 4:
        return None
    # Of the N - 1 others, from the moments of all.
    mean = (examples * summary.mean.astype(np.float64) - self_index) / (examples - 1)
    squares = np.square(summary.standard_deviation, dtype=np.float64) + np.square(
        summary.mean, dtype=np.float64
    )
    variance = (examples * squares - self_index**2) / (examples - 1) - mean**2
    varies = is_example & (squares > 0)
    # Moments are given in float32, of which nothing smaller is left.
    scale = np.sqrt(np.maximum(variance, _ROUNDING * squares)[varies])
    above = np.clip((self_index - mean)[varies] / scale, -_LARGEST, _LARGEST)
    if not above.size:
        return SelfInfluenceExcess(0.0, math.inf, 0)
    error = 1 / math.sqrt(above.size)
    if summary.members_used > 1:
        error = math.hypot(error, _LARGEST / (summary.members_used - 1))
    return SelfInfluenceExcess(float(above.mean()), error, above.size)
