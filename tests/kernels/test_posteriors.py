"""What posteriors and summaries are made of, in C++ beside numpy: sizes that fill no vector."""

import contextlib
import time

import numpy as np
import pytest

from influence_jax import kernels, threads
from influence_jax.estimators import Columns, Method, assisted, odds, prior, shrunk
from influence_jax.estimators.mask_products import HALVES, HalfEstimates, MaskProducts
from influence_jax.estimators.regression_adjusted import Fitting
from influence_jax.estimators.residual_columns import ResidualColumns
from influence_jax.estimators.scan import SummaryRequest, compiled, read_columns
from influence_jax.estimators.scan.compiled import CompiledEntries
from influence_jax.estimators.tiling import standardized_block
from influence_jax.kernels import differences, mask_sums, matrices, posterior, scores
from influence_jax.kernels.calls import FLOATS, INT, Function
from tests.kernels import variants

pytestmark = pytest.mark.skipif(
    not all(one.there() for one in (differences, mask_sums, posterior, scores)),
    reason='no C++ compiler, or no AVX-512',
)


@contextlib.contextmanager
def numpy_alone():
    kernels.use(False)
    try:
        yield
    finally:
        kernels.use(True)


def ensemble(members, examples, targets, seed=0):
    generator = np.random.default_rng(seed)
    masks = generator.permuted(np.arange(members)[:, None] % 2 > 0, axis=0)
    masks = generator.permuted(np.repeat(masks, examples, axis=1), axis=0)
    losses = generator.gamma(0.7, size=(members, targets)) - 2 * masks[:, :targets]
    losses -= 1.5 * np.roll(masks, 1, axis=1)[:, :targets]
    losses[:, 1] = 3
    return masks, losses


@pytest.mark.parametrize(('members', 'examples', 'targets'), [(25, 33, 5), (300, 130, 37)])
def test_whole_columns_and_their_errors(members, examples, targets):
    masks, losses = ensemble(members, examples, targets)
    self_index = np.where(np.arange(targets) % 3 > 0, np.arange(targets), -1)
    fit = Fitting(masks, losses, self_index)
    width = targets + 3  # filled up
    centered, scale = standardized_block(losses, width=width)
    index = np.pad(self_index, (0, 3), constant_values=-1)
    # Regressors left out of most targets: entries far beyond noise, whose errors are Welch's, stay.
    fitted = fit(centered, index, slice(0, targets), scale)
    products = MaskProducts(masks, fit.scan.single.packed)
    columns_of = ResidualColumns(masks, fit.scan.single, products)
    mine = columns_of(fitted, scale, width=targets)
    residual = fitted._replace(residual=centered, examples=np.full_like(fitted.examples, -1))
    far_out = columns_of(residual, scale, width=targets)
    with numpy_alone():
        theirs = columns_of(fitted, scale, width=targets)
        expected = columns_of(residual, scale, width=targets)
    for one, other in ((mine, theirs), (far_out, expected)):
        unit = np.where(other.standard_error > 0, other.standard_error, 1)
        np.testing.assert_allclose(one.values / unit, other.values / unit, atol=2e-4)
        np.testing.assert_allclose(one.standard_error, other.standard_error, rtol=2e-4, atol=1e-7)
    z = far_out.values / np.where(far_out.standard_error > 0, far_out.standard_error, 1)
    assert members < 100 or (np.abs(z) > 4).sum() >= targets - 1


@pytest.mark.parametrize('members', [1000, 4001])
def test_sums_of_losses_of_two_values_keep_their_means(members):
    generator = np.random.default_rng(0)
    masks = generator.random((members, 131)) < 0.5
    losses = (generator.random((members, 21)) < np.linspace(0.05, 0.95, 21)).astype(np.float32)
    for half in HALVES:
        losses[half] -= losses[half].mean(axis=0)
    losses = np.asfortranarray(losses)
    products, alone = MaskProducts(masks, CompiledEntries.of(masks).packed), MaskProducts(masks)
    error = losses.std(axis=0) * np.sqrt(members / 8)  # of a half
    off = products.by_halves(losses).sums - alone.by_halves(losses).sums
    assert np.abs(off / error).max() < 0.01
    off = products.sums(losses) - alone.sums(losses)
    assert np.abs(off / error).max() < 1e-4


