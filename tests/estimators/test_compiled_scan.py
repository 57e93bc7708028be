"""The scan in C++ beside that of numpy: sizes that fill nothing, losses of every kind."""

import numpy as np
import pytest

from influence_jax import kernels
from influence_jax.estimators.scan import (
    SummaryRequest,
    Targets,
    host,
    read_columns,
    scan_for,
)
from influence_jax.estimators.scan.compiled import CompiledScan
from influence_jax.estimators.scan.host import HostScan
from influence_jax.estimators.uncertainty import SURE
from influence_jax.kernels import library
from tests.kernels import variants

KINDS = ('normal', 'heavy', 'two values', 'far out')


@pytest.fixture(autouse=True, params=variants.OF_SUMS.values(), ids=variants.OF_SUMS)
def kind_of_cpu(request, monkeypatch):
    if library.loaded('columns.cc') is not None:
        variants.use(request.param, monkeypatch)


def problem(members, examples, targets, kind):
    generator = np.random.default_rng(members)
    while True:
        masks = generator.random((members, examples)) < 0.5
        if (np.abs(masks.sum(axis=0) - members / 2) < members / 2 - 1).all():
            break
    losses = {
        'normal': lambda shape: generator.normal(size=shape),
        'heavy': lambda shape: np.exp(2 * generator.normal(size=shape)),
        'two values': lambda shape: (generator.random(shape) < 0.3).astype(float),
        'far out': lambda shape: np.eye(*shape) + 1e-4 * generator.normal(size=shape),
    }[kind]((members, targets))
    losses -= losses.mean(axis=0)
    losses = (losses / np.maximum(np.abs(losses).max(axis=0), 1e-9)).astype(np.float32)
    losses[:, 0] = 0
    error = (2 * losses.std(axis=0) / np.sqrt(members)).astype(np.float32)
    own = np.arange(targets) % examples
    own[-1] = -1
    fixed = np.stack([own, np.full(targets, -1)], axis=1)
    values = np.stack([2 * error, error], axis=1)
    return masks, Targets(losses, error, own, 2 * error, fixed, values)


def compiled(masks):
    scan = CompiledScan.of(masks)
    if scan is None:
        pytest.skip('no C++ compiler, or no AVX-512')
    return scan


