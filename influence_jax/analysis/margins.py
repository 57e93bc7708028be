"""How much a target depends on itself, and how much more than on anything else."""

import numpy as np
from jaxtyping import Float, Int

from influence_jax.estimators.ensemble import examples_of_targets
from influence_jax.estimators.margin import margin_of_largest
from influence_jax.types import AnyArray, Influence


def influence_values(influence: Influence | Float[AnyArray, 'N T']) -> Float[np.ndarray, 'N T']:
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
    influence: Influence | Float[AnyArray, 'N T'],
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
    own = examples_of_targets(target_examples, examples=examples, targets=targets)
    return np.where(own >= 0, values[own, np.arange(targets)], values.dtype.type(np.nan))


def top1_margin(influence: Influence | Float[AnyArray, 'N T']) -> Float[np.ndarray, ' T']:
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