@pytest.mark.parametrize('kind', variants.OF_SUMS.values(), ids=variants.OF_SUMS)
@pytest.mark.parametrize('members', [24, 31, 300])
def test_sums_of_all_members_and_of_halves(members, kind, monkeypatch):
    variants.use(kind, monkeypatch)
    masks, losses = ensemble(members, 131, 21)
    losses = np.asfortranarray(losses - losses.mean(axis=0), np.float32)
    losses /= np.maximum(np.abs(losses).max(axis=0), 1e-9)
    products = MaskProducts(masks, CompiledEntries.of(masks).packed)
    exact = masks.T.astype(float) @ losses
    error = np.sqrt(np.square(losses, dtype=float).sum(axis=0)) / 2
    at = error > 1e-6
    assert (np.abs(products.sums(losses) - exact)[:, at] < 1e-4 * error[at]).all()
    halves = products.by_halves(losses)
    for half, found in zip(HALVES, halves.sums, strict=True):
        exact = masks[half].T.astype(float) @ losses[half]
        assert (np.abs(found - exact)[:, at] < 0.01 * error[at]).all()
    matrices_alone = MaskProducts(masks)
    np.testing.assert_allclose(products.sums(losses), matrices_alone.sums(losses), atol=1e-3)
    np.testing.assert_array_equal(halves.of_sums, matrices_alone.by_halves(losses).of_sums)


def entries(examples, targets, *, bins, means=True):
    """Entries of which some are own, none are known of, or are far out."""
    generator = np.random.default_rng(examples)
    values = generator.standard_t(2, (examples, targets)).astype(np.float32)
    values[0, :4], values[1, 0] = (0, 1e-9, 4000, -4000), 1e12
    errors = generator.gamma(9, size=values.shape).astype(np.float32) / 9
    unit = generator.gamma(3, size=targets).astype(np.float32)
    values[:, 2], errors[:, 2], unit[2] = 0, 0, 0  # a constant target
    self_index = np.where(np.arange(targets) % 4 > 0, np.arange(targets) % examples, -1)
    edges = np.sort(generator.normal(size=bins - 1)).astype(np.float32)
    return posterior.Entries(
        values,
        errors,
        generator.normal(size=values.shape).astype(np.float32) if means else None,
        unit,
        generator.gamma(3, size=targets).astype(np.float32),
        self_index.astype(np.int32),
        40,
        edges,
    )


def z_of(of):
    with np.errstate(divide='ignore', invalid='ignore'):
        t = np.nan_to_num(of.values / of.errors, posinf=0, neginf=0)
        z = prior.normal_z(t, freedom=of.freedom)
        return z, np.where(np.abs(z) > 1e-3, of.values / z, of.errors)


