"""What can be known of a record before it is attacked: summaries of the influence on it."""

import numpy as np
from jaxtyping import Float, Int

from influence_jax.estimators.ensemble import usable
from influence_jax.estimators.kinds import Estimator
from influence_jax.estimators.summary import summarize
from influence_jax.estimators.uncertainty import z_scores
from influence_jax.types import AnyArray, Masks, Measurement


def predictors(
    masks: Masks,
    losses: Measurement,
    *,
    estimator: Estimator = Estimator.DIFFERENCE,
    target_examples: Int[AnyArray, ' T'] | None = None,
) -> dict[str, Float[np.ndarray, ' T']]:
    """Scores of every target, by name, that may foretell how well its membership is inferred.

    'self-influence': I(t => t). 'standardized self-influence': that in its standard errors, so that
    records of different spread can be compared. 'margin', 'floored margin', 'z margin': as in
    `Summary`. 'total influence': sum of the target's column. 'mean loss': over all members,
    without regard to the masks. Margins are ratios, what is standardized has no unit, the others
    have that of the losses.

    Args:
      masks: `[M N]` bool.
      losses: `[M T]`; rows with anything non-finite are left out.
      estimator: of the influences.
      target_examples: as in `summarize`.

    Returns:
      `[T]` each; both self-influences NaN where a target is no example, margins as in their
      functions.

    Raises:
      ValueError: as `summarize` does.
    """
    masks, losses = usable(masks, losses)
    summary = summarize(
        masks, losses, estimator=estimator, top_k=2, target_examples=target_examples
    )
    return {
        'self-influence': summary.self_influence,
        'standardized self-influence': z_scores(
            summary.self_influence, summary.self_standard_error
        ),
        'margin': summary.margin,
        'floored margin': summary.floored_margin,
        'z margin': summary.z_margin,
        'total influence': summary.mean * masks.shape[1],
        'mean loss': losses.mean(axis=0, dtype=np.float64),
    }
