"""Changed images: what each kind does to the pixels, and planting in a dataset."""

import re

import numpy as np
import pytest

from influence_jax.data import ImageDataset, clipart
from influence_jax.data.near_duplicates import ImageChange, ImageStrength, plant_images, vary_image


def picture(channels=3, height=12, width=10):
    # No two pixels are equal.
    return np.arange(height * width * channels).reshape(height, width, channels).astype(
        np.uint8
    ) * (255 // (height * width * channels) or 1)


def smooth(height=32, width=32):
    y, x = np.mgrid[:height, :width]
    return np.stack([6 * y + 30, 5 * x + 60, 3 * (x + y) + 20], axis=-1).astype(np.uint8)


def draws(change, image, times=100, **strength):
    rng = np.random.default_rng(0)
    chosen = ImageStrength(**strength)
    return [vary_image(change, image, rng=rng, strength=chosen) for _ in range(times)]


def toy(number=30):
    images = np.random.default_rng(1).integers(0, 256, (number, 12, 12, 3)).astype(np.uint8)
    return ImageDataset(
        name='toy',
        images=images,
        labels=np.arange(number, dtype=np.int32) % 3,
        ids=tuple(f'i{n}' for n in range(number)),
        class_names=('a', 'b', 'c'),
        names=tuple(f'picture {n}' for n in range(number)),
        provenance='made up',
    )


@pytest.mark.parametrize('change', list(ImageChange))
@pytest.mark.parametrize('channels', [1, 3])
def test_shape_dtype_and_purity(change, channels):
    image = picture(channels)
    before = image.copy()
    first = [vary_image(change, image, rng=np.random.default_rng(seed)) for seed in range(5)]
    again = [vary_image(change, image, rng=np.random.default_rng(seed)) for seed in range(5)]
    for a, b in zip(first, again, strict=True):
        assert a.image.shape == image.shape
        assert a.image.dtype == np.uint8
        assert not np.array_equal(a.image, image)
        np.testing.assert_array_equal(a.image, b.image)
        assert a.change == b.change != ''
    np.testing.assert_array_equal(image, before)


def test_a_shift_moves_every_pixel_that_stays_and_says_where():
    image = np.random.default_rng(0).integers(0, 256, (9, 8, 3)).astype(np.uint8)
    moves = set()
    for variant in draws(ImageChange.SHIFT, image, 300, shift=2):
        said = {way: int(n) for n, way in re.findall(r'(\d) (\w+)', variant.change)}
        down = said.get('down', 0) - said.get('up', 0)
        right = said.get('right', 0) - said.get('left', 0)
        for y in range(9):
            for x in range(8):
                source = image[np.clip(y - down, 0, 8), np.clip(x - right, 0, 7)]
                np.testing.assert_array_equal(variant.image[y, x], source)
        moves.add((down, right))
    assert moves == {(y, x) for y in range(-2, 3) for x in range(-2, 3)} - {(0, 0)}


def test_flips():
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    found = {variant.change: variant.image for variant in draws(ImageChange.FLIP, image)}
    assert set(found) == {
        'mirrored left to right',
        'mirrored top to bottom',
        'turned by 180 degrees',
    }
    np.testing.assert_array_equal(found['mirrored left to right'], np.fliplr(image))
    np.testing.assert_array_equal(found['mirrored top to bottom'], np.flipud(image))
    np.testing.assert_array_equal(found['turned by 180 degrees'], np.rot90(image, 2))


def test_a_crop_shows_the_window_that_it_names():
    image = smooth()
    heights = set()
    for variant in draws(ImageChange.CROP, image, 200, crop=0.7):
        columns, rows, left, top = map(int, re.findall(r'\d+', variant.change))
        heights.add(rows)
        assert rows == columns
        assert left + columns <= 32
        assert top + rows <= 32
        # The image is a plane, so that bilinear enlargement of the window is one as well.
        inner = np.arange(3, 29)
        y = top + (inner + 0.5) * rows / 32 - 0.5
        x = left + (inner + 0.5) * columns / 32 - 0.5
        inside = variant.image[3:29, 3:29].astype(float)
        np.testing.assert_allclose(inside[..., 0], np.tile(6 * y[:, None] + 30, 26), atol=1.01)
        np.testing.assert_allclose(inside[..., 1], np.tile(5 * x + 60, (26, 1)), atol=1.01)
    assert heights == set(range(23, 32))


def test_colour_jitter_does_what_it_says():
    image = np.full((4, 4, 3), 100, np.uint8)
    image[:2, :, 0] = 140
    for variant in draws(ImageChange.COLOUR_JITTER, image, colour=0.1):
        b, c, s = map(float, re.findall(r'x (\d\.\d+)', variant.change))
        assert all(0.9 - 1e-9 <= factor <= 1.1 + 1e-9 for factor in (b, c, s))
        mean = b * image.mean()
        pixels = mean + c * (b * image.astype(float) - mean)
        grey = (0.299 * pixels[..., 0] + 0.587 * pixels[..., 1] + 0.114 * pixels[..., 2])[..., None]
        expected = grey + s * (pixels - grey)
        # The factors are said with two decimals.
        np.testing.assert_allclose(variant.image, expected, atol=2.5)
    assert 'saturation' not in draws(ImageChange.COLOUR_JITTER, image[..., :1], 1)[0].change


def test_noise_has_the_standard_deviation_asked_for():
    image = np.full((64, 64, 3), 128, np.uint8)
    for sd in (2.0, 10.0):
        (variant,) = draws(ImageChange.NOISE, image, 1, noise=sd)
        difference = variant.image.astype(float) - 128
        # Rounding to levels adds the variance 1 / 12.
        assert difference.std() == pytest.approx(np.sqrt(sd**2 + 1 / 12), rel=0.03)
        assert abs(difference.mean()) < 5 * sd / 110
        assert f'{sd:g}' in variant.change


def test_jpeg_of_a_higher_quality_is_closer():
    image = clipart.load().images[42]

    def distance(quality):
        (variant,) = draws(ImageChange.JPEG, image, 1, jpeg=(quality, quality))
        assert variant.change == f'stored as JPEG of quality {quality}'
        return np.sqrt(np.mean((variant.image.astype(float) - image) ** 2))

    assert 0 < distance(95) < distance(60) < distance(10) < 60


@pytest.mark.parametrize('change', [ImageChange.SHIFT, ImageChange.FLIP, ImageChange.CROP])
def test_a_blank_image_has_no_variant(change):
    blank = np.full((8, 8, 3), 255, np.uint8)
    assert draws(change, blank, 20) == [None] * 20


def test_jpeg_refuses_other_channels_than_1_or_3():
    with pytest.raises(ValueError, match='JPEG stores images of 1 or 3 channels, found 2'):
        vary_image(ImageChange.JPEG, picture(2), rng=np.random.default_rng(0))


@pytest.mark.parametrize(
    'wrong',
    [
        {'shift': 0},
        {'crop': 1.0},
        {'crop': 0.0},
        {'colour': 0.0},
        {'colour': 1.5},
        {'noise': 0.0},
        {'noise': float('nan')},
        {'jpeg': (0, 50)},
        {'jpeg': (60, 50)},
        {'jpeg': (60, 100)},
    ],
)
def test_bad_strength_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f'^{name}=.* must '):
        ImageStrength(**wrong)


