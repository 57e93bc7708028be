"""Both scans, in every format of numbers: equal to the loops."""

import jax.numpy as jnp
import numpy as np
import pytest
import reference

from influence_jax.estimators.scan import EDGES, SummaryRequest, Targets, device, host
from influence_jax.estimators.scan.compiled import CompiledScan
from influence_jax.estimators.scan.device import DeviceScan
from influence_jax.estimators.scan.host import HostScan
from influence_jax.estimators.uncertainty import SURE, randomization_p_values

ASKED = SummaryRequest(strongest=5, ranks=(0, 3, 40, 79, 119))

SCANS = {
    'compiled': CompiledScan.of,
    'host': HostScan,
    'float32': lambda masks: DeviceScan(masks, dtype=jnp.float32),
    'bfloat16': lambda masks: DeviceScan(masks, dtype=jnp.bfloat16),
}
TOLERANCE = 1e-5  # how far from the exact value, in standard errors of an entry, one may be


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
    masks, targets = problem()
    scan = SCANS[request.param](masks)
    if scan is None:
        pytest.skip('no C++ compiler, or no AVX-512')
    exact, errors = reference.difference_in_means(masks, targets.losses.astype(np.float64))
    matrix = exact.copy()
    rows = np.arange(len(targets.self_index))
    matrix[targets.fixed_examples[:, 0], rows] = targets.fixed_values[:, 0]
    return scan, masks, targets, matrix, exact, errors


def test_columns_are_those_of_the_loops(scanned):
    scan, _, targets, matrix, _, _ = scanned
    found = scan.columns(targets, ASKED)
    unit = targets.null_error
    close = {'atol': TOLERANCE * unit.max()}
    ascending = np.sort(matrix, axis=0)
    rows = np.arange(len(unit))[:, None]
    np.testing.assert_allclose(found.ranked, ascending[list(ASKED.ranks)].T, **close)
    np.testing.assert_allclose(matrix[found.top, rows], ascending[:-6:-1].T, **close)
    np.testing.assert_allclose(matrix[found.bottom, rows], ascending[:5].T, **close)
    z = matrix / unit
    powers = np.stack([(z**p).mean(axis=0) for p in (1, 2, 3, 4)], axis=1)
    np.testing.assert_allclose(found.moments, powers, rtol=30 * TOLERANCE, atol=30 * TOLERANCE)


def test_candidates_are_all_beyond_the_floor(scanned):
    scan, _, targets, matrix, _, _ = scanned
    found = scan.columns(targets, ASKED)
    places = np.stack([found.candidate_targets, found.candidate_examples], axis=1)
    listed = set(map(tuple, places.tolist()))
    assert len(listed) == len(found.candidate_targets)
    surely, perhaps = (np.abs(matrix) > targets.floor * (1 + s * TOLERANCE) for s in (1, -1))
    assert set(map(tuple, np.argwhere(surely.T).tolist())) <= listed
    assert listed <= set(map(tuple, np.argwhere(perhaps.T).tolist()))
    assert (4, 54) not in listed or abs(matrix[54, 4]) > targets.floor[4]


def test_histogram_counts_all_but_own_entries(scanned):
    scan, _, targets, matrix, _, _ = scanned
    found = scan.columns(targets, ASKED)
    z = reference.off_diagonal(matrix / targets.null_error, targets.self_index)
    counts, _ = np.histogram(z.clip(EDGES[0], EDGES[-1]), EDGES)
    assert found.histogram.sum() == len(z)
    moved = np.abs(np.cumsum(found.histogram - counts)).max()
    assert moved <= 2


def test_entries_are_those_of_the_loops(scanned):
    scan, masks, targets, _, exact, errors = scanned
    generator = np.random.default_rng(1)
    of = generator.integers(0, len(targets.self_index), 500)
    examples = generator.integers(0, masks.shape[1], 500)
    values, standard_errors = scan.single.entries_of(
        targets.losses, scan.single.moments_of_all(targets.losses)
    )(of, examples)
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


def test_differences_by_halves_and_p_values_are_those_of_the_masks(scanned):
    scan, masks, targets, *_ = scanned
    generator = np.random.default_rng(2)
    examples = generator.integers(0, masks.shape[1], (masks.shape[1] - 50, 3))
    for half in (0, 1):
        kept, losses = masks[half::2], targets.losses[half::2].astype(np.float64)
        values, _ = reference.difference_in_means(kept, losses)
        found = scan.single.differences(targets.losses, examples, half)
        expected = np.take_along_axis(values.T, examples, axis=1)
        np.testing.assert_allclose(found, expected, atol=1e-5)
    of, rows = generator.integers(0, 70, 300), generator.integers(0, masks.shape[1], 300)
    taken = generator.normal(size=300).astype(np.float32) * (generator.random(300) < 0.5)
    losses = targets.losses[:, of].T - taken[:, None] * masks[:, rows].T
    expected = randomization_p_values(masks[:, rows].T, losses)
    found = scan.single.randomization_p_values(targets.losses, of, rows, taken, sure=SURE)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    # A bound will do where it is small enough.
    bounds = scan.single.randomization_p_values(targets.losses, of, rows, taken, sure=0.1)
    assert (bounds >= expected * (1 - 1e-4)).all()
    assert ((bounds <= 0.1) | (bounds <= expected * (1 + 1e-4))).all()


