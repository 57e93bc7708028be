"""The ratio of a target's two largest influences."""

import numpy as np
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
