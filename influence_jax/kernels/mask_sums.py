"""Sums of the losses of the members that have an example, of all examples: `mask_sums.cc`."""

import numpy as np
from jaxtyping import Float

from influence_jax.kernels.calls import FLOATS, INT, STRUCTURE, Function
from influence_jax.kernels.summaries import Masks
from influence_jax.threads import in_threads

_TARGETS = 16  # of a call

_SUMS = Function('mask_sums.cc', 'mask_sums', (STRUCTURE, INT, FLOATS, FLOATS))


there = _SUMS.there


def sums(
    masks: Masks, losses: Float[np.ndarray, 'M t'], *, included: Float[np.ndarray, 'P N']
) -> Float[np.ndarray, 'P N t']:
    """Sums over all members, or, of two parts, over those of even and of odd number.

    Losses are rounded to 24 bits of the largest sum of 252 members, of two parts to 16 bits, which
    is 0.006 standard errors of a normal loss's entry at most; their means stay what they were.

    Args:
      masks: of the members.
      losses: float32, best in Fortran's order.
      included: float32, how many members of a part have each example; of one part or two.
    """
    parts, targets = len(included), losses.shape[1]
    found = np.empty((parts, masks.examples, targets), np.float32)
    in_threads(_SUMS.bound(masks.by_word(losses), parts, included, found), targets, step=_TARGETS)
    return found
