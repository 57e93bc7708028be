import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from influence_jax.estimators import check_both_sides, difference_in_means, ensemble, summarize
from influence_jax.estimators.tiling import standardized_tiles


def draw(members, examples, targets, *, seed=0):
    generator = np.random.default_rng(seed)
    masks = generator.random((members, examples)) < 0.5
    losses = 2 + generator.gamma(1.5, size=(members, targets)).astype(np.float32)
    return masks, losses


def assert_agrees(estimate, values, standard_error):
    """Far below what the standard error could tell apart."""
    assert np.all(np.abs(estimate.values - values) <= 1e-4 * standard_error)
    np.testing.assert_allclose(estimate.standard_error, standard_error, rtol=1e-4)


def test_equals_the_loops():
    masks, losses = draw(60, 9, 7)
    assert_agrees(difference_in_means(masks, losses), *reference.difference_in_means(masks, losses))


@pytest.mark.parametrize('offset', [0.0, 1e4, -1e4])
@pytest.mark.parametrize('scale', [1e-25, 1.0, 1e25])
def test_precision_does_not_depend_on_offset_or_scale(offset, scale):
    masks, losses = draw(1000, 4, 3)
    losses = scale * (losses.astype(np.float64) + offset)
    values, standard_error = reference.difference_in_means(masks, losses)
    assert_agrees(difference_in_means(masks, losses), values, standard_error)


def test_positive_where_including_the_example_lowers_the_loss():
    masks, losses = draw(400, 6, 5)
    losses[:, 2] -= 1.5 * masks[:, 4]
    losses[:, 3] += 0.8 * masks[:, 0]
    estimate = difference_in_means(masks, losses)
    error = 4 * estimate.standard_error
    assert abs(estimate.values[4, 2] - 1.5) < error[4, 2]
    assert abs(estimate.values[0, 3] + 0.8) < error[0, 3]
    assert estimate.values[4, 2] == estimate.values[:, 2].max()
    assert estimate.values[0, 3] == estimate.values[:, 3].min()


def test_constant_losses_have_no_influence_and_no_error():
    masks, _ = draw(40, 5, 1)
    estimate = difference_in_means(masks, np.full((40, 3), 0.1, np.float32))
    np.testing.assert_array_equal(estimate.values, 0)
    np.testing.assert_array_equal(estimate.standard_error, 0)


def test_effect_without_noise_has_almost_no_error():
    masks, _ = draw(100, 5, 1)
    estimate = difference_in_means(masks, np.where(masks[:, [3]], 0.1, 2.1))
    assert estimate.values[3, 0] == pytest.approx(2, rel=1e-5)
    assert estimate.standard_error[3, 0] < 1e-3


def test_permuting_examples_permutes_influence():
    masks, losses = draw(50, 12, 4)
    order = np.random.default_rng(1).permutation(12)
    straight, permuted = (difference_in_means(m, losses) for m in (masks, masks[:, order]))
    np.testing.assert_allclose(permuted.values, straight.values[order], atol=1e-6)
    np.testing.assert_allclose(permuted.standard_error, straight.standard_error[order], rtol=1e-5)


def test_swapping_in_and_out_changes_the_sign():
    masks, losses = draw(50, 12, 4)
    straight, swapped = difference_in_means(masks, losses), difference_in_means(~masks, losses)
    np.testing.assert_allclose(swapped.values, -straight.values, atol=1e-6)
    np.testing.assert_allclose(swapped.standard_error, straight.standard_error, rtol=1e-5)


@pytest.mark.parametrize('noise', ['standard_normal', 'standard_exponential'])
def test_intervals_cover_on_null_data(noise):
    generator = np.random.default_rng(3)
    masks = generator.random((200, 300)) < 0.5
    losses = getattr(generator, noise)((200, 100))
    estimate = difference_in_means(masks, losses)
    covered = np.mean(np.abs(estimate.values) < 1.96 * estimate.standard_error)
    assert 0.94 < covered < 0.96


def test_converges_to_the_mean_over_every_subset():
    generator = np.random.default_rng(5)
    features, labels = generator.normal(size=(8, 3)), generator.normal(size=8)
    masks = reference.all_subsets(8)
    assert masks.shape == (256, 8)
    assert len(np.unique(masks, axis=0)) == 256
    losses = reference.ridge_losses(masks, features, labels, penalty=0.5)
    exact, _ = reference.difference_in_means(masks, losses)

    whole = difference_in_means(masks, losses)
    assert np.all(np.abs(whole.values - exact) <= 1e-4 * whole.standard_error)

    largest_errors = []
    for members in (200, 20_000):
        drawn = generator.integers(256, size=members)
        sample = difference_in_means(masks[drawn], losses[drawn])
        assert np.all(np.abs(sample.values - exact) < 4.5 * sample.standard_error)
        largest_errors.append(np.abs(sample.values - exact).max())
    assert largest_errors[1] < largest_errors[0] / 4  # ten times smaller is expected


