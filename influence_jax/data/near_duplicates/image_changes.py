"""The kinds of near-duplicates of an image: shift, flip, crop, color, noise, JPEG.

Each is a pure function of a uint8 image `[H W C]`, its strength and the state of `rng`. It may
return an image equal to the original (a blank one shifted is still blank), which `vary_image`
leaves out.
"""

import dataclasses
import enum
import io
import math
from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from influence_jax.data.dataset import Dataset
from influence_jax.data.near_duplicates.injection import Change, Variant

# The share of red, green and blue in brightness (ITU-R BT.601).
_LUMINANCE = np.array((0.299, 0.587, 0.114))


class ImageVariant(NamedTuple):
    """A near-duplicate of an image.

    image: of the original's shape.
    change: a sentence that says what was changed.
    """

    image: UInt8[np.ndarray, 'H W C']
    change: str


class ImageChange(enum.Enum):
    """How a near-duplicate of an image differs from it; see the function of each kind."""

    SHIFT = 'shift'
    FLIP = 'flip'
    CROP = 'crop'
    COLOUR_JITTER = 'colour_jitter'  # as the flag is spelled
    NOISE = 'noise'
    JPEG = 'jpeg'


@dataclasses.dataclass(frozen=True)
class ImageStrength:
    """How far images are changed.

    Attributes:
      shift: greatest shift in pixels, 1 or more.
      crop: least part of height and width that a crop keeps, in (0, 1).
      color: brightness, contrast and saturation are multiplied by factors from `1 - color` to
        `1 + color`; in (0, 1].
      noise: standard deviation of the noise in levels of 255, above 0.
      jpeg: lowest and highest quality, from 1 to 95.

    Raises:
      ValueError: one of them is out of range.
    """

    shift: int = 3
    crop: float = 0.8
    color: float = 0.2
    noise: float = 6.0
    jpeg: tuple[int, int] = (30, 90)

    def __post_init__(self) -> None:
        if self.shift < 1:
            raise ValueError(f'shift={self.shift} must be at least 1 pixel')
        if not 0 < self.crop < 1:
            raise ValueError(f'crop={self.crop} must lie strictly between 0 and 1')
        if not 0 < self.color <= 1:
            raise ValueError(f'color={self.color} must be above 0 and at most 1')
        if not (math.isfinite(self.noise) and self.noise > 0):
            raise ValueError(f'noise={self.noise} must be above 0')
        if not 1 <= self.jpeg[0] <= self.jpeg[1] <= 95:
            raise ValueError(f'jpeg={self.jpeg} must be two qualities in order, from 1 to 95')


def image_change(change: ImageChange, *, strength: ImageStrength | None = None) -> Change:
    """Returns the change of the array `image` of a dataset, for `inject`.

    Args:
      change: the kind. By `FLIP` there are at most 4 copies, the original included.
      strength: how far images are changed; the defaults if None.
    """
    return _ImageChange(change, strength or ImageStrength())


@dataclasses.dataclass(frozen=True)
class _ImageChange:
    change: ImageChange
    strength: ImageStrength

    @property
    def name(self) -> str:
        return self.change.value

    def identity(self, dataset: Dataset, index: int) -> Hashable:
        return dataset.array('image')[index].tobytes()

    def vary(self, dataset: Dataset, index: int, rng: np.random.Generator) -> Variant | None:
        image = dataset.array('image')[index]
        varied = vary_image(self.change, image, rng=rng, strength=self.strength)
        return varied and Variant({'image': varied.image}, varied.change, varied.image.tobytes())


def vary_image(
    change: ImageChange,
    image: UInt8[np.ndarray, 'H W C'],
    *,
    rng: np.random.Generator,
    strength: ImageStrength | None = None,
) -> ImageVariant | None:
    """Draws a near-duplicate of an image; None where the draw left it as it was.

    Args:
      change: the kind.
      image: any size; JPEG needs 1 or 3 channels.
      rng: source of the choices.
      strength: the defaults if None.

    Raises:
      ValueError: JPEG cannot store the number of channels.
    """
    variant = _FUNCTIONS[change](image, strength or ImageStrength(), rng)
    return None if np.array_equal(variant.image, image) else variant