@pytest.mark.parametrize('kind', KINDS)
def test_sums_by_lookup_and_by_tiles_are_the_same(kind, monkeypatch):
    masks, of = problem(301, 400, 20, kind)
    compiled(masks)
    answers = []
    for options in variants.OF_SUMS.values():
        with monkeypatch.context() as patched:
            variants.use(options, patched)
            scan = compiled(masks)
        found = scan.columns(of, SummaryRequest(9, (0, 17, 399)))
        answers.append([*found, scan.candidate_regressors(of.losses, of.self_index, 7)])
    for by_lookup, by_tiles in zip(*answers, strict=True):
        np.testing.assert_array_equal(by_lookup, by_tiles)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    ('members', 'examples', 'targets'),
    [(9, 4, 2), (31, 128, 33), (60, 129, 7), (301, 400, 20), (1100, 260, 9)],
)
def test_answers_are_those_of_numpy(members, examples, targets, kind):
    masks, of = problem(members, examples, targets, kind)
    scan, host = compiled(masks), HostScan(masks)
    strongest = min(16, examples)
    ranks = tuple(sorted({0, 1, examples // 2, examples - 2, examples - 1}))
    mine, theirs = (one.columns(of, SummaryRequest(strongest, ranks)) for one in (scan, host))
    unit = np.where(of.null_error > 0, of.null_error, 1)[:, None]
    np.testing.assert_allclose(mine.ranked / unit, theirs.ranked / unit, atol=1e-4)
    np.testing.assert_allclose(mine.moments, theirs.moments, rtol=1e-3, atol=1e-3)
    assert mine.histogram.sum() == theirs.histogram.sum() == examples * targets - (targets - 1)
    assert np.abs(np.cumsum(mine.histogram - theirs.histogram)).max() <= 0.02 * examples * targets
    column = host._differences(host._sums(of.losses, 2), of.losses.sum(axis=0), 2)
    column[np.arange(targets - 1), of.self_index[:-1]] = of.fixed_values[:-1, 0]
    ascending = np.sort(column, axis=1)
    for found, expected in (
        (mine.top, ascending[:, ::-1][:, :strongest]),
        (mine.bottom, ascending[:, :strongest]),
    ):
        assert all(len(set(row)) == strongest for row in found.tolist())
        values = np.take_along_axis(column, found, axis=1)
        np.testing.assert_allclose(values / unit, expected / unit, atol=1e-4)
    listed = set(zip(mine.candidate_targets, mine.candidate_examples, strict=True))
    assert len(listed) == len(mine.candidate_targets)
    surely, perhaps = (np.abs(column) > of.floor[:, None] + s * 1e-4 * unit for s in (1, -1))
    assert {tuple(place) for place in np.argwhere(surely)} <= listed
    assert listed <= {tuple(place) for place in np.argwhere(perhaps)}


@pytest.mark.parametrize('kind', KINDS)
def test_regressors_are_the_strongest_but_for_rounding(kind):
    masks, of = problem(301, 400, 20, kind)
    scan, host = compiled(masks), HostScan(masks)
    found = scan.candidate_regressors(of.losses, of.self_index, 6)
    for part in range(3):
        total = of.losses[[slice(0, None, 2), slice(1, None, 2), slice(None)][part]].sum(axis=0)
        sums = host._sums(of.losses, part)
        scores = host._differences(sums, total, part, as_t_statistics=True)
        scores[np.arange(19), of.self_index[:-1]] = np.inf
        mine = np.take_along_axis(scores, found[part], axis=1)
        theirs = np.sort(scores, axis=1)[:, ::-1][:, :6]
        # In standard errors: a t statistic is that times the losses' deviation.
        error = 0.01 * np.sqrt((of.losses**2).mean(axis=0))[:, None] * np.sqrt(len(masks))
        known = np.isfinite(theirs)
        np.testing.assert_array_equal(np.isfinite(mine), known)
        mine, theirs = (np.where(known, values, 0) for values in (mine, theirs))
        assert (np.abs(mine - theirs) <= error + 1e-6).all()


@pytest.mark.parametrize('kind', KINDS)
def test_single_entries_and_p_values_are_those_of_numpy(kind):
    masks, of = problem(301, 400, 20, kind)
    scan, host = compiled(masks), HostScan(masks)
    generator = np.random.default_rng(0)
    targets, examples = generator.integers(0, 20, 500), generator.integers(0, 400, 500)
    mine, theirs = (
        one.single.entries_of(of.losses, one.single.moments_of_all(of.losses))(targets, examples)
        for one in (scan, host)
    )
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)
    taken = np.where(generator.random(500) < 0.5, 0.1, 0).astype(np.float32)
    mine, theirs = (
        one.single.randomization_p_values(of.losses, targets, examples, taken, sure=SURE)
        for one in (scan, host)
    )
    np.testing.assert_allclose(mine, theirs, rtol=1e-4)
    none = np.empty(0, int)
    assert not scan.single.randomization_p_values(of.losses, none, none, taken[:0], sure=SURE).size
    assert not scan.single.entries_of(of.losses, scan.single.moments_of_all(of.losses))(none, none)[
        0
    ].size


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('members', [9, 31, 60, 301])
def test_moments_by_groups_are_those_of_numpy(members, kind):
    masks, of = problem(members, 40, 33, kind)
    mine, theirs = (
        one.single.moments(of.losses, of.self_index) for one in (compiled(masks), HostScan(masks))
    )
    np.testing.assert_array_equal(mine.count, theirs.count)
    for name in ('mean', 'second', 'third', 'fourth'):
        one, other = getattr(mine, name), getattr(theirs, name)
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(('examples', 'targets'), [(4, 2), (128, 33), (401, 20), (3000, 17)])
def test_columns_that_are_there_are_read_as_numpy_reads_them(examples, targets, kind):
    compiled(np.eye(9, dtype=bool))
    masks, of = problem(60, examples, targets, kind)
    scan = HostScan(masks)
    values = scan._differences(scan._sums(of.losses, 2), of.losses.sum(axis=0), 2)
    given = {
        'unit': of.null_error,
        'floor': of.floor[:, None] * np.linspace(0.8, 1.2, examples),
        'self_index': of.self_index,
        'request': SummaryRequest(min(7, examples), (0, examples // 2, examples - 1)),
        'counted': np.arange(targets) % 3 > 0,
    }
    # A block of a larger matrix, too.
    wide = np.full((examples, 2 * targets), np.nan, np.float32)
    wide[:, targets:] = values.T
    for form in (np.ascontiguousarray(values.T).T, wide[:, targets:].T):
        mine, theirs = (read(form, **given) for read in (read_columns, host.read_columns))
        for name in ('top', 'bottom', 'ranked', 'histogram'):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
        np.testing.assert_allclose(mine.moments, theirs.moments, rtol=1e-5, atol=1e-6)
        listed, expected = (
            sorted(zip(one.candidate_targets, one.candidate_examples, strict=True))
            for one in (mine, theirs)
        )
        assert listed == expected
    as_numpy = read_columns(values.astype(np.float64), **given)
    np.testing.assert_array_equal(as_numpy.top, theirs.top)


def test_positions_of_any_integer_type_are_taken_and_no_other_array_by_mistake():
    masks, of = problem(60, 40, 3, 'normal')
    scan = compiled(masks)
    examples = np.array([[1, 2], [3, 4], [39, 0]])
    expected = HostScan(masks).single.differences(of.losses, examples, 1)
    for dtype in (np.int8, np.int32, np.int64):
        found = scan.single.differences(of.losses, examples.astype(dtype), 1)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    places = np.zeros(1, np.int64)
    with pytest.raises(TypeError, match='int64'):
        scan._packed.sums(of.losses, places, places.astype(np.int32), np.empty((1, 2)))
    one = scan.single.randomization_p_values(of.losses, places + 1, places, np.zeros(1), sure=0)
    assert 0 < one[0] <= 1


def test_of_equal_entries_the_lowest_examples_are_last_at_the_top():
    masks, of = problem(60, 40, 3, 'normal')
    found = compiled(masks).columns(of, SummaryRequest(40, (0, 39)))
    of_constant = np.setdiff1d(np.arange(40), [])
    np.testing.assert_array_equal(found.bottom[0], of_constant)
    np.testing.assert_array_equal(found.top[0], of_constant[::-1])
    assert found.histogram.sum() == 3 * 40 - 2


def test_it_is_used_unless_kernels_are_not():
    masks, _ = problem(60, 40, 3, 'normal')
    assert isinstance(scan_for(masks), type(compiled(masks)))
    kernels.use(False)
    try:
        assert isinstance(scan_for(masks), HostScan)
    finally:
        kernels.use(True)