@pytest.mark.parametrize('tile', [1, 3, 5, 11, 64])
def test_tiles_equal_the_whole(tile):
    masks, losses = draw(40, 8, 11)
    whole = difference_in_means(masks, losses)
    seen = []
    for columns, part in difference_in_means.tiles(masks, losses, tile=tile):
        seen += range(columns.start, columns.stop)
        assert part.values.shape == part.standard_error.shape == (8, columns.stop - columns.start)
        np.testing.assert_allclose(part.values, whole.values[:, columns], atol=1e-6)
        np.testing.assert_allclose(part.standard_error, whole.standard_error[:, columns], rtol=1e-5)
    assert seen == list(range(11))


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
def test_missing_and_diverged_members_are_left_out(bad):
    masks, losses = draw(40, 8, 6)
    kept = np.delete(np.arange(40), [0, 17])
    losses[0] = bad
    losses[17, 5] = bad  # one target is enough: what a broken model says of others is no use
    left_out = difference_in_means(masks, losses)
    removed = difference_in_means(masks[kept], losses[kept])
    np.testing.assert_array_equal(left_out.values, removed.values)
    np.testing.assert_array_equal(left_out.standard_error, removed.standard_error)


def bad_inputs():
    masks, losses = draw(40, 8, 6)
    never, always_but_once = masks.copy(), masks.copy()
    never[:, [2, 5]] = False
    always_but_once[:, 7] = np.arange(40) > 0
    holed = losses.copy()
    holed[:, 3] = np.nan
    yield 'masks not bool', masks.astype(int), losses, 'masks must be bool'
    yield 'masks a vector', masks[0], losses, r'masks must be bool .* \[8\]'
    yield 'losses integer', masks, losses.astype(int), 'losses must be floating'
    yield 'losses a vector', masks, losses[:, 0], r'losses must be floating .* \[40\]'
    yield 'other members', masks[1:], losses, '39 members and losses 40'
    yield 'no members', masks[:0], losses[:0], 'no members'
    yield 'no targets', masks, losses[:, :0], 'no members, examples or targets'
    yield 'all missing', masks, losses * np.nan, 'none of the 40 members'
    yield 'never in', never, losses, r'2 of 8 examples \(2, 5\) .*fewer than 2 of the 40'
    yield 'one target missing', masks, holed, r'the 1 targets that never are \(3\)'
    yield 'out only once', always_but_once, losses, r'1 of 8 examples \(7\)'
    yield 'too few members', masks[:3], losses[:3], '3 members are too few'


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ('masks', 'losses', 'message'), [pytest.param(*b[1:], id=b[0]) for b in bad_inputs()]
)
def test_bad_input_is_refused_in_one_line(masks, losses, message):
    for estimate in (
        difference_in_means,
        difference_in_means.tiles,
    ):  # at the call, before anything is iterated
        with pytest.raises(ValueError, match=message) as refused:
            estimate(masks, losses)
        assert '\n' not in str(refused.value)


def test_examples_that_a_design_leaves_without_an_error_name_the_cure():
    masks = np.ones((12, 5), bool)
    masks[:6, 1:] = False
    with pytest.raises(ValueError, match=r'1 of 5 examples \(0\).*balanced design.*more members'):
        check_both_sides(masks)
    check_both_sides(masks[:, 1:])


def test_tile_below_one_is_refused():
    with pytest.raises(ValueError, match='tile=0 must be at least 1'):
        difference_in_means.tiles(*draw(40, 8, 6), tile=0)


def test_arguments_are_left_unchanged():
    masks, losses = draw(40, 8, 6)
    before = masks.copy(), losses.copy()
    difference_in_means(masks, losses)
    np.testing.assert_array_equal(masks, before[0])
    np.testing.assert_array_equal(losses, before[1])


@pytest.mark.parametrize('dtype', [np.float32, np.float64])
@given(value=st.floats(-1e30, 1e30), members=st.integers(8, 600), ulps=st.integers(0, 1))
def test_rounding_of_a_constant_column_is_nothing(dtype, value, members, ulps):
    """Of float64 the mean need not be the value, and what is left was scaled up to 1."""
    losses = np.full((members, 2), value, dtype)
    if dtype is np.float64:
        losses[::3] += ulps * np.spacing(losses[::3])  # as averages of repeats are
    ((_, centered, scale),) = standardized_tiles(losses, tile=2)
    assert not centered.any() and not scale.any()


def test_a_constant_target_is_never_significant():
    masks, losses = draw(40, 7, 7)
    losses = losses.astype(np.float64)
    losses[:, 3] = 0.1
    summary = summarize(masks, losses)
    assert summary.self_influence[3] == summary.self_standard_error[3] == 0
    assert 3 not in summary.pairs.targets


@pytest.mark.parametrize('filled', [False, True])
def test_rows_that_were_never_written_are_refused_by_number(filled):
    masks, losses = draw(40, 9, 7)
    masks[[5, 11]], losses[[5, 11]] = filled, 0
    with pytest.raises(ValueError, match=r'2 of 40 members \(5, 11\)'):
        difference_in_means(masks, losses)
    losses[[5, 11]] = np.nan  # as the message has it
    difference_in_means(masks, losses)
    losses[[5, 11]] = draw(2, 9, 7)[1]  # nothing, or everything, can be in a subset
    difference_in_means(masks, losses)


def test_losses_beyond_float32_count_as_infinite():
    masks, losses = draw(40, 9, 7)
    losses = losses.astype(np.float64)
    losses[3, 2] = 2.8e306
    expected = difference_in_means(np.delete(masks, 3, 0), np.delete(losses, 3, 0))
    np.testing.assert_array_equal(difference_in_means(masks, losses).values, expected.values)


def test_finite_members_are_found_in_pieces(monkeypatch):
    losses = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    losses[3, 4], losses[6, 0] = np.nan, 3e38
    monkeypatch.setattr(ensemble, '_AT_ONCE', 10)
    assert np.flatnonzero(~ensemble.finite_rows(losses)).tolist() == [3, 6]