@pytest.mark.parametrize('change', list(ImageChange))
def test_planted_images_and_their_truth(change):
    source = toy()
    dataset, groups, changes = plant_images(
        source, change, unique=8, duplicated=4, copies=3, seed=5
    )
    assert dataset.num_examples == 8 + 4 * 3 == len(groups) == len(changes)
    np.testing.assert_array_equal(groups, [*range(8), *np.repeat(np.arange(8, 12), 3).tolist()])
    assert groups.dtype == np.int32
    assert len({image.tobytes() for image in dataset.images}) == 20
    row = {name: i for i, name in enumerate(source.ids)}
    for i, name in enumerate(dataset.ids):
        original, _, number = name.partition('~')
        assert dataset.labels[i] == source.labels[row[original]]
        assert dataset.names[i] == source.names[row[original]]
        assert bool(number) == bool(changes[i])
        if not number:
            np.testing.assert_array_equal(dataset.images[i], source.images[row[original]])
    assert [name.partition('~')[2] for name in dataset.ids] == [''] * 8 + ['', '1', '2'] * 4
    assert dataset.provenance == (
        'made up; chosen at random (seed 5): 8 unique records and 4 in 3 versions each '
        f'by {change.value}'
    )
    again = plant_images(source, change, unique=8, duplicated=4, copies=3, seed=5)
    assert again.dataset.fingerprint == dataset.fingerprint
    other = plant_images(source, change, unique=8, duplicated=4, copies=3, seed=6)
    assert other.dataset.fingerprint != dataset.fingerprint


def test_planting_uses_the_strength():
    gentle = ImageStrength(noise=1.0)
    for strength, limit in ((gentle, 2), (None, 10)):
        dataset, groups, _ = plant_images(
            toy(), ImageChange.NOISE, unique=1, duplicated=1, copies=2, seed=0, strength=strength
        )
        a, b = dataset.images[groups == 1].astype(float)
        assert limit / 4 < np.sqrt(np.mean((a - b) ** 2)) < limit


def test_bad_counts_are_refused_in_one_line():
    with pytest.raises(ValueError, match="dataset 'toy', flip: copies=1 must be at least 2"):
        plant_images(toy(), ImageChange.FLIP, unique=1, duplicated=1, copies=1, seed=0)
    with pytest.raises(ValueError, match='but there are only 30'):
        plant_images(toy(), ImageChange.FLIP, unique=30, duplicated=1, copies=2, seed=0)
    with pytest.raises(
        ValueError, match='only 0 of 30 records can be written in 5 different versions'
    ):
        plant_images(toy(), ImageChange.FLIP, unique=1, duplicated=1, copies=5, seed=0)


@pytest.mark.parametrize('change', list(ImageChange))
def test_the_smallest_images_do_no_harm(change):
    for shape in ((1, 1, 1), (1, 3, 3), (3, 1, 3), (2, 2, 3)):
        image = np.full(shape, 100, np.uint8)
        for variant in draws(change, image, 20):
            assert variant is None or variant.image.shape == shape
