"""Correlations of two estimates, and what they become with more members."""

import numpy as np
import scipy.stats
from jaxtyping import Float


def correlation(
    a: Float[np.ndarray, '...'], b: Float[np.ndarray, '...'], *, ranks: bool = False
) -> float:
    """Pearson's, or Spearman's, over the pairs that are defined; NaN where it has no meaning."""
    defined = ~(np.isnan(a) | np.isnan(b))
    a, b = a[defined].astype(np.float64), b[defined].astype(np.float64)
    if ranks:
        a, b = scipy.stats.rankdata(a), scipy.stats.rankdata(b)
    if a.size < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float('nan')
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def spearman_brown(agreement: float, factor: float = 2.0) -> float:
    """The reliability of `factor` times as many members, from the agreement r of two such sets.

    k r / (1 + (k - 1) r), so 2 r / (1 + r) for the whole of two halves (Spearman 1910, Brown
    1910): if independent errors have variance e, and what is estimated has v, then
    r = v / (v + e) and the answer is v / (v + e / k). A negative r comes of noise alone and is
    mirrored (our reconstruction), so that noise stays even about zero and within -1 .. 1.
    """
    return factor * agreement / (1 + (factor - 1) * abs(agreement))