def shift(
    image: UInt8[np.ndarray, 'H W C'], strength: ImageStrength, rng: np.random.Generator
) -> ImageVariant:
    """Moves the image; the border's pixels fill what comes in."""
    far = strength.shift
    down, right = 0, 0
    while not (down or right):
        down, right = rng.integers(-far, far + 1, 2).tolist()
    padded = np.pad(image, ((far, far), (far, far), (0, 0)), mode='edge')
    top, left = far - down, far - right
    moved = padded[top : top + image.shape[0], left : left + image.shape[1]]
    moves = [
        f'{abs(pixels)} {forwards if pixels > 0 else backwards}'
        for pixels, forwards, backwards in ((down, 'down', 'up'), (right, 'right', 'left'))
        if pixels
    ]
    return ImageVariant(moved, f'shifted by {" and ".join(moves)} (pixels)')


def flip(
    image: UInt8[np.ndarray, 'H W C'], strength: ImageStrength, rng: np.random.Generator
) -> ImageVariant:
    """Mirrors the image left to right, top to bottom, or both: so at most 4 copies differ."""
    return (
        ImageVariant(image[:, ::-1], 'mirrored left to right'),
        ImageVariant(image[::-1], 'mirrored top to bottom'),
        ImageVariant(image[::-1, ::-1], 'turned by 180 degrees'),
    )[rng.integers(3)]


def crop(
    image: UInt8[np.ndarray, 'H W C'], strength: ImageStrength, rng: np.random.Generator
) -> ImageVariant:
    """Cuts out a random window of the image's proportions and enlarges it (bilinear)."""
    height, width, channels = image.shape
    # At least a row is cut off, or the crop would be the image itself.
    fewest = max(1, min(math.ceil(strength.crop * height), height - 1))
    rows = int(rng.integers(fewest, max(fewest, height - 1) + 1))
    columns = max(1, round(rows * width / height))
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    window = image[top : top + rows, left : left + columns]
    # Channel by channel, so that any number of them will do.
    enlarged = [
        Image.fromarray(np.ascontiguousarray(window[..., c])).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        for c in range(channels)
    ]
    return ImageVariant(
        np.stack([np.asarray(channel) for channel in enlarged], axis=-1),
        f'cropped to {columns}x{rows} pixels, {left} from the left and {top} from the top, '
        'and enlarged',
    )


def color_jitter(
    image: UInt8[np.ndarray, 'H W C'], strength: ImageStrength, rng: np.random.Generator
) -> ImageVariant:
    """Multiplies brightness, contrast and, of images with 3 channels, saturation."""
    reach = strength.color
    brightness, contrast, saturation = rng.uniform(1 - reach, 1 + reach, 3)
    pixels = image * brightness
    pixels = pixels.mean() + contrast * (pixels - pixels.mean())
    sentence = f'brightness x {brightness:.2f}, contrast x {contrast:.2f}'
    if image.shape[2] == 3:
        gray = (pixels @ _LUMINANCE)[..., None]
        pixels = gray + saturation * (pixels - gray)
        sentence += f', saturation x {saturation:.2f}'
    return ImageVariant(_levels(pixels), sentence)


def noise(
    image: UInt8[np.ndarray, 'H W C'], strength: ImageStrength, rng: np.random.Generator
) -> ImageVariant:
    """Adds Gaussian noise, independent in every pixel and channel."""
    noisy = image + rng.normal(0, strength.noise, image.shape)
    return ImageVariant(
        _levels(noisy), f'noise of standard deviation {strength.noise:g} of 255 levels added'
    )


def jpeg(
    image: UInt8[np.ndarray, 'H W C'], strength: ImageStrength, rng: np.random.Generator
) -> ImageVariant:
    """Stores the image as JPEG of a random quality, and reads it again.

    The pixels depend on the JPEG library that Pillow was built with.
    """
    channels = image.shape[2]
    if channels not in (1, 3):
        raise ValueError(f'JPEG stores images of 1 or 3 channels, found {channels}')
    quality = int(rng.integers(strength.jpeg[0], strength.jpeg[1] + 1))
    file = io.BytesIO()
    stored = np.ascontiguousarray(image[..., 0] if channels == 1 else image)
    Image.fromarray(stored).save(file, format='JPEG', quality=quality)
    with Image.open(file) as opened:
        pixels = np.asarray(opened).reshape(image.shape)
    return ImageVariant(pixels, f'stored as JPEG of quality {quality}')


_FUNCTIONS = {
    ImageChange.SHIFT: shift,
    ImageChange.FLIP: flip,
    ImageChange.CROP: crop,
    ImageChange.COLOUR_JITTER: color_jitter,
    ImageChange.NOISE: noise,
    ImageChange.JPEG: jpeg,
}


def _levels(pixels: Float[np.ndarray, 'H W C']) -> UInt8[np.ndarray, 'H W C']:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
