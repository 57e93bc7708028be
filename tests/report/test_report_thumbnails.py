import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from influence_jax.report import thumbnails


def decoded(markup: str) -> np.ndarray:
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', markup)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_thumbnail_holds_every_pixel(channels):
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 7, channels), np.uint8)
    show = thumbnails(images)
    for index in range(3):
        shown = 3 if channels >= 3 else 1  # no picture has two channels or a fifth
        pixels = decoded(show(index)).reshape(5, 7, shown)
        np.testing.assert_array_equal(pixels, images[index][..., :shown])
    assert 'width="7" height="5"' in show(0)
    assert 'alt="example 2"' in show(2)


def test_names_are_escaped():
    show = thumbnails(np.zeros((1, 2, 2, 3), np.uint8), ['"><script>'])
    assert 'alt="&#34;&gt;&lt;script&gt;"' in show(0)


@pytest.mark.parametrize(
    'images',
    [
        np.zeros((2, 3, 3), np.uint8),
        np.zeros((2, 3, 3, 3), np.float32),
        np.zeros((2, 3, 3, 0), np.uint8),
    ],
)
def test_other_arrays_are_refused(images):
    with pytest.raises(ValueError, match='thumbnails need uint8 images'):
        thumbnails(images)


def test_wrong_number_of_names_is_refused():
    with pytest.raises(ValueError, match='1 names for 2 images'):
        thumbnails(np.zeros((2, 3, 3, 3), np.uint8), ['a'])
