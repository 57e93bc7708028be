"""The engine's invariants on what it is for: ResNets on images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax import Dataset, tasks, training
from influence_jax.models import ResNetConfig
from influence_jax.tasks.images import standardized
from influence_jax.training import Recipe, sequential, vmapped

MEMBERS, COUNT, STEPS = 4, 40, 3  # few steps: AdamW amplifies rounding as it goes on
KEY = jax.random.key(7)


@pytest.fixture(scope='module')
def problem():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (COUNT, 8, 8, 3), np.uint8)
    network = ResNetConfig(3, width=8, blocks=(1, 1), patch=2)
    return tasks.Classification(network, prepare=standardized).bind(
        Dataset({'image': pixels, 'label': rng.integers(0, 3, COUNT, np.int32)})
    )


@pytest.fixture(scope='module')
def images(problem):
    return jax.tree.map(jnp.asarray, problem.examples)


@pytest.fixture(scope='module')
def program(problem):
    return training.Program(
        task=problem.task,
        optimizer=Recipe(learning_rate=1e-3).optimizer(STEPS),
        steps=STEPS,
        batch_size=8,
        measure_batch=16,
        smallest_subset=8,
    )


@pytest.fixture(scope='module')
def masks():
    return np.random.default_rng(1).random((MEMBERS, COUNT)) < 0.5


def _losses(program, images, masks, executor):
    chunks = training.train(
        program,
        key=KEY,
        masks=masks,
        members=range(MEMBERS),
        examples=images,
        targets=images,
        executor=executor,
    )
    return np.concatenate([chunk.result.measurements['loss'] for chunk in chunks])


@pytest.fixture(scope='module')
def alone(program, images, masks):
    return _losses(program, images, masks, sequential(1, in_turn=1))


@pytest.mark.slow
@pytest.mark.parametrize('executor', [sequential(1, in_turn=2), sequential(4)], ids=str)
def test_in_turn_and_in_streams_are_exactly_the_same(program, images, masks, alone, executor):
    np.testing.assert_array_equal(_losses(program, images, masks, executor), alone)


@pytest.mark.slow
@pytest.mark.parametrize('executor', [vmapped(4, 1), vmapped(2, 2)], ids=str)
def test_vmapped_members_differ_by_rounding(program, images, masks, alone, executor):
    np.testing.assert_allclose(
        _losses(program, images, masks, executor), alone, rtol=1e-3, atol=1e-4
    )


def test_a_mask_is_the_data_physically_cut(program, images, masks, alone):
    subset = jax.tree.map(lambda leaf: leaf[masks[2]], images)
    cut = jax.jit(
        lambda key: training.train_member(
            program,
            key=key,
            mask=jnp.ones(masks[2].sum(), bool),
            examples=subset,
            targets=images,
        ).measurements['loss']
    )(jax.random.fold_in(KEY, 2))
    np.testing.assert_allclose(cut, alone[2], rtol=1e-4, atol=1e-5)
