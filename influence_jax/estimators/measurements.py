"""Other quantities of the same members: each `[M T]`, lower where the target is known better.

So the sign of influence stays: positive where including the example helps.
"""

import numpy as np
from jaxtyping import Float

from influence_jax.types import AnyArray

_LEAST_LOSS = 1e-6


def clipped_loss(losses: Float[AnyArray, 'M T'], *, largest: float) -> Float[np.ndarray, 'M T']:
    """The loss, but no more than `largest` nats: few failures of a member then weigh less.

    Raises:
      ValueError: `largest` is not positive.
    """
    if not largest > 0:
        raise ValueError(f'{largest=} must be positive')
    return np.minimum(np.asarray(losses), largest)


def log_loss(losses: Float[AnyArray, 'M T']) -> Float[np.ndarray, 'M T']:
    """The logarithm of the loss, at least 1e-6: every halving of a loss counts alike."""
    return np.log(np.maximum(np.asarray(losses), _LEAST_LOSS))


def error_probability(losses: Float[AnyArray, 'M T']) -> Float[np.ndarray, 'M T']:
    """1 - exp(-loss), the probability given to anything but the truth; in [0, 1]."""
    return -np.expm1(-np.asarray(losses))


def negated(gains: Float[AnyArray, 'M T']) -> Float[np.ndarray, 'M T']:
    """Of what is higher where the target is known better: logit gap, correctness."""
    return -np.asarray(gains)
