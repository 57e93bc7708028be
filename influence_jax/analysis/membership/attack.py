"""What an attack is given and what it returns: every member attacked once, by all others.

'Member' stays the word for one trained model, as everywhere here; a record on which it was trained
is *included*, any other *left out*.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.ensemble import examples_of_targets, usable
from influence_jax.types import AnyArray, Masks, Measurement

_NAMED_IN_MESSAGES = 5

# The finest difference from a probability of 1 that float32 can tell.
_LEAST_LOSS = float(np.finfo(np.float32).eps) / 2


class Attack(NamedTuple):
    """Scores of every member on every target, and the truth.

    scores: `[M T]` float32; the higher, the surer the attack that the member's subset includes the
        target. Score [m, t] is made without knowing what subset member m was trained on.
    included: `[M T]` bool; whether it does.
    targets: `[T]` which columns of the measurement these are: those that are examples.
    """

    scores: Float[np.ndarray, 'M T']
    included: Bool[np.ndarray, 'M T']
    targets: Int[np.ndarray, 'T']


class Evidence(NamedTuple):
    """What an attack may use: usable members, and targets that are examples.

    values: `[M T]` the measurement.
    included: `[M T]` bool.
    targets: `[T]` columns of the measurement as given.
    """

    values: Float[np.ndarray, 'M T']
    included: Bool[np.ndarray, 'M T']
    targets: Int[np.ndarray, 'T']


def evidence(
    masks: Masks, measurement: Measurement, target_examples: Int[AnyArray, 'T'] | None
) -> Evidence:
    """Checks the arguments of an attack.

    Raises:
      ValueError: as in `usable`, or no target is an example.
    """
    masks, values = usable(masks, measurement)
    own = examples_of_targets(target_examples, examples=masks.shape[1], targets=values.shape[1])
    targets = np.flatnonzero(own >= 0)
    if not targets.size:
        raise ValueError(
            'none of the targets is an example, so none has a membership to be inferred: '
            'say with target_examples which example each target is'
        )
    if targets.size < values.shape[1]:
        values = values[:, targets]
    return Evidence(values, masks[:, own[targets]], targets)


def check_both_sides(given: Evidence, *, least: int) -> None:
    """Refuses targets that too few members include, or leave out, to spare the attacked one.

    Raises:
      ValueError: naming how many and the first of them.
    """
    members, count = len(given.included), given.included.sum(axis=0)
    lacking = given.targets[(count < least) | (members - count < least)]
    if lacking.size:
        shown = ', '.join(str(t) for t in lacking[:_NAMED_IN_MESSAGES])
        more = ', ...' if lacking.size > _NAMED_IN_MESSAGES else ''
        raise ValueError(
            f'{lacking.size} of {given.targets.size} targets ({shown}{more}) are included in, or '
            f'left out of, fewer than {least} of the {members} usable members: use more members'
        )


def logit_gaps(losses: Measurement) -> Float[np.ndarray, 'M T']:
    """LiRA's statistic where only the loss was recorded: log p - log(1 - p), p = exp(-loss).

    The same as log p_y - log(sum of the other classes' p) for a cross-entropy in nats. Losses below
    6e-8, a probability that float32 does not tell from 1, count as 6e-8. NaN and infinity stay.

    Raises:
      ValueError: a negative loss, which is no minus log probability.
    """
    losses = np.asarray(losses)
    if np.any(losses < 0):
        raise ValueError(
            f'losses as low as {np.nanmin(losses):g} are no -log p: give the cross-entropy in nats'
        )
    loss = np.maximum(losses, _LEAST_LOSS, dtype=losses.dtype)
    # log(1 - exp(-loss)), the way that keeps precision at either end.
    with np.errstate(divide='ignore'):
        rest = np.where(loss < np.log(2), np.log(-np.expm1(-loss)), np.log1p(-np.exp(-loss)))
    return (-loss - rest).astype(losses.dtype)
