"""Estimates from few members: what cannot be told of an example is NaN, not an error."""

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators import Estimator, estimate
from influence_jax.estimators.adjusted import FEWEST_MEMBERS
from influence_jax.types import Influence, PRNGKey

LEAST_MEMBERS = {
    Estimator.DIFFERENCE: 4,
    Estimator.ADJUSTED: FEWEST_MEMBERS,
    Estimator.RIDGE: FEWEST_MEMBERS,
    Estimator.LASSO: FEWEST_MEMBERS,
}
"""The fewest usable members from which each estimator gives standard errors."""


def known_influence(
    estimator: Estimator,
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M t'],
    own: Int[np.ndarray, ' t'],
) -> Influence:
    """`estimate`, NaN for the examples that are in, or out of, fewer than two of the members."""
    known = two_on_both_sides(masks)
    values = np.full((masks.shape[1], losses.shape[1]), np.nan, np.float32)
    standard_error = values.copy()
    if known.any():
        place = np.where(known, np.cumsum(known) - 1, -1)
        remaining = np.where(own >= 0, place[own], -1)
        influence = estimate(estimator, masks[:, known], losses, target_examples=remaining)
        values[known], standard_error[known] = influence
    return Influence(values, standard_error)


def two_on_both_sides(masks: Bool[np.ndarray, 'M N']) -> Bool[np.ndarray, ' N']:
    """Which examples have a standard error: in, and out of, at least two of the members."""
    included = masks.sum(axis=0)
    return (included >= 2) & (len(masks) - included >= 2)


def others(own: Int[np.ndarray, ' t'], *, examples: int) -> Bool[np.ndarray, 'N t']:
    """Entries that are not a target's influence on itself."""
    return own[None, :] != np.arange(examples)[:, None]


def host_generator(key: PRNGKey) -> np.random.Generator:
    """For a few small shuffles on the host: under jax each would cost a compilation."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
