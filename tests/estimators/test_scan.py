"""Both scans, all products: equal to the loops, and to one another."""

import numpy as np
import pytest
import reference

from influence_jax.estimators.scan import EDGES, SummaryRequest, Targets, host
from influence_jax.estimators.scan.device import DeviceScan
from influence_jax.estimators.scan.host import HostScan
from influence_jax.estimators.scan.products import ROUNDING, Product, fastest, prepare, sums

ASKED = SummaryRequest(strongest=5, ranks=(0, 3, 40, 79, 119))

# How far from the exact value, in standard errors of an entry, a scan may place one.
SCANS = {
    'host': (HostScan, 1e-5),
    'float32': (lambda masks: DeviceScan(masks, product=Product.FLOAT32), 1e-5),
    'bfloat16': (lambda masks: DeviceScan(masks, product=Product.BFLOAT16), 1e-5),
    'fixed_point': (lambda masks: DeviceScan(masks, product=Product.FIXED_POINT), 1e-3),
}


def problem(members=61, examples=120, targets=70):
    """Losses of which each target's own example and one other lower the level."""
    generator = np.random.default_rng(0)
    masks = generator.random((members, examples)) < 0.5
    losses = generator.normal(size=(members, targets))
    for t in range(targets):
        losses[:, t] -= masks[:, t] + 0.7 * masks[:, (t + 7) % examples]
    losses -= losses.mean(axis=0)
    losses = (losses / np.abs(losses).max(axis=0)).astype(np.float32)
    self_index = np.arange(targets)
    self_index[4] = -1
    null_error = 2 * losses.std(axis=0) / np.sqrt(members)
    fixed = np.stack([(self_index + 50) % examples, np.full(targets, -1)], axis=1)
    values = np.stack([3.3 * null_error, np.zeros(targets)], axis=1)
    return masks, Targets(losses, null_error, self_index, 2.5 * null_error, fixed, values)


@pytest.fixture(scope='module', params=list(SCANS))
def scanned(request):
    make, tolerance = SCANS[request.param]
    masks, targets = problem()
    exact, errors = reference.difference_in_means(masks, targets.losses.astype(np.float64))
    matrix = exact.copy()
    rows = np.arange(len(targets.self_index))
    matrix[targets.fixed_examples[:, 0], rows] = targets.fixed_values[:, 0]
    return make(masks), masks, targets, matrix, exact, errors, tolerance


def test_columns_are_those_of_the_loops(scanned):
    scan, _, targets, matrix, _, _, tolerance = scanned
    found = scan.columns(targets, ASKED)
    unit = targets.null_error
    close = {'atol': tolerance * unit.max()}
    ascending = np.sort(matrix, axis=0)
    rows = np.arange(len(unit))[:, None]
    np.testing.assert_allclose(found.ranked, ascending[list(ASKED.ranks)].T, **close)
    np.testing.assert_allclose(matrix[found.top, rows], ascending[:-6:-1].T, **close)
    np.testing.assert_allclose(matrix[found.bottom, rows], ascending[:5].T, **close)
    z = matrix / unit
    powers = np.stack([(z**p).mean(axis=0) for p in (1, 2, 3, 4)], axis=1)
    np.testing.assert_allclose(found.moments, powers, rtol=30 * tolerance, atol=30 * tolerance)


def test_candidates_are_all_beyond_the_floor(scanned):
    scan, _, targets, matrix, _, _, tolerance = scanned
    found = scan.columns(targets, ASKED)
    places = np.stack([found.candidate_targets, found.candidate_examples], axis=1)
    listed = set(map(tuple, places.tolist()))
    assert len(listed) == len(found.candidate_targets)
    surely, perhaps = (np.abs(matrix) > targets.floor * (1 + s * tolerance) for s in (1, -1))
    assert set(map(tuple, np.argwhere(surely.T).tolist())) <= listed
    assert listed <= set(map(tuple, np.argwhere(perhaps.T).tolist()))
    assert (4, 54) not in listed or abs(matrix[54, 4]) > targets.floor[4]


def test_histogram_counts_all_but_own_entries(scanned):
    scan, _, targets, matrix, _, _, tolerance = scanned
    found = scan.columns(targets, ASKED)
    z = reference.off_diagonal(matrix / targets.null_error, targets.self_index)
    counts, _ = np.histogram(z.clip(EDGES[0], EDGES[-1]), EDGES)
    assert found.histogram.sum() == len(z)
    moved = np.abs(np.cumsum(found.histogram - counts)).max()
    assert moved <= (2 if tolerance < 1e-4 else 20)


