"""What is trained on and what is recorded of an image."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from influence_jax.models.image_classification import ImageBatch

from influence_jax.models import ImageClassification, ResNetConfig, image_classification

TASK = ImageClassification(ResNetConfig(num_classes=3, width=8, blocks=(1,), patch=4))
AUGMENTED = ImageClassification(TASK.config, augment=True)

_init = jax.jit(lambda key: TASK.init(key=key))
_measure = jax.jit(TASK.measure)


@functools.partial(jax.jit, static_argnames='task')
def _loss_and_gradient(params, batch, key, *, task):
    def total(params):
        losses = task.train_loss(params, batch, key=key)
        return losses.sum(), losses

    (_, losses), gradient = jax.value_and_grad(total, has_aux=True)(params)
    return losses, gradient


@pytest.fixture(scope='module')
def params():
    return _init(jax.random.key(0))


@pytest.fixture(scope='module')
def batch():
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    images[3] = 200  # of one colour
    return ImageBatch(images, np.array([0, 2, 1, 2], np.int32))


def _measured(monkeypatch, logits, labels):
    """What is measured where the network says `logits`."""
    monkeypatch.setattr(ImageClassification, 'logits', lambda *_: jnp.asarray(logits, jnp.float32))
    images = np.zeros((len(labels), 8, 8, 3), np.uint8)
    measured = TASK.measure(None, ImageBatch(jnp.asarray(images), jnp.asarray(labels)))
    assert tuple(measured) == TASK.measurements
    return {name: np.asarray(values) for name, values in measured.items()}


def test_known_answers(monkeypatch):
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]])
    measured = _measured(monkeypatch, np.log(probabilities) + 3, [0, 2])
    np.testing.assert_allclose(measured['loss'], -np.log([0.7, 0.2]), rtol=1e-5)
    np.testing.assert_allclose(
        measured['logit_gap'], np.log([0.7 / 0.3, 0.2 / 0.8]), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(measured['correct'], [1, 0])


def test_extreme_logits_do_not_saturate(monkeypatch):
    """Where a float32 probability would be 1 or 0, the statistics still tell members apart."""
    gaps = np.array([20.0, 40.0, 200.0, 1e4, -200.0, -1e4])
    logits = np.stack([gaps, np.zeros(6), np.full(6, -1e5)], axis=1)
    measured = _measured(monkeypatch, logits, [0] * 6)
    np.testing.assert_allclose(measured['logit_gap'], gaps, rtol=1e-6)
    expected = np.logaddexp(0, -gaps)  # in float64; the smallest are no float32 numbers
    np.testing.assert_allclose(measured['loss'], expected, rtol=1e-5, atol=1e-37)
    assert measured['loss'][1] > 0
    np.testing.assert_array_equal(measured['correct'], [1, 1, 1, 1, 0, 0])


def test_a_network_that_has_diverged_is_not_measured_as_finite(monkeypatch):
    measured = _measured(monkeypatch, np.full((1, 3), np.nan), [1])
    assert np.isnan(measured['loss']).all()
    assert np.isnan(measured['logit_gap']).all()


def test_training_loss_is_the_measured_loss(params, batch):
    trained, _ = _loss_and_gradient(params, batch, jax.random.key(1), task=TASK)
    measured = _measure(params, batch)
    np.testing.assert_allclose(trained, measured['loss'], rtol=1e-5, atol=1e-6)
    assert trained.shape == (4,)


def test_loss_of_an_image_depends_on_no_other(params, batch):
    changed = batch._replace(images=batch.images.copy())
    changed.images[1:] = 255 - changed.images[1:]
    first, second = (_measure(params, b)['loss'] for b in (batch, changed))
    np.testing.assert_array_equal(first[0], second[0])
    assert np.abs(first - second)[1:3].min() > 1e-4


def test_contrast_and_brightness_hardly_count(batch):
    images = np.asarray(batch.images[:3]) // 2 * 2  # so that half of it is exact
    standardized = image_classification.standardized(images)
    np.testing.assert_allclose(standardized.mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(standardized.std((1, 2, 3)), 1, atol=0.02)
    dimmed = image_classification.standardized(images // 2 + np.uint8(51))
    np.testing.assert_allclose(standardized, dimmed, atol=0.1)


def test_gradients_are_finite_also_of_an_image_of_one_colour(params, batch):
    _, gradient = _loss_and_gradient(params, batch, jax.random.key(0), task=TASK)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_augmentation_depends_on_the_key_and_only_in_training(params, batch):
    first, same, other = (
        _loss_and_gradient(params, batch, jax.random.key(i), task=AUGMENTED)[0] for i in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 1e-3
    np.testing.assert_allclose(
        jax.jit(AUGMENTED.measure)(params, batch)['loss'],
        _measure(params, batch)['loss'],
        rtol=1e-5,
    )


def test_initial_parameters_come_from_the_key(params):
    def equal(a, b):
        pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        return all(np.array_equal(x, y) for x, y in pairs)

    assert equal(params, _init(jax.random.key(0)))
    assert not equal(params, _init(jax.random.key(1)))


def test_hashable_so_that_programs_can_be_compared():
    assert hash(TASK) == hash(ImageClassification(TASK.config))


def test_augmentation_moves_standardized_images(monkeypatch):
    """Pixels that are shifted in are then of the image's mean colour, not black."""
    seen = []

    def spy(images, *, key):
        seen.append(images)
        return images

    monkeypatch.setattr(image_classification, 'random_crop_and_flip', spy)
    task = ImageClassification(ResNetConfig(3, 8, (1,), 2), augment=True)
    pixels = jax.random.randint(jax.random.key(0), (4, 8, 8, 3), 100, 256).astype(jnp.uint8)
    batch = ImageBatch(pixels, jnp.zeros(4, jnp.int32))
    losses = task.train_loss(task.init(key=jax.random.key(1)), batch, key=jax.random.key(2))
    assert losses.shape == (4,)
    np.testing.assert_allclose(seen[0].mean((1, 2, 3)), 0, atol=1e-5)
