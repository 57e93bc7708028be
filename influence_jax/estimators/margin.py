"""How far the largest influence on a target stands above the second largest."""

import numpy as np
import scipy
from jaxtyping import Float


def margin_of_largest(
    largest: Float[np.ndarray, '...'], second: Float[np.ndarray, '...']
) -> Float[np.ndarray, '...']:
    """Top-1 Influence Margin, largest / second largest influence (arXiv 2506.20481).

    A ratio tells nothing where its parts are not positive: inf where the second is not, NaN where
    the largest is not, or where one of them is NaN.
    """
    positive = (largest > 0) & (second > 0)
    with np.errstate(over='ignore'):
        ratio = np.divide(largest, second, where=positive, out=np.full_like(largest, np.nan))
    return np.where((largest > 0) & (second <= 0), np.inf, ratio).astype(largest.dtype)


def floored_margin(
    largest: Float[np.ndarray, '...'],
    second: Float[np.ndarray, '...'],
    floor: Float[np.ndarray, '...'] | float,
) -> Float[np.ndarray, '...']:
    """Largest influence / max(second largest, floor): what of the margin is more than noise.

    The second largest influence on a target that no other example influences is the extreme of N
    draws of noise, which the plain ratio divides by. With a floor above that extreme the
    ratio is a statement about the target: at least so many times more than any other.

    Args:
      largest: influences.
      second: of the same shape.
      floor: positive, in the unit of the influences: a number of standard errors of the second
        largest (then it shrinks as members are added), or a number of nats, which makes margins
        of different ensembles comparable once the noise lies below it.

    Returns:
      NaN where the largest is not positive, or where one of the three is NaN.

    Raises:
      ValueError: a floor that is not positive.
    """
    if np.any(np.asarray(floor) <= 0):
        raise ValueError('the floor of a margin must be positive')
    return margin_of_largest(largest, np.maximum(second, floor).astype(largest.dtype))


def z_margin(
    largest: Float[np.ndarray, '...'],
    second: Float[np.ndarray, '...'],
    largest_error: Float[np.ndarray, '...'],
    second_error: Float[np.ndarray, '...'],
) -> Float[np.ndarray, '...']:
    """How surely the largest influence exceeds the second: their difference in standard errors.

    (largest - second) / sqrt(SE_1^2 + SE_2^2), the two estimates being taken for independent
    (our reconstruction). About 0 .. 2 where two examples may as well be equally strong, as
    near-duplicates are; grows with the square root of the members where they are not.
    """
    with np.errstate(divide='ignore', invalid='ignore'):
        return (largest - second) / np.hypot(largest_error, second_error)


def joint_margin(*margins: Float[np.ndarray, ' _']) -> Float[np.ndarray, ' T']:
    """The mean rank of each target by several margins, as a share of the targets: in (0, 1].

    Margins of an ensemble and of a cheap score have no common scale, and each overlooks some
    near-duplicates: the ensemble those that are noise, the score those that only look alike. Low
    where all margins are; ties, and targets without a margin (NaN), have the mean of their ranks,
    the latter among infinite ones.

    Raises:
      ValueError: no margins, or of different lengths.
    """
    lengths = {len(margin) for margin in margins}
    if len(lengths) != 1:
        raise ValueError(f'margins have {sorted(lengths)} targets: give one or more of one length')
    ranks = [scipy.stats.rankdata(np.where(np.isnan(m), np.inf, m)) for m in margins]
    return np.mean(ranks, axis=0) / lengths.pop()
