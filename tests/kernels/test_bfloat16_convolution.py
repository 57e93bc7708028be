"""Convolutions of factors rounded to bfloat16 are those of XLA."""

import shutil
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax.kernels import bfloat16_convolution as kernel
from influence_jax.kernels import convolutions, library, winograd
from influence_jax.kernels.bfloat16_convolution import BFLOAT16
from influence_jax.kernels.convolutions import Convolutions
from influence_jax.models.convolution import _by_images, _by_kernel, _convolve, _rounded, conv3x3
from influence_jax.training.compute_dtype import ComputeDtype, computing_in
from tests.kernels import variants
from tests.kernels.test_winograd import problem

pytestmark = pytest.mark.skipif(
    not kernel.is_at_hand(), reason='no C++ compiler, or no products of bfloat16'
)

SHAPES = {
    'the default network': (48, 8, 8, 32, 32),
    'its first layer': (48, 8, 8, 48, 32),
    'odd sides, parts of tiles': (3, 7, 5, 9, 21),
    'inputs wider than outputs': (35, 4, 4, 80, 17),
    'one pixel': (1, 1, 1, 16, 8),
    'one row': (33, 1, 9, 8, 65),
    'no images': (0, 4, 4, 16, 16),
}


EMULATED = Convolutions(*(f'emulated_{name}' for name in BFLOAT16.targets))


@pytest.fixture(params=[BFLOAT16, EMULATED], ids=['this CPU', 'AMX, its tiles emulated'])
def by(request):
    """Convolutions as this CPU computes them, and as one with AMX would."""
    if request.param is EMULATED:
        compiled = variants.loaded(kernel._SOURCE, *variants.EMULATED_TILES)
        for name, target in zip(EMULATED.targets, BFLOAT16.targets, strict=True):
            jax.ffi.register_ffi_target(
                name, jax.ffi.pycapsule(getattr(compiled, target)), platform='cpu'
            )
    return request.param


def close(found, expected):
    scale = max(np.abs(expected).max(initial=0), 1e-30)
    np.testing.assert_allclose(found / scale, expected / scale, atol=2e-6)


def rounded(*arrays):
    return [jax.jit(_rounded)(array) for array in arrays]


@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize('threads', [False, True])
def test_convolution_and_gradients_are_those_of_rounded_factors(by, shape, threads, monkeypatch):
    monkeypatch.setattr(convolutions, 'threads', lambda: threads)
    images, weights, cotangent = problem(*shape)
    x, k, y = rounded(images, weights, cotangent)
    close(by.convolution(images, weights), _convolve(x, k))
    close(by.by_images(cotangent, weights), _by_images(y, k))
    close(by.by_kernel(images, cotangent), _by_kernel(x, y))


def test_several_problems_are_each_alone(by):
    several = [problem(5, 4, 6, 17, 40), problem(5, 4, 6, 17, 40)]
    images, weights, cotangent = (np.stack(arrays) for arrays in zip(*several, strict=True))
    images[1] *= 2
    for whole, one in (
        (
            by.convolution(images, weights),
            lambda p: by.convolution(images[p], weights[p]),
        ),
        (
            by.by_images(cotangent, weights),
            lambda p: by.by_images(cotangent[p], weights[p]),
        ),
        (
            by.by_kernel(images, cotangent),
            lambda p: by.by_kernel(images[p], cotangent[p]),
        ),
    ):
        for number in range(2):
            np.testing.assert_array_equal(whole[number], one(number))


def test_what_is_no_number_stays_where_it_belongs(by):
    images, weights, _ = problem(17, 3, 3, 8, 8)
    images[3, 0, 0, 0] = np.nan
    found = np.asarray(by.convolution(images, weights))
    assert np.isnan(found[3, :2, :2]).all()
    assert np.isfinite(found[3, 2]).all()
    assert np.isfinite(np.delete(found, 3, axis=0)).all()


def test_members_that_compute_in_bfloat16_use_them_and_others_do_not():
    images, weights, _ = problem(16, 4, 4, 16, 16)

    def loss(images, weights):
        return jnp.sin(conv3x3(images, weights)).sum()

    step = jax.grad(loss, (0, 1))
    narrow = jax.jit(computing_in(ComputeDtype.BFLOAT16, step))
    text = narrow.lower(images, weights).as_text()
    assert text.count('custom_call @influence_jax_convolve_bfloat16') == 2
    assert text.count('custom_call @influence_jax_kernel_gradient_bfloat16') == 1
    plain = jax.jit(step).lower(images, weights).as_text()
    assert 'influence_jax_convolve' in plain and 'bfloat16' not in plain
    for a, b in zip(narrow(images, weights), jax.jit(step)(images, weights), strict=True):
        difference = np.linalg.norm(a - b) / np.linalg.norm(b)
        assert 1e-4 < difference < 0.05


def test_other_shapes_and_other_machines_are_left_to_winograd_and_xla(monkeypatch):
    assert kernel.serves(48, 8, 8) and kernel.serves(13, 8, 8) and kernel.serves(40, 64, 32)
    assert not kernel.serves(48, 3, 32)
    assert not any(kernel.serves(images, 32, 32) for images in (0, 1, 12, 17, 38))
    monkeypatch.setattr(kernel, '_multiplies_bfloat16', lambda: False)
    assert not kernel.serves(48, 8, 8)
    images, weights, _ = problem(16, 4, 4, 16, 16)
    rounded_step = jax.jit(computing_in(ComputeDtype.BFLOAT16, conv3x3))
    assert 'bfloat16' not in rounded_step.lower(images, weights).as_text()
    close(rounded_step(images, weights), winograd.WINOGRAD.convolution(*rounded(images, weights)))


@pytest.mark.parametrize(
    ('source', 'instruction'),
    [(kernel._SOURCE, 'tdpbf16ps'), ('columns.cc', 'tdpbsud'), ('mask_sums.cc', 'tdpbsud')],
)
def test_what_amx_runs_compiles_here_too(source, instruction, tmp_path):
    """With the instructions for tiles, which the tests above emulate."""
    *command, _, include = library._command(shutil.which('c++') or shutil.which('g++') or 'c++')
    command = [option for option in command if option not in ('-march=native', '-shared')]
    path = Path(library.__file__).with_name(source)
    options = ['-march=sapphirerapids', '-S', '-o', str(tmp_path / 'assembly.s')]
    done = subprocess.run(
        [*command, '-isystem', include, *options, str(path)], capture_output=True, text=True
    )
    if 'bad value' in done.stderr or 'unknown target' in done.stderr:
        pytest.skip('the compiler is older than AMX')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'assembly.s').read_text(encoding='utf-8').count(instruction) >= 8
