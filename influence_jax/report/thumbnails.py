"""How a record looks on the page: a small PNG inside it, or text."""

import base64
import functools
import io
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup
from PIL import Image

from influence_jax.text import LONGEST_NAME, clean, shortened

_LONGEST_TEXT = 400

Show = Callable[[int], Markup]
"""Markup that shows the example of an index; what it returns is trusted, so it must escape."""


def texts(records: Sequence[str]) -> Show:
    """Shows examples as text, escaped, one a record; at most 400 characters of each."""
    return lambda index: Markup('<p>{}</p>').format(clean(shortened(records[index], _LONGEST_TEXT)))


def data_uri(png: bytes) -> str:
    """A PNG file as a `data:` address."""
    return 'data:image/png;base64,' + base64.b64encode(png).decode('ascii')


def thumbnails(images: UInt8[np.ndarray, 'N H W C'], names: Sequence[str] | None = None) -> Show:
    """Shows examples as small PNG images inside the page.

    Args:
        images: `[N H W C]` uint8: RGB in the first three channels; grey, the first, where there
            are fewer.
        names: alternative texts, one an image; 'example 12' by default.

    Returns:
        From an example's index to its `<img>`.

    Raises:
        ValueError: for other shapes or types, or when names do not match the images.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.dtype != np.uint8 or 0 in images.shape:
        raise ValueError(
            f'thumbnails need uint8 images [N H W C], got {images.dtype} {list(images.shape)}'
        )
    if names is not None and len(names) != len(images):
        raise ValueError(f'{len(names)} names for {len(images)} images; give one an image')

    @functools.cache
    def show(index: int) -> Markup:
        buffer = io.BytesIO()
        pixels = images[index]
        shown = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., 0]
        Image.fromarray(shown).save(buffer, 'PNG')
        alt = f'example {index}' if names is None else names[index]
        return Markup('<img class="thumbnail" src="{}" alt="{}" width="{}" height="{}">').format(
            data_uri(buffer.getvalue()),
            clean(alt, most=LONGEST_NAME),
            pixels.shape[1],
            pixels.shape[0],
        )

    return show