@pytest.mark.slow
def test_more_candidates_than_expected_are_all_listed():
    masks, targets = problem()
    every = targets._replace(floor=np.zeros(len(targets.self_index)))
    for scan in filter(None, (make(masks) for make in SCANS.values())):
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
    for scan in filter(None, (make(masks) for make in SCANS.values())):
        found = scan.columns(nothing, ASKED)
        np.testing.assert_array_equal(found.ranked[9], 0)
        np.testing.assert_array_equal(found.moments[9], 0)
        assert 9 not in found.candidate_targets


def test_large_blocks_are_read_in_pieces(monkeypatch):
    masks, targets = problem()
    whole = HostScan(masks)
    found = whole.columns(targets, ASKED)
    regressors = whole.candidate_regressors(targets.losses, targets.self_index, 4)
    monkeypatch.setattr(host, '_IN_CACHE', 3 * masks.shape[1])
    for one, other in zip(HostScan(masks).columns(targets, ASKED), found, strict=True):
        np.testing.assert_array_equal(one, other)
    in_pieces = HostScan(masks).candidate_regressors(targets.losses, targets.self_index, 4)
    np.testing.assert_array_equal(in_pieces, regressors)


def test_equal_entries_are_in_the_order_of_examples():
    values = np.array([[0, 2, 2, 1, 2, 0, 1, 0]], np.float32)
    found = host.read_columns(
        values,
        unit=np.ones(1),
        floor=np.full((1, 1), 1.5),
        self_index=np.array([-1]),
        request=SummaryRequest(3, (0, 4)),
    )
    np.testing.assert_array_equal(found.bottom, [[0, 5, 7]])
    np.testing.assert_array_equal(found.top, [[4, 2, 1]])
    np.testing.assert_array_equal(found.candidate_examples, [1, 2, 4])
    np.testing.assert_array_equal(found.ranked, [[0, 1]])


def test_two_parts_are_the_first_two_of_three(scanned):
    scan, _, targets, *_ = scanned
    three = scan.candidate_regressors(targets.losses, targets.self_index, 4)
    two = scan.candidate_regressors(targets.losses, targets.self_index, 4, parts=2)
    np.testing.assert_array_equal(two, three[:2])


def ties(rows=5, examples=150):
    """Entries of which many are equal, of both signs, and far apart."""
    generator = np.random.default_rng(3)
    some = np.array([-1e30, -2.5, -1e-30, 0, 1e-38, 0.5, 3, 1e30])
    return generator.choice(some, (rows, examples)).astype(np.float32)


def test_entries_of_a_rank_are_those_of_the_sorted_row():
    values, ranks = ties(), (0, 1, 17, 18, 75, 149)
    expected = np.sort(values, axis=1)[:, ranks]
    keys = jnp.asarray(values.view(np.uint32))
    order = np.sort(np.asarray(keys), axis=1)[:, ranks]
    np.testing.assert_array_equal(device._ranked(jnp.asarray(values), ranks), expected)
    for ranked in (device._ranked_by_digits, device._ranked_by_halving):
        np.testing.assert_array_equal(ranked(keys, ranks=ranks), order)


@pytest.mark.parametrize('count', [1, 4, 140])
def test_of_equal_entries_the_largest_are_the_first_or_the_last(count):
    values = ties()
    first = np.argsort(-values, axis=1, kind='stable')[:, :count]
    last = np.argsort(values, axis=1, kind='stable')[:, ::-1][:, :count]
    np.testing.assert_array_equal(device._largest(jnp.asarray(values), count), first)
    found = device._largest(jnp.asarray(values), count, last_first=True)
    np.testing.assert_array_equal(found, last)


def test_bins_by_products_are_those_by_scattering():
    bins = np.random.default_rng(4).integers(0, len(EDGES) - 1, (3, 400)).astype(np.int32)
    expected = [np.bincount(row, minlength=len(EDGES) - 1) for row in bins]
    for count in (device._bins_by_scattering, device._bins_by_products):
        np.testing.assert_array_equal(count(jnp.asarray(bins)), expected)
