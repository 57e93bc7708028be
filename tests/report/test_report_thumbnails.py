import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from influence_jax.report import Results
from influence_jax.report.page import shower
from influence_jax.report.results import ShownExamples


def pixels_of(markup: str) -> np.ndarray:
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', markup)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_thumbnail_holds_every_pixel(arguments, channels):
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 7, channels), np.uint8)
    positions = np.array([1, 4, 7])
    show = shower(Results(**arguments | {'shown': ShownExamples(positions, images)}))
    for place, example in enumerate(positions.tolist()):
        kept = 3 if channels >= 3 else 1  # no picture has two channels or a fifth
        pixels = pixels_of(show(example)).reshape(5, 7, kept)
        np.testing.assert_array_equal(pixels, images[place][..., :kept])
    assert 'width="7" height="5"' in show(4)
    assert 'alt="name 4"' in show(4)


def test_wide_rows_are_shortened(arguments):
    shown = ShownExamples(
        np.array([2]), columns=tuple(map(str, range(30))), rows=(tuple('x' * 30),)
    )
    text = shower(Results(**arguments | {'shown': shown}))(2)
    assert text.count('<dt>') == 9
    assert '<dt>and 22 more</dt>' in text


def test_names_are_escaped(arguments, hostile):
    show = shower(Results(**arguments))
    assert hostile not in show(0)
    assert 'alt="&#34;&gt;&lt;script&gt;' in show(0)
    named = shower(Results(**arguments | {'shown': ShownExamples(np.empty(0, int))}))
    assert named(0).startswith('<p>&#34;&gt;&lt;script&gt;')
