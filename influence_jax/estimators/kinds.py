"""The estimators by name, all called alike."""

import enum
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Int

from influence_jax.estimators.adjusted import tiles as adjusted_tiles
from influence_jax.estimators.difference import tiles as difference_tiles
from influence_jax.estimators.lasso import tiles as lasso_tiles
from influence_jax.estimators.ridge import tiles as ridge_tiles
from influence_jax.estimators.tiling import TILE, whole
from influence_jax.types import AnyArray, Influence, Masks, Measurement


class Estimator(enum.Enum):
    """How influence is estimated; see the function of the same name.

    DIFFERENCE: `difference_in_means`, for any number of members.
    ADJUSTED: `adjusted`, the same quantity with less noise; from 24 members.
    RIDGE: `ridge`, a linear datamodel.
    LASSO: `lasso`, a sparse linear datamodel, debiased.
    """

    DIFFERENCE = 'difference'
    ADJUSTED = 'adjusted'
    RIDGE = 'ridge'
    LASSO = 'lasso'


def estimate(
    estimator: Estimator,
    masks: Masks,
    losses: Measurement,
    *,
    target_examples: Int[AnyArray, ' T'] | None = None,
) -> Influence:
    """Influence of every example on every target by the estimator: float32 numpy `[N T]`.

    Arguments and errors as for the estimator's own function.
    """
    blocks = tiles(estimator, masks, losses, target_examples=target_examples)
    return whole(blocks, examples=np.shape(masks)[1], targets=np.shape(losses)[1])


def tiles(
    estimator: Estimator,
    masks: Masks,
    losses: Measurement,
    *,
    target_examples: Int[AnyArray, ' T'] | None = None,
    tile: int = TILE,
) -> Iterator[tuple[slice, Influence]]:
    """Yields `estimate` by blocks of targets: a slice, and their Influence `[N tile]`."""
    return _TILES[estimator](masks, losses, target_examples=target_examples, tile=tile)


_TILES: dict[Estimator, Callable[..., Iterator[tuple[slice, Influence]]]] = {
    Estimator.DIFFERENCE: difference_tiles,
    Estimator.ADJUSTED: adjusted_tiles,
    Estimator.RIDGE: ridge_tiles,
    Estimator.LASSO: lasso_tiles,
}