def test_entries_are_those_of_the_loops(scanned):
    scan, masks, targets, _, exact, errors, _ = scanned
    generator = np.random.default_rng(1)
    of = generator.integers(0, len(targets.self_index), 500)
    examples = generator.integers(0, masks.shape[1], 500)
    values, standard_errors = scan.entries(targets.losses, of, examples)
    np.testing.assert_allclose(values, exact[examples, of], atol=1e-6)
    np.testing.assert_allclose(standard_errors, errors[examples, of], rtol=1e-5)


def test_candidate_regressors_are_the_largest_t_statistics_of_both_halves_and_of_all(scanned):
    scan, masks, targets, *_ = scanned
    found = scan.candidate_regressors(targets.losses, targets.self_index, 4)
    for part, members in enumerate((slice(0, None, 2), slice(1, None, 2), slice(None))):
        kept, losses = masks[members], targets.losses[members].astype(np.float64)
        values, _ = reference.difference_in_means(kept, losses)
        inside = kept.sum(axis=0)[:, None]
        score = np.abs(values) * np.sqrt(inside * (len(kept) - inside))
        for t, self_index in enumerate(targets.self_index):
            if self_index >= 0:
                assert found[part, t, 0] == self_index
                score[self_index, t] = np.inf
            expected = np.sort(score[:, t])[:-5:-1]
            np.testing.assert_allclose(score[found[part, t], t], expected, rtol=1e-2)


@pytest.mark.parametrize('product', Product)
def test_products_are_as_exact_as_they_say(product):
    masks, targets = problem()
    exact = targets.losses.T.astype(np.float64) @ masks
    found = np.asarray(sums(product, prepare(product, masks), targets.losses))
    allowed = 6 * ROUNDING * np.sqrt(len(masks)) if product is Product.FIXED_POINT else 2e-5
    assert np.abs(found - exact).max() < allowed
    if product is Product.FIXED_POINT:  # the figure is neither too small nor idle
        assert (found - exact).std() == pytest.approx(ROUNDING * np.sqrt(len(masks) / 2), rel=0.2)


def test_heavy_tails_are_not_written_in_fixed_point():
    masks, targets = problem()
    losses = targets.losses * 1e-3
    losses[0, :] = 1
    losses -= losses.mean(axis=0)
    error = 2 * losses.std(axis=0) / np.sqrt(len(masks))
    heavy = targets._replace(losses=losses, null_error=error, floor=error * 2.5)
    one = DeviceScan(masks, product=Product.FIXED_POINT).columns(heavy, ASKED)
    other = DeviceScan(masks, product=Product.FLOAT32).columns(heavy, ASKED)
    np.testing.assert_array_equal(one.ranked, other.ranked)


def test_more_candidates_than_expected_are_all_listed():
    masks, targets = problem()
    every = targets._replace(floor=np.zeros(len(targets.self_index)))
    for make in (HostScan, SCANS['float32'][0]):
        scan = make(masks)
        if isinstance(scan, DeviceScan):
            scan._capacity = 8
        assert len(scan.columns(every, ASKED).candidate_targets) == masks.shape[1] * 70


def test_a_constant_target_has_a_column_of_zeros():
    masks, targets = problem()
    losses = targets.losses.copy()
    losses[:, 9] = 0
    error = targets.null_error.copy()
    error[9] = 0
    nothing = targets._replace(
        losses=losses, null_error=error, floor=2.5 * error, fixed_values=targets.fixed_values * 0
    )
    for make, _ in SCANS.values():
        found = make(masks).columns(nothing, ASKED)
        np.testing.assert_array_equal(found.ranked[9], 0)
        np.testing.assert_array_equal(found.moments[9], 0)
        assert 9 not in found.candidate_targets


def test_the_fastest_product_is_one_of_them():
    assert fastest(problem()[0]) in Product


def test_functions_are_compiled_where_there_is_no_place_to_keep_them(monkeypatch):
    kept = host.numba.njit

    def njit(*function, cache=False, **options):
        if cache:
            raise RuntimeError('cannot cache function: no locator available')
        return kept(*function, **options)

    monkeypatch.setattr(host.numba, 'njit', njit)
    assert host._compiled()(lambda x: x + 1)(1) == 2
