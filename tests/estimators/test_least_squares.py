"""Regressions of many targets: in C++ and numpy as compiled, and as least squares has them."""

import jax
import numpy as np
import pytest

from influence_jax import kernels
from influence_jax.estimators import least_squares
from influence_jax.estimators.least_squares import fit_regressors
from influence_jax.kernels.regressions import regressions

M, T, K = 96, 37, 8


@pytest.fixture(scope='module')
def drawn():
    rng = np.random.default_rng(0)
    included = rng.random((3, T, K, M)) < 0.5
    included[:, :, 0] = included[0, :, 0]  # the own example is the first, whoever chooses
    candidates = rng.integers(0, 50, (3, T, K))
    effect = np.zeros((T, K))
    effect[:, 0], effect[::2, 1] = -1.0, -0.7
    losses = np.einsum('tk,tkm->mt', effect, included[2]) + rng.normal(0, 0.1, (M, T))
    losses -= losses.mean(axis=0)
    has_self = np.arange(T) % 3 > 0
    return losses.astype(np.float32), candidates, included, has_self, np.float32(3.0)


def fitted(losses, candidates, included, has_self, least_z):
    return fit_regressors(losses, candidates, np.packbits(included, axis=-1), has_self, least_z)


@pytest.fixture(params=[True, False], ids=['kernels', 'numpy'])
def kernels_or_numpy(request):
    kernels.use(request.param)
    yield
    kernels.use(True)


@pytest.mark.usefixtures('kernels_or_numpy')
def test_all_ways_agree_with_the_compiled_program(drawn):
    found, compiled = fitted(*drawn), least_squares._on_devices(*drawn)
    np.testing.assert_array_equal(found.examples, compiled.examples)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(compiled), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5)
        assert one.dtype == np.float32 or one.dtype.kind == 'i'


@pytest.mark.usefixtures('kernels_or_numpy')
def test_values_are_those_of_least_squares_on_what_is_used(drawn):
    losses, candidates, included, has_self, _ = drawn
    found = fitted(*drawn)
    used = found.examples >= 0
    assert used[has_self, 0].all() and (found.examples[used] == candidates[2][used]).all()
    for target in range(T):
        columns = included[2, target, used[target]].astype(float).T
        columns -= columns.mean(axis=0)
        expected, *_ = np.linalg.lstsq(columns, losses[:, target].astype(float), rcond=None)
        np.testing.assert_allclose(found.values[target, used[target]], -expected, atol=1e-4)
        left = losses[:, target] - columns @ expected
        np.testing.assert_allclose(found.residual[target], left, atol=1e-4)
    assert (found.values[~used] == 0).all()


def test_targets_do_not_depend_on_those_beside_them(drawn):
    losses, candidates, included, has_self, least_z = drawn
    whole = fitted(*drawn)
    alone = fitted(losses[:, 5:6], candidates[:, 5:6], included[:, 5:6], has_self[5:6], least_z)
    np.testing.assert_allclose(alone.values[0], whole.values[5], atol=1e-6)
    np.testing.assert_array_equal(alone.examples[0], whole.examples[5])


@pytest.mark.parametrize('members', [24, 25, 63, 64, 65, 130, 301])
@pytest.mark.parametrize('most', [1, 4, 8])
def test_kernels_are_as_numpy_for_any_number_of_members(members, most):
    rng = np.random.default_rng(members)
    included = rng.random((3, 20, most, members)) < 0.5
    candidates = rng.integers(0, 50, (3, 20, most))
    included[2] = included[1] = included[0]
    losses = rng.gamma(1, size=(members, 20)) - np.einsum('tkm->mt', 0.4 * included[0])
    losses = (losses - losses.mean(axis=0)).astype(np.float32)
    losses[:, 3] = 0
    of = losses, candidates, included, np.arange(20) % 2 > 0, np.float32(1.5)
    found = fitted(*of)
    kernels.use(False)
    expected = fitted(*of)
    kernels.use(True)
    np.testing.assert_array_equal(found.examples, expected.examples)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-5)


def test_more_columns_than_the_kernel_holds_are_refused():
    columns = np.zeros((3, 2, 9, 4), np.uint8)
    with pytest.raises(ValueError, match='9 columns'):
        regressions(np.zeros((30, 2)), columns, np.array([0, 9]), np.ones(2, bool), least_z=3.0)