@pytest.mark.parametrize(('bins', 'means'), [(1, False), (1, True), (5, True)])
@pytest.mark.parametrize(('examples', 'targets'), [(7, 5), (130, 33)])
def test_posteriors_are_read_off_the_table(examples, targets, bins, means):
    of = entries(examples, targets, bins=bins, means=means)
    weights = np.random.default_rng(0).dirichlet(np.ones(3), bins)
    mixture = odds.Odds(of.edges.astype(float), weights, np.tile([0.1, 4, 900.0], (bins, 1)))
    table = mixture.tabulated()
    values, errors = np.empty((2, examples, targets), np.float32)
    table.of_entries(of, values, errors)(slice(0, examples))
    z, error = z_of(of)
    mean = np.zeros_like(of.values) if of.means is None else of.means
    found = table.moments(mean / np.where(of.unit > 0, of.unit, 1), z)
    is_other = np.arange(examples)[:, None] != of.self_index
    expected = np.where(is_other, mean + error * found[0], of.values) * of.scale
    np.testing.assert_allclose(values, expected, rtol=2e-4, atol=2e-5)
    expected = np.where(is_other, error * found[1], of.errors) * of.scale
    np.testing.assert_allclose(errors, expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize('bins', [1, 6])
def test_counts_are_those_of_numpy(bins):
    of = entries(130, 33, bins=bins)
    histogram = odds.Histogram(np.zeros(1))
    if bins > 1:
        histogram = odds.Histogram(np.random.default_rng(0).normal(size=100))
        of = posterior.Entries(**{**vars(of), 'edges': histogram.edges.astype(np.float32)})
    halves = np.random.default_rng(1).normal(size=(2, *of.values.shape)).astype(np.float32)
    found = histogram.counts_of_entries(of, HalfEstimates(halves, np.ones((2, 130), np.float32)))
    z, error = z_of(of)
    at = (np.arange(130)[:, None] != of.self_index) & (of.unit > 0)
    relative = of.means / np.where(of.unit > 0, of.unit, 1)
    expected = histogram.counts(relative[at], z[at], halves[:, at] / error[at])
    np.testing.assert_array_equal(found.entries, expected.entries)
    # A z-score may be rounded to the other side of an edge.
    assert np.abs(np.cumsum(found.cells - expected.cells, axis=1)).max() <= 2
    np.testing.assert_allclose(found.products, expected.products, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(found.squares, expected.squares, rtol=1e-3)


@pytest.fixture(scope='module')
def scored():
    """Standardized scores of two methods, estimates of halves, units, of 33 targets."""
    generator = np.random.default_rng(2)
    index = np.where(np.arange(33) % 2 > 0, np.arange(33), -1)
    found = np.empty((2, 70, 33), np.float32)
    for of_one in found:
        raw = generator.standard_t(3, size=(70, 33)).astype(np.float32)
        assert prior.standardize(raw, index, of_one)
    sums = generator.normal(size=(2, 70, 33)).astype(np.float32) + found[0]
    halves = HalfEstimates(sums, generator.gamma(3, size=(2, 70)).astype(np.float32))
    unit = generator.gamma(3, size=33).astype(np.float32)
    unit[3] = 0
    knots = np.array([-1.0, 0, 0.5]), np.array([0.0])
    return found, knots, halves, unit


def test_scores_are_standardized_wherever_they_lie():
    generator = np.random.default_rng(0)
    raw = (1e3 + 7 * generator.normal(size=(70, 40))).astype(np.float32)
    raw[:, 4] = 0.1
    index = np.where(np.arange(33) % 2 > 0, np.arange(33), -1)
    raw[index[index >= 0], index[index >= 0]] = 1e6  # own ones are not looked at
    several = raw[:, 2:35], np.asfortranarray(raw[:, 2:35]), raw[:, 2:35].copy()
    found = np.empty((3, 70, 33), np.float32)
    assert all(prior.standardize(*of) for of in zip(several, [index] * 3, found, strict=True))
    expected = np.empty_like(found[0])
    with numpy_alone():
        assert prior.standardize(raw[:, 2:35], index, expected)
    assert not expected[:, 2].any()
    for one in found:
        np.testing.assert_allclose(one, expected, atol=1e-5)
    raw[3, 9] = np.inf
    assert not prior.standardize(raw[:, 2:35], index, found[0])
    with numpy_alone():
        assert not prior.standardize(raw[:, 2:35], index, found[0])


def test_moments_of_features(scored):
    mine = prior.moments(*scored)
    with numpy_alone():
        theirs = prior.moments(*scored)
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(one.squares, other.squares, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(one.products, other.products, rtol=1e-4, atol=1e-2)


def test_means_with_own_slopes(scored):
    found, knots, halves, unit = scored
    generator = np.random.default_rng(3)
    taught = tuple(prior.Means(knots, generator.normal(size=6), share) for share in (0.02, 0.0))
    mine = prior.means(taught, found, halves, unit, members=100)
    with numpy_alone():
        theirs = prior.means(taught, found, halves, unit, members=100)
    np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
    assert (mine[:, :, 3] == 0).all() and np.abs(mine).max() > 1


@pytest.mark.parametrize('rows', [1, 2, 5, 256, 1001])
def test_medians_and_largest_numbers_of_columns(rows):
    generator = np.random.default_rng(rows)
    matrix = generator.gamma(1, size=(rows, 40)).astype(np.float32)
    matrix[:, 1], matrix[:, 3], matrix[0, 5], matrix[0, 6] = 0.0, -matrix[:, 3], np.nan, np.inf
    matrix[:, 7] = np.where(np.arange(rows) % 20 == 0, 1e6, 0.5)
    matrix[:, 8] -= 1
    for of in (matrix, matrix[:, 2:39]):
        assert matrices.serves(of)
        np.testing.assert_array_equal(matrices.medians(of), np.median(of, axis=0))
        np.testing.assert_array_equal(matrices.largest(of), np.abs(of).max(axis=0))
    assert not matrices.serves(matrix.T) and not matrices.serves(matrix.astype(float))


def test_candidates_of_a_matrix_with_errors_are_those_beyond_their_floor():
    generator = np.random.default_rng(0)
    values, floors = generator.normal(size=(2, 70, 33)).astype(np.float32)
    floors[5] = np.nan
    found = read_columns(
        values.T,
        unit=np.ones(33, np.float32),
        floor=floors.T,
        self_index=np.full(33, -1),
        request=SummaryRequest(4, (0, 69)),
    )
    expected = np.argwhere(np.abs(values) > floors)
    listed = zip(found.candidate_examples, found.candidate_targets, strict=True)
    assert sorted(listed) == [tuple(place) for place in expected.tolist()]


@pytest.mark.parametrize('helped', [False, True], ids=['shrunk', 'assisted'])
def test_the_whole_estimate_is_that_of_numpy(helped):
    masks, losses = ensemble(120, 150, 150, seed=3)
    noise = np.random.default_rng(3).normal(size=(150, 150))
    cheap = np.eye(150, k=1) * 1.5 + 0.1 * noise
    of = (masks, losses, cheap) if helped else (masks, losses)
    mine = (assisted if helped else shrunk)(*of)
    with numpy_alone():
        theirs = (assisted if helped else shrunk)(*of)
    values, errors = (np.delete(np.stack(of), 1, axis=2) for of in zip(mine, theirs, strict=True))
    off = np.abs(values[0] - values[1]) / errors[1], np.abs(errors[0] / errors[1] - 1)
    assert max(map(np.median, off)) < 1e-3
    # Entries next to an edge of a bin of means may be in either, and change the odds of both.
    assert max(np.quantile(of, 0.999) for of in off) < (0.05 if helped else 5e-3)
    for of in (mine, theirs):  # the constant target
        assert not np.asarray(of.values)[:, 1].any()
    without = np.asarray(shrunk(masks, losses).values)
    assert np.array_equal(mine.values, without) != helped


@pytest.mark.parametrize('of_all', [0.0, 0.1])
def test_scores_that_are_all_the_same_say_nothing(of_all):
    masks, losses = ensemble(40, 30, 30)
    scores = np.full((30, 30), of_all, np.float32)
    np.testing.assert_array_equal(assisted(masks, losses, scores), shrunk(masks, losses))
    with numpy_alone():
        np.testing.assert_array_equal(assisted(masks, losses, scores), shrunk(masks, losses))


def test_scores_are_read_by_one_thread_at_a_time(monkeypatch):
    masks, losses = ensemble(40, 30, 30)
    reading, most = [], []

    def read(targets):
        reading.append(targets)
        most.append(len(reading))
        time.sleep(0.01)
        reading.pop()
        return np.ones((30, len(targets)), np.float32)

    scores = Columns(30, 30, read, Method('scores', 'scores', 'a score'))
    monkeypatch.setattr(threads, 'num_cores', lambda: 4)
    monkeypatch.setattr(compiled, 'num_cores', lambda: 4)
    assisted(masks, losses, scores, tile=4)
    assert len(most) > 8 and set(most) == {1}


def test_arrays_of_another_type_are_refused():
    function = Function('matrices.cc', 'matrices_medians', (INT, FLOATS, INT, FLOATS))
    with pytest.raises(TypeError, match='float32'):
        function.bound(3, np.ones((3, 2)), 2, np.empty(2, np.float32))
    with pytest.raises(TypeError, match='C_CONTIGUOUS'):
        function.bound(3, np.ones((2, 3), np.float32).T, 2, np.empty(2, np.float32))
