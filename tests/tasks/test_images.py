"""Random crop and flip: every result is one of the possible ones, image by image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax.data import augment


def shifted(image, padding):
    """Every crop of the padded image and its mirror: the slow, obvious truth."""
    height, width, _ = image.shape
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)))
    for y in range(2 * padding + 1):
        for x in range(2 * padding + 1):
            crop = padded[y : y + height, x : x + width]
            yield crop
            yield crop[:, ::-1]


def images(batch, height=6, width=5):
    # No two pixels are equal, so every shift and mirror image differs from all others.
    size = batch * height * width * 3
    return jnp.arange(1, size + 1, dtype=jnp.float32).reshape(batch, height, width, 3)


@pytest.mark.parametrize('padding', [0, 1, 2])
def test_every_possible_result_occurs_and_no_other(padding):
    image = images(1)
    batch = jnp.tile(image, (600, 1, 1, 1))
    out = augment.random_crop_and_flip(batch, key=jax.random.key(0), padding=padding)
    assert out.shape == batch.shape
    assert out.dtype == batch.dtype
    possible = {crop.tobytes() for crop in shifted(np.asarray(image[0]), padding)}
    seen = [np.asarray(result).tobytes() for result in out]
    assert set(seen) == possible
    assert len(possible) == 2 * (2 * padding + 1) ** 2
    counts = np.unique(seen, return_counts=True)[1]
    expected = 600 / len(possible)
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_each_image_stays_itself_and_moves_on_its_own():
    batch = images(8)
    out = np.asarray(augment.random_crop_and_flip(batch, key=jax.random.key(1), padding=2))
    chosen = []
    for image, result in zip(np.asarray(batch), out, strict=True):
        matches = [i for i, c in enumerate(shifted(image, 2)) if (c == result).all()]
        assert len(matches) == 1
        chosen += matches
    assert len(set(chosen)) > 4


def test_the_same_under_jit_and_under_a_member_axis():
    batch = jnp.stack([images(4), images(4) + 1000])
    keys = jax.random.split(jax.random.key(2), 2)
    together = jax.jit(jax.vmap(lambda b, k: augment.random_crop_and_flip(b, key=k)))(batch, keys)
    for member in range(2):
        alone = augment.random_crop_and_flip(batch[member], key=keys[member])
        np.testing.assert_array_equal(together[member], alone)
    assert not np.array_equal(together[0] + 1000, together[1])


def test_negative_padding_is_refused():
    with pytest.raises(ValueError, match='padding=-1 must be 0 or more'):
        augment.random_crop_and_flip(images(1), key=jax.random.key(0), padding=-1)
