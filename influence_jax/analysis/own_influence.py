"""Whether targets' own examples stand out of their columns, as they do wherever members learned.

That they do not is what the numbers show of tensors that mean something else: targets or members
in another order than the masks have, inverted masks, something of which more is better.
"""

import math
from typing import NamedTuple

import numpy as np

from influence_jax.estimators.summary import Summary

_LARGEST = 3.0  # so that a few large ones do not speak for all
_SURE = 3.0
_REVERSED = 0.5
_ROUNDING = 1e-6


class OwnInfluence(NamedTuple):
    """How far own influences lie above those of all other examples on the same targets.

    above: mean over the targets, in standard deviations of the other entries of the column, each
      within [-3, 3].
    standard_error: of it, if own examples were like all others, or members were permuted: about one
      then stays in its place, and shows at most 3 / (M - 1) of own influences.
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


def own_influence(summary: Summary, *, examples: int) -> OwnInfluence | None:
    """Compares each own influence with the rest of its column; None where no target is an example.

    The column's own scatter is the measure: it is right whatever the standard errors are worth, and
    whatever examples do to targets in general. If the own example is like any other, each
    comparison has a mean of 0 and a standard deviation of about 1.

    Args:
      summary: of the influences.
      examples: N.
    """
    own = summary.self_influence.astype(np.float64)
    is_example = np.isfinite(own)
    if not is_example.any() or examples < 4:
        return None
    # Of the N - 1 others, from the moments of all.
    mean = (examples * summary.mean.astype(np.float64) - own) / (examples - 1)
    squares = np.square(summary.standard_deviation, dtype=np.float64) + np.square(
        summary.mean, dtype=np.float64
    )
    variance = (examples * squares - own**2) / (examples - 1) - mean**2
    varies = is_example & (squares > 0)
    # Moments are given in float32, of which nothing smaller is left.
    scale = np.sqrt(np.maximum(variance, _ROUNDING * squares)[varies])
    above = np.clip((own - mean)[varies] / scale, -_LARGEST, _LARGEST)
    if not above.size:
        return OwnInfluence(0.0, math.inf, 0)
    error = math.hypot(1 / math.sqrt(above.size), _LARGEST / (summary.members_used - 1))
    return OwnInfluence(float(above.mean()), error, above.size)
