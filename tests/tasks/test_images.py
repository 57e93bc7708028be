"""What is done to images, and what is trained on and measured of a ResNet."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax import Dataset, tasks
from influence_jax.models import ResNetConfig
from influence_jax.tasks.images import random_crop_and_flip, standardized

NETWORK = ResNetConfig(num_classes=3, width=8, blocks=(1,), patch=4)
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
PIXELS[3] = 200  # of one color
LABELS = np.array([0, 2, 1, 2], np.int32)
BATCH = {'inputs': PIXELS, 'label': LABELS}


def _task(**options):
    task = tasks.Classification(NETWORK, prepare=standardized, **options)
    return task.bind(Dataset({'image': PIXELS, 'label': LABELS})).task


TASK, AUGMENTED = _task(), _task(augment=random_crop_and_flip)


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
    out = random_crop_and_flip(batch, key=jax.random.key(0), padding=padding)
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
    out = np.asarray(random_crop_and_flip(batch, key=jax.random.key(1), padding=2))
    chosen = []
    for image, result in zip(np.asarray(batch), out, strict=True):
        matches = [i for i, c in enumerate(shifted(image, 2)) if (c == result).all()]
        assert len(matches) == 1
        chosen += matches
    assert len(set(chosen)) > 4


def test_the_same_under_jit_and_under_a_member_axis():
    batch = jnp.stack([images(4), images(4) + 1000])
    keys = jax.random.split(jax.random.key(2), 2)
    together = jax.jit(jax.vmap(lambda b, k: random_crop_and_flip(b, key=k)))(batch, keys)
    for member in range(2):
        alone = random_crop_and_flip(batch[member], key=keys[member])
        np.testing.assert_array_equal(together[member], alone)
    assert not np.array_equal(together[0] + 1000, together[1])


def test_negative_padding_is_refused():
    with pytest.raises(ValueError, match='padding=-1 must be 0 or more'):
        random_crop_and_flip(images(1), key=jax.random.key(0), padding=-1)


@functools.partial(jax.jit, static_argnames='task')
def _loss_and_gradient(params, batch, key, *, task):
    def total(params):
        losses = task.train_loss(params, batch, key=key)
        return losses.sum(), losses

    (_, losses), gradient = jax.value_and_grad(total, has_aux=True)(params)
    return losses, gradient


@pytest.fixture(scope='module')
def params():
    return jax.jit(lambda key: TASK.init(key=key))(jax.random.key(0))


def _measured(logits, labels):
    measured = TASK.of.measured(jnp.asarray(logits, jnp.float32), jnp.asarray(labels))
    assert tuple(measured) == TASK.measurements
    return {name: np.asarray(values) for name, values in measured.items()}


def test_extreme_logits_do_not_saturate():
    """Where a float32 probability would be 1 or 0, the statistics still separate members."""
    gaps = np.array([20.0, 40.0, 200.0, 1e4, -200.0, -1e4])
    logits = np.stack([gaps, np.zeros(6), np.full(6, -1e5)], axis=1)
    measured = _measured(logits, [0] * 6)
    np.testing.assert_allclose(measured['logit_gap'], gaps, rtol=1e-6)
    expected = np.logaddexp(0, -gaps)  # in float64; the smallest are no float32 numbers
    np.testing.assert_allclose(measured['loss'], expected, rtol=1e-5, atol=1e-37)
    assert measured['loss'][1] > 0
    np.testing.assert_array_equal(measured['correct'], [1, 1, 1, 1, 0, 0])


def test_a_network_that_has_diverged_is_not_measured_as_finite():
    measured = _measured(np.full((1, 3), np.nan), [1])
    assert np.isnan(measured['loss']).all()
    assert np.isnan(measured['logit_gap']).all()


def test_training_loss_is_the_measured_loss(params):
    trained, gradient = _loss_and_gradient(params, BATCH, jax.random.key(1), task=TASK)
    assert trained.shape == (4,)
    measured = jax.jit(TASK.measure)(params, BATCH)
    np.testing.assert_allclose(trained, measured['loss'], rtol=1e-5, atol=1e-6)
    # Also of an image of one color.
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_loss_of_an_image_depends_on_no_other(params):
    changed = {'inputs': PIXELS.copy(), 'label': LABELS}
    changed['inputs'][1:] = 255 - changed['inputs'][1:]
    first, second = (TASK.measure(params, b)['loss'] for b in (BATCH, changed))
    np.testing.assert_array_equal(first[0], second[0])
    assert np.abs(first - second)[1:3].min() > 1e-4


def test_contrast_and_brightness_hardly_count():
    pixels = PIXELS[:3] // 2 * 2  # so that half of it is exact
    of_pixels = standardized(pixels)
    np.testing.assert_allclose(of_pixels.mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(of_pixels.std((1, 2, 3)), 1, atol=0.02)
    np.testing.assert_allclose(of_pixels, standardized(pixels // 2 + np.uint8(51)), atol=0.1)


def test_augmentation_depends_on_the_key_and_only_in_training(params):
    first, same, other = (
        _loss_and_gradient(params, BATCH, jax.random.key(i), task=AUGMENTED)[0] for i in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 1e-3
    np.testing.assert_array_equal(
        AUGMENTED.measure(params, BATCH)['loss'], TASK.measure(params, BATCH)['loss']
    )


def test_augmentation_moves_standardized_images(params):
    """Pixels that are shifted in are then of the image's mean color, not black."""
    seen = []

    def spy(images, *, key):
        seen.append(images)
        return images

    losses = _task(augment=spy).train_loss(params, BATCH, key=jax.random.key(2))
    assert losses.shape == (4,)
    np.testing.assert_allclose(seen[0][:3].mean((1, 2, 3)), 0, atol=1e-5)


def test_known_answers():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]])
    measured = _measured(np.log(probabilities) + 3, [0, 2])
    np.testing.assert_allclose(measured['loss'], -np.log([0.7, 0.2]), rtol=1e-5)
    gaps = np.log([0.7 / 0.3, 0.2 / 0.8])
    np.testing.assert_allclose(measured['logit_gap'], gaps, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(measured['correct'], [1, 0])


def test_initial_parameters_come_from_the_key(params):
    def equal(a, b):
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        return all(np.array_equal(x, y) for x, y in pairs)

    init = jax.jit(lambda key: TASK.init(key=key))
    assert equal(params, init(jax.random.key(0)))
    assert not equal(params, init(jax.random.key(1)))


def test_hashable_so_that_programs_can_be_compared():
    assert hash(TASK) == hash(_task())
    assert _task() == TASK
