"""Examples that are memorized and examples that are generalized from, by the signs of influence."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators import Columns

_TILE = 512


class SignSplit(NamedTuple):
    """What an example does to itself and to the others, and the groups that follow from the signs.

    on_self: `[N]` its influence on itself; NaN where it is no target.
    on_others: `[N]` the mean of its influences on all other targets.
    generalized: `[N]` bool; it lowers the measurement of the others: they generalize from it.
    memorized: `[N]` bool; it lowers its own, and raises or does not change that of the others.
    """

    on_self: Float[np.ndarray, ' N']
    on_others: Float[np.ndarray, ' N']
    generalized: Bool[np.ndarray, ' N']
    memorized: Bool[np.ndarray, ' N']


def split_by_sign(columns: Columns, self_index: Int[np.ndarray, ' T']) -> SignSplit:
    """Splits examples into points to generalize upon and points to memorize.

    Our reading of Kounavis et al. 2023, "On influence functions, classification influence, relative
    influence, memorization and generalization" (arXiv 2305.16094): the sign of what an example does
    to others tells the two apart. An example with on_others > 0 is generalized from; one with
    on_others <= 0 < on_self is memorized. What helps neither itself nor the others is in no group.

    Args:
        columns: influences, or a method's scores.
        self_index: `[T]` position of the target's own example, -1 where it is none.

    Raises:
        ValueError: no targets but one's own, so that nothing is known of others.
    """
    on_self = np.full(columns.examples, np.nan)
    total, others = np.zeros(columns.examples), np.full(columns.examples, columns.targets)
    for some, influence in columns.tiles(tile=_TILE):
        own, values = self_index[some], np.asarray(influence.values, np.float64)
        place = np.flatnonzero(own >= 0)
        on_self[own[place]] = values[own[place], place]
        values[own[place], place] = 0
        total += values.sum(axis=1)
    np.subtract.at(others, self_index[self_index >= 0], 1)
    if not others.all():
        raise ValueError(
            f'{columns.targets} targets: an example is the only one; give more targets'
        )
    on_others = total / others
    generalized = on_others > 0
    return SignSplit(on_self, on_others, generalized, (on_others <= 0) & (on_self > 0))
