"""Diffusion: its losses, an ensemble of it, and its near-duplicates found by gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.datasets
from flax import nnx

import influence_jax as ij
from influence_jax import analysis, attribution, tasks
from influence_jax.models import DenoiserConfig
from influence_jax.tasks.base import bind

ALL_AND_ONE = (slice(0, 5), slice(3, 4))
CONFIG = DenoiserConfig(width=8, groups=4)


class Nothing(nnx.Module):
    """Predicts no noise, or a constant."""

    def __init__(self, rngs):
        del rngs
        self.constant = nnx.Param(jnp.zeros(()))

    def __call__(self, inputs):
        images, times = inputs
        assert times.shape == images.shape[:1]
        return jnp.zeros_like(images) + self.constant[...]


def digits(count, *, twins=0):
    """Digits as bytes; the last `twins` are noisy copies of the first."""
    generator = np.random.default_rng(0)
    images = sklearn.datasets.load_digits().images[: count - twins] * 15.9
    copies = np.clip(images[:twins] + generator.normal(scale=3, size=(twins, 8, 8)), 0, 255)
    return ij.Dataset({'image': np.concatenate([images, copies]).astype(np.uint8)[..., None]})


def test_losses_are_mean_squared_errors_of_fixed_noises():
    dataset = digits(5)
    task = bind(tasks.Diffusion(Nothing, draws=4, seed=3), dataset).task
    params = task.init(key=jax.random.key(0))
    noise = jax.random.normal(jax.random.key(3), (4, 8, 8, 1))
    found = task.measure(params, dataset.arrays)['loss']
    np.testing.assert_allclose(found, np.full(5, jnp.square(noise).mean()), rtol=1e-5)
    assert task.units == {'loss': 'mean squared error'}
    assert attribution.Model(task, params).unit('loss') == 'mean squared error'


def test_what_is_measured_of_a_target_depends_on_no_other():
    dataset = digits(5)
    task = bind(tasks.Diffusion(CONFIG), dataset).task
    params = jax.jit(lambda: task.init(key=jax.random.key(0)))()
    measure = jax.jit(lambda batch: task.measure(params, batch)['loss'])
    together, alone = (measure({'image': dataset.arrays['image'][some]}) for some in ALL_AND_ONE)
    np.testing.assert_allclose(together[3], alone[0], rtol=1e-4)
    assert len(np.unique(together)) == 5


def test_times_run_from_the_image_to_noise():
    dataset = digits(2)
    task = bind(tasks.Diffusion(lambda rngs: Passing(rngs=rngs), draws=8), dataset).task
    given = np.asarray(task.outputs(task.init(key=jax.random.key(0)), dataset.arrays))
    noise = np.asarray(jax.random.normal(jax.random.key(0), (8, 8, 8, 1)))
    images = dataset.arrays['image'].astype(float) / 127.5 - 1
    for draw in range(8):
        angle = np.pi / 2 * (draw + 0.5) / 8
        expected = np.cos(angle) * images + np.sin(angle) * noise[draw]
        np.testing.assert_allclose(given[:, draw], expected, atol=1e-5)


class Passing(nnx.Module):
    """Returns the noised images."""

    def __init__(self, rngs):
        del rngs
        self.constant = nnx.Param(jnp.zeros(()))

    def __call__(self, inputs):
        return inputs[0] + self.constant[...]


def test_training_loss_is_drawn_by_the_key_with_the_measured_mean():
    dataset = digits(5)
    task = bind(tasks.Diffusion(CONFIG, draws=64), dataset).task
    params = jax.jit(lambda: task.init(key=jax.random.key(0)))()
    batch = jax.tree.map(jnp.asarray, dataset.arrays)
    drawn = jax.jit(jax.vmap(lambda key: task.train_loss(params, batch, key=key)))
    found = np.asarray(drawn(jax.random.split(jax.random.key(1), 400)))
    assert found.std(axis=0).min() > 0.01
    measured = jax.jit(task.measure)(params, batch)['loss']
    np.testing.assert_allclose(found.mean(axis=0), measured, rtol=0.1)


def test_drawn_noises_give_the_gauss_newton_matrix():
    """Of a constant c the loss is the mean of (c - noise)^2: the second derivative is 2."""
    dataset = digits(3)
    task = bind(tasks.Diffusion(Nothing, draws=4), dataset).task
    params = task.init(key=jax.random.key(0))

    def slope(key):
        def loss(params):
            return task.sampled_loss(params, dataset.arrays, key=key)[0]

        return jax.tree.leaves(jax.grad(loss)(params))[0]

    found = jax.jit(jax.vmap(slope))(jax.random.split(jax.random.key(0), 4000))
    assert float(jnp.square(found).mean()) == pytest.approx(2, rel=0.1)


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A small ensemble, some of whose digits have a twin."""
    dataset = digits(60, twins=6)
    trained = ij.train_ensemble(
        tasks.Diffusion(CONFIG, draws=8),
        dataset,
        members=4,
        inclusion_prob=0.5,
        design=ij.Design.BALANCED,
        output_dir=tmp_path_factory.mktemp('run') / 'run',
        recipe=ij.Recipe(epochs=20, batch_size=15, learning_rate=1e-2),
        keep_params=True,
    )
    return trained, dataset


@pytest.mark.slow
def test_an_ensemble_learns_and_its_task_is_made_again(run):
    trained, dataset = run
    losses = trained['loss']
    assert losses.shape == (4, 60)
    assert losses.mean() < 0.8  # that of no noise at all is 1
    again = ij.open_run(trained.directory).task()
    assert again == tasks.Diffusion(CONFIG, draws=8)
    assert bind(again, dataset).description == bind(trained.task(), dataset).description


@pytest.mark.parametrize(
    ('method', 'unit'),
    [
        (attribution.Gradients(cosine=True), ''),
        pytest.param(attribution.KFAC(), 'mean squared error', marks=pytest.mark.slow),
    ],
)
def test_near_duplicates_are_found_by_the_margin(run, method, unit):
    trained, dataset = run
    columns = method(*attribution.read_run(trained, dataset))
    scores = np.asarray(columns.read(np.arange(60)))
    has_twin = (np.arange(60) < 6) | (np.arange(60) >= 54)
    assert analysis.auroc(-analysis.top1_margin(scores), has_twin) > 0.9
    assert columns.unit == unit


def test_images_and_modules_that_do_not_fit_are_refused():
    flat = ij.Dataset({'image': np.zeros((4, 64), np.float32)})
    with pytest.raises(ValueError, match=r'\[4, 64\]'):
        bind(tasks.Diffusion(CONFIG), flat)
    with pytest.raises(ValueError, match='draws=0'):
        tasks.Diffusion(CONFIG, draws=0)
    with pytest.raises(ValueError, match='even'):
        bind(tasks.Diffusion(CONFIG), ij.Dataset({'image': np.zeros((4, 7, 8, 1), np.uint8)}))
    with pytest.raises(ValueError, match='returns'):
        bind(
            tasks.Diffusion(lambda rngs: Flattening(rngs=rngs)),
            ij.Dataset({'image': np.zeros((4, 8, 8, 1), np.uint8)}),
        )


class Flattening(Passing):
    """Returns one number a pixel, without the channel."""

    def __call__(self, inputs):
        return super().__call__(inputs)[..., 0]


def test_shapes_of_networks_are_checked():
    with pytest.raises(ValueError, match='groups=8'):
        DenoiserConfig(width=12)
