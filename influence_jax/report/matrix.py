"""The colors of a piece of the influence matrix, and its pixels for pages."""

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.colors import CenteredNorm

from influence_jax.report.results import Results
from influence_jax.report.theme import Picture, Theme, image_png


def block_limit(block: Float[np.ndarray, 'b c'], is_self: Bool[np.ndarray, 'b c']) -> float:
    """Returns where the matrix's colors saturate: the 99.5 % quantile of |other entries|.

    Self-influence is many times larger than any other influence; scaled to it, every other entry
    would look white.
    """
    others = np.abs(block[~is_self])
    others = others[np.isfinite(others)]
    limit = float(np.quantile(others, 0.995)) if others.size else 0.0
    return limit or 1.0


def limit_of(results: Results) -> float:
    """Returns `block_limit` of the block of the page."""
    overview = results.overview
    targets = overview.target_examples[overview.block_targets]
    is_self = overview.block_examples[:, np.newaxis] == targets[np.newaxis, :]
    return block_limit(overview.matrix_block, is_self)


def matrix_pixels(block: Float[np.ndarray, 'b c'], *, limit: float, theme: Theme) -> bytes:
    """Returns the same piece as a PNG of one pixel an entry, to be scaled up by the page."""
    colors = theme.diverging()(CenteredNorm(0.0, limit)(block), bytes=True)
    return image_png(np.asarray(colors))


def pixel_picture(name: str, alt: str, block: Float[np.ndarray, 'b c'], *, limit: float) -> Picture:
    """Returns these pixels for pages of both themes."""
    light, dark = (
        matrix_pixels(block, limit=limit, theme=theme) for theme in (Theme.light(), Theme.dark())
    )
    return Picture(name, light, dark, alt)
