"""Products with bfloat16 factors, wherever they are in a step; everything else in float32."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import influence_jax as ij
from influence_jax import ensemble, training
from influence_jax.kernels import bfloat16_convolution
from influence_jax.training import ComputeDtype, compute_dtype, member
from influence_jax.training.compute_dtype import computing_in

BFLOAT16 = ComputeDtype.BFLOAT16
GENERATOR = np.random.default_rng(0)
A, B = (jnp.asarray(GENERATOR.standard_normal((6, 6), np.float32)) for _ in range(2))


def _rounded_product(a, b):
    a, b = (x.astype(jnp.bfloat16).astype(jnp.float32) for x in (a, b))
    return a @ b


def _scanned(a, b):
    return lax.scan(lambda x, _: (jnp.tanh(x @ b), None), a, length=2)[0]


def _branched(a, b):
    return lax.cond(a[0, 0] > 100, lambda: a, lambda: a @ b)


@jax.custom_jvp
def _squared(a, b):
    return (a @ b) ** 2


_squared.defjvp(lambda primals, tangents: (_squared(*primals), 3 * (tangents[0] @ primals[1])))


@pytest.mark.parametrize(
    ('function', 'expected'),
    [
        (jnp.matmul, _rounded_product),
        (jax.jit(jnp.matmul), _rounded_product),
        (
            _scanned,
            lambda a, b: jnp.tanh(_rounded_product(jnp.tanh(_rounded_product(a, b)), b)),
        ),
        (_branched, _rounded_product),
        (_squared, lambda a, b: _rounded_product(a, b) ** 2),
        (jax.checkpoint(jnp.matmul), _rounded_product),
        (lambda a, b: jax.vmap(jnp.matmul)(a[None], b[None])[0], _rounded_product),
    ],
    ids=['product', 'jit', 'scan', 'cond', 'custom_jvp', 'checkpoint', 'batched'],
)
def test_products_anywhere_have_rounded_factors_and_float32_sums(function, expected):
    found = jax.jit(computing_in(BFLOAT16, function))(A, B)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected(A, B), rtol=1e-5, atol=1e-5)
    assert not np.allclose(found, function(A, B), rtol=1e-5, atol=1e-5)


def test_gradients_have_rounded_factors_too():
    found = computing_in(BFLOAT16, jax.grad(lambda a: (a @ B).sum()))(A)
    expected = _rounded_product(jnp.ones((6, 6)), B.T)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_convolutions_are_of_bfloat16_on_accelerators_and_rounded_on_a_cpu():
    images, kernel = (
        jnp.asarray(GENERATOR.standard_normal(shape, np.float32))
        for shape in ((1, 4, 4, 2), (2, 2, 2, 3))
    )

    def convolve(images, kernel):
        return lax.conv_general_dilated(
            images, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )

    traced = jax.jit(computing_in(BFLOAT16, convolve)).trace(images, kernel)
    for platform, rounded in (('cuda', True), ('tpu', True), ('cpu', False)):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert ('bf16' in text) is rounded
    rounded = [x.astype(jnp.bfloat16).astype(jnp.float32) for x in (images, kernel)]
    found = traced.lower().compile()(images, kernel)
    np.testing.assert_allclose(found, convolve(*rounded), rtol=1e-5, atol=1e-5)


def test_a_precision_that_was_asked_for_is_kept():
    def precise(a, b):
        return jnp.matmul(a, b, precision='highest')

    np.testing.assert_array_equal(computing_in(BFLOAT16, precise)(A, B), precise(A, B))
    with jax.default_matmul_precision('highest'):
        np.testing.assert_array_equal(computing_in(BFLOAT16, jnp.matmul)(A, B), A @ B)


def test_sums_that_are_written_as_products_are_left_alone():
    for function in (jnp.vdot, lambda a, b: a[0] @ b, lambda a, b: jnp.outer(a[0], b[0])):
        np.testing.assert_array_equal(computing_in(BFLOAT16, function)(A, B), function(A, B))


def test_other_types_and_float32_are_left_alone():
    whole = jnp.arange(36).reshape(6, 6)
    np.testing.assert_array_equal(computing_in(BFLOAT16, jnp.matmul)(whole, whole), whole @ whole)
    assert computing_in(ComputeDtype.FLOAT32, jnp.matmul) is jnp.matmul


def test_derivatives_go_through_a_rounded_step_and_keep_custom_rules():
    derivative = jax.grad(lambda a: computing_in(BFLOAT16, _squared)(a, B).sum())(A)
    np.testing.assert_allclose(derivative, 3 * jnp.ones((6, 6)) @ B.T, rtol=2e-2, atol=2e-2)


# --- members ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Linear:
    """A linear model of six inputs; measures its loss."""

    measurements = ('loss',)

    def init(self, *, key):
        return {'w': jax.random.normal(key, (6, 1))}

    def train_loss(self, params, batch, *, key):
        del key
        return self._losses(params, batch)

    def measure(self, params, batch):
        return {'loss': self._losses(params, batch)}

    def _losses(self, params, batch):
        return jnp.square((batch['x'] @ params['w'])[:, 0] - batch['y'])


ROWS = {
    'x': GENERATOR.standard_normal((16, 6), np.float32),
    'y': GENERATOR.standard_normal(16, np.float32),
}


def _trained(dtype):
    program = training.Program(Linear(), optax.sgd(0.05), 12, 4, 16, 8, dtype)
    mask = jnp.arange(16) < 10
    return jax.jit(
        lambda: member.train_member(
            program, key=jax.random.key(0), mask=mask, examples=ROWS, targets=ROWS
        )
    )()


def test_a_member_is_near_that_of_float32_but_another():
    exact, rounded = _trained(ComputeDtype.FLOAT32), _trained(BFLOAT16)
    difference = np.abs(exact.params['w'] - rounded.params['w']).max()
    assert 0 < difference < 2e-2
    assert rounded.params['w'].dtype == jnp.float32


def test_measurements_are_of_float32_products():
    rounded = _trained(BFLOAT16)
    expected = Linear()._losses(rounded.params, {k: jnp.asarray(v) for k, v in ROWS.items()})
    np.testing.assert_allclose(rounded.measurements['loss'], expected, rtol=1e-5, atol=1e-6)


DATASET = ij.Dataset(ROWS)


LARGER = ij.Dataset({name: np.concatenate([rows] * 4) for name, rows in ROWS.items()})
"""Of whose halves batches can be whole groups of images."""


def _run(directory, dtype, *, batch_size=4, **options):
    return ij.train_ensemble(
        Linear(),
        DATASET if batch_size == 4 else LARGER,
        members=4,
        output_dir=directory,
        design=ij.Design.BALANCED,
        recipe=ij.Recipe(epochs=1, batch_size=batch_size, compute_dtype=dtype),
        **options,
    )


def test_the_dtype_is_part_of_a_runs_configuration(tmp_path):
    run = _run(tmp_path / 'run', BFLOAT16)
    assert run.manifest.configuration['recipe']['compute_dtype'] == 'bfloat16'
    with pytest.raises(ij.store.RunError, match=r'recipe\.compute_dtype: "bfloat16" -> absent'):
        _run(tmp_path / 'run', ComputeDtype.FLOAT32)
    recipe = training.Recipe.of_manifest(run.manifest.configuration['recipe'])
    assert recipe.compute_dtype is BFLOAT16


def test_a_run_of_float32_is_one_of_before_there_was_a_choice(tmp_path):
    run = _run(tmp_path / 'run', ComputeDtype.FLOAT32)
    assert 'compute_dtype' not in run.manifest.configuration['recipe']
    recipe = training.Recipe.of_manifest(run.manifest.configuration['recipe'])
    assert recipe.compute_dtype is ComputeDtype.FLOAT32


@pytest.mark.parametrize('fast', [ComputeDtype.FLOAT32, BFLOAT16])
def test_a_dtype_that_is_left_open_is_the_fastest_or_that_of_the_run(fast, tmp_path, monkeypatch):
    monkeypatch.setattr(bfloat16_convolution, 'is_at_hand', lambda: fast is BFLOAT16)
    run = _run(tmp_path / 'run', None, batch_size=16)
    assert training.Recipe.of_manifest(run.manifest.configuration['recipe']).compute_dtype is fast
    monkeypatch.setattr(bfloat16_convolution, 'is_at_hand', lambda: fast is not BFLOAT16)
    again = _run(tmp_path / 'run', None, batch_size=16)  # on another machine
    assert again.manifest == run.manifest
    model = ij.train_full_data_model(
        Linear(),
        LARGER,
        output_dir=tmp_path / 'model',
        recipe=ij.Recipe(epochs=1, batch_size=16, compute_dtype=None),
    )
    kept = training.Recipe.of_manifest(model.manifest.configuration['recipe'])
    assert kept.compute_dtype is not fast


def test_a_dtype_that_is_left_open_where_batches_fill_no_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(bfloat16_convolution, 'is_at_hand', lambda: True)
    run = _run(tmp_path / 'run', None, batch_size=4)
    assert 'compute_dtype' not in run.manifest.configuration['recipe']


@pytest.mark.parametrize('recipe', [None, 'text', {'compute_dtype': 'float8', 'epochs': 1}])
def test_a_run_whose_recipe_cannot_be_read_is_refused(recipe, tmp_path):
    run = _run(tmp_path / 'run', BFLOAT16)
    path = run.directory / 'manifest.json'
    manifest = json.loads(path.read_text(encoding='utf-8'))
    manifest['configuration']['recipe'] = recipe
    path.write_text(json.dumps(manifest), encoding='utf-8')
    with pytest.raises(ij.store.RunError, match='recipe'):
        _run(tmp_path / 'run', None)


def test_training_again_with_the_dtype_of_a_run_says_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(bfloat16_convolution, 'is_at_hand', lambda: True)
    run = _run(tmp_path / 'run', None, batch_size=16)
    recipe = training.Recipe.of_manifest(run.manifest.configuration['recipe'])
    ij.ensemble.measure_subsets(Linear(), LARGER, run.masks[:2], recipe=recipe)
    assert not [record for record in caplog.records if record.levelname == 'WARNING']


def test_a_dtype_that_is_left_open_is_no_configuration():
    with pytest.raises(ValueError, match='give float32 or bfloat16'):
        training.Recipe(compute_dtype=None).described()


@pytest.mark.parametrize(
    ('convolves', 'said'),
    [(False, 'not multiply it faster'), (True, '3x3 convolutions.*are faster')],
)
def test_a_dtype_that_is_not_fast_here_runs_and_says_so(
    convolves, said, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(ensemble, 'multiplies_bfloat16', lambda: False)
    monkeypatch.setattr(bfloat16_convolution, 'is_at_hand', lambda: convolves)
    _run(tmp_path / 'run', BFLOAT16)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == 'WARNING']
    assert re.search(f'compute_dtype=bfloat16.*cpu.*{said}', line)


@pytest.mark.parametrize(
    ('platform', 'capability', 'expected'),
    [
        ('cpu', None, False),
        ('tpu', None, True),
        ('gpu', '9.0', True),
        ('gpu', '7.5', False),
        ('gpu', 'gfx90a', True),
    ],
)
def test_which_devices_multiply_bfloat16_faster(monkeypatch, platform, capability, expected):
    device = type('Device', (), {'platform': platform, 'compute_capability': capability})()
    monkeypatch.setattr(jax, 'devices', lambda: [device])
    compute_dtype.multiplies_bfloat16.cache_clear()
    try:
        assert compute_dtype.multiplies_bfloat16() is expected
    finally:
        compute_dtype.multiplies_bfloat16.cache_clear()
