"""Values of what was selected by its value, without the exaggeration that comes of selecting.

The largest of many noisy estimates is, on average, larger than the truth (the winner's curse).
Members that had no part in selecting an entry tell its influence without that bias.
"""

import numpy as np
import scipy.special
from jaxtyping import Bool, Float, Int

from influence_jax.types import AnyArray

_HALVES = slice(0, None, 2), slice(1, None, 2)

_FOLDS_ROOT = 2.0  # square root of the number of folds less one: five folds
_SHIFT = -scipy.special.ndtri(np.exp(-1))  # then what is taken off on average is the bias


def without_own(
    masks: Bool[np.ndarray, 'M N'], losses: Float[np.ndarray, 'M t'], own: Int[np.ndarray, ' t']
) -> Float[np.ndarray, 'M t']:
    """Losses less the means of members with and without the own example, in each half apart."""
    left = np.array(losses, np.float32)
    included = masks[:, own] & (own >= 0)
    for half in _HALVES:
        part = left[half]
        for group in (included[half], ~included[half]):
            size = np.maximum(group.sum(axis=0), 1)
            part -= group * ((part * group).sum(axis=0) / size)
    return left


def strongest_other(
    masks: Bool[np.ndarray, 'M N'],
    left: Float[np.ndarray, 'M t'],
    candidates: Int[np.ndarray, '2 t K'],
    own: Int[np.ndarray, ' t'],
) -> Float[np.ndarray, ' t']:
    """Influence of the example that half of the members find strongest, by the other half.

    Mean of both directions; NaN where a half finds no positive influence among those given.

    Args:
      masks: of all members.
      left: `without_own`.
      candidates: strongest examples by members of even and of odd number, as `Scan.suspects`
        has them.
      own: as in `examples_of_targets`.
    """
    allowed = candidates != own[None, :, None]
    found = []
    for chosen_by, told_by, examples, may in zip(
        _HALVES, _HALVES[::-1], candidates, allowed, strict=True
    ):
        chosen = np.where(may, _differences(masks[chosen_by], left[chosen_by], examples), -np.inf)
        best = np.argmax(chosen, axis=1)[:, None]
        told = _differences(masks[told_by], left[told_by], np.take_along_axis(examples, best, 1))
        positive = np.take_along_axis(chosen, best, 1) > 0
        found.append(np.where(positive, told, np.nan)[:, 0])
    return np.mean(found, axis=0)


def _differences(
    masks: Bool[np.ndarray, 'm N'],
    losses: Float[np.ndarray, 'm t'],
    examples: Int[np.ndarray, 't K'],
) -> Float[np.ndarray, 't K']:
    """Mean without - mean with; NaN where one is of nobody."""
    included = masks.T[examples].astype(np.float32)
    count = included.sum(axis=-1)
    inside = np.einsum('tkm,mt->tk', included, losses)
    with np.errstate(divide='ignore', invalid='ignore'):
        outside = losses.sum(axis=0)[:, None] - inside
        return outside / (len(masks) - count) - inside / count


def of_listed(
    values: Float[AnyArray, ' P'], z: Float[AnyArray, ' P'], *, least_z: float
) -> Float[np.ndarray, ' P']:
    """Cross-fitted values of entries that were listed because |z| exceeds a threshold.

    What five-fold cross-fitting gives on average over all ways of drawing the folds, in closed
    form for normal errors: four fifths of the members list an entry, the remaining fifth tells
    its value (the estimate in two stages of Cohen and Sackrowitz 1989, Statistics and Probability
    Letters 8:273; the shift of the threshold, by which the mean over listed entries is right
    although the listing is by all members, is ours). Entries far beyond the threshold keep
    their value.

    Args:
      values: influences.
      z: in standard errors; of the same sign.
      least_z: the threshold.
    """
    size = np.abs(np.asarray(z, np.float64))
    at = _SHIFT - _FOLDS_ROOT * (size - least_z)
    # The inverse Mills ratio.
    ratio = np.exp(-(at**2) / 2 - scipy.special.log_ndtr(-at)) / np.sqrt(2 * np.pi)
    with np.errstate(divide='ignore', invalid='ignore'):
        return np.asarray(values) * (1 - np.where(size > 0, _FOLDS_ROOT * ratio / size, 0))
