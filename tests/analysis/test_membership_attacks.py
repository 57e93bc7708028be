import math
from functools import partial

import numpy as np
import pytest
import reference

from influence_jax.analysis import membership
from influence_jax.analysis.membership import Setting, Variance

M, T = 16, 14


def tensors(seed=0, members=M, targets=T):
    """Masks, losses that are lower where the target is included; some members much worse."""
    rng = np.random.default_rng(seed)
    masks = rng.permuted(np.arange(members)[:, None].repeat(targets, 1) % 2 == 0, axis=0)
    losses = rng.gamma(2.0, 0.4, size=masks.shape) * np.where(masks, 0.5, 1.5)
    return masks, losses


def every_score(score, shape):
    return np.array([[score(m, t) for t in range(shape[1])] for m in range(shape[0])])


@pytest.mark.parametrize('setting', Setting)
@pytest.mark.parametrize('variance', Variance)
def test_lira_equals_the_loops(setting, variance):
    masks, losses = tensors()
    gaps = membership.logit_gaps(losses)
    attack = membership.lira(masks, gaps, setting=setting, variance=variance)
    expected = every_score(
        lambda m, t: reference.lira_score(
            masks,
            gaps,
            np.arange(T),
            m,
            t,
            online=setting is Setting.ONLINE,
            one_variance=variance is Variance.GLOBAL,
        ),
        masks.shape,
    )
    np.testing.assert_allclose(attack.scores, expected, rtol=2e-6, atol=1e-6)
    np.testing.assert_array_equal(attack.included, masks)
    np.testing.assert_array_equal(attack.targets, np.arange(T))


@pytest.mark.parametrize('gamma', [0.5, 1.0, 2.0])
def test_rmia_equals_the_loops(gamma):
    masks, losses = tensors()
    attack = membership.rmia(masks, losses, gamma=gamma)
    expected = every_score(
        lambda m, t: reference.rmia_score(masks, losses, np.arange(T), m, t, gamma=gamma),
        masks.shape,
    )
    np.testing.assert_allclose(attack.scores, expected, rtol=1e-6)
    assert len(np.unique(attack.scores)) > 4


def test_rmia_survives_losses_whose_probability_underflows():
    masks, losses = tensors()
    losses[:, 3] += 1500
    np.testing.assert_array_equal(
        membership.rmia(masks, losses).scores, membership.rmia(*tensors()).scores
    )


@pytest.mark.parametrize(
    'attack', [membership.rmia, *(partial(membership.lira, variance=v) for v in Variance)]
)
def test_a_score_does_not_know_what_the_attacked_member_was_trained_on(attack):
    """It must not: else an attack on noise would succeed."""
    masks, losses = tensors()
    before = attack(masks, losses)
    masks[5, 0] ^= True
    after = attack(masks, losses)
    assert after.included[5, 0] != before.included[5, 0]
    np.testing.assert_allclose(after.scores[5, 0], before.scores[5, 0], rtol=1e-6)
    others = np.arange(M) != 5
    assert np.any(after.scores[others, 0] != before.scores[others, 0])


def test_an_attack_on_noise_has_equal_rates():
    rng = np.random.default_rng(0)
    masks = rng.random((100, 400)) < 0.5
    losses = rng.gamma(2.0, 0.4, size=masks.shape)
    gaps = membership.logit_gaps(losses)
    for attack in (
        *(membership.lira(masks, gaps, setting=s, variance=v) for s in Setting for v in Variance),
        membership.rmia(masks, losses),
    ):
        curve = membership.roc(attack.scores, attack.included)
        rates = np.array([0.001, 0.01, 0.1, 0.5])
        count = len(curve.left_out)
        error = np.sqrt(2 * rates * (1 - rates) / count)
        assert np.all(np.abs(membership.true_positive_rates(curve, rates) - rates) < 4 * error)
        assert abs(membership.area(curve) - 0.5) < 4 / math.sqrt(6 * count)


def test_online_lira_comes_near_the_best_test_there_is():
    """Normal logits, known means and spreads: the likelihood ratio itself cannot be beaten."""
    rng = np.random.default_rng(0)
    masks = rng.random((400, 300)) < 0.5
    shift = rng.uniform(0, 4, size=(1, 300))
    spread = np.where(masks, 0.7, 1.3)
    hardness = rng.normal(scale=3, size=(1, 300))
    gaps = hardness + shift * masks + spread * rng.normal(size=masks.shape)

    def log_density(center, deviation):
        return -np.log(deviation) - ((gaps - center) / deviation) ** 2 / 2

    best = log_density(hardness + shift, 0.7) - log_density(hardness, 1.3)
    rates = np.array([0.001, 0.01, 0.1])

    def achieved(scores):
        return membership.true_positive_rates(membership.roc(scores, masks), rates)

    online = achieved(membership.lira(masks, gaps).scores)
    offline = achieved(membership.lira(masks, gaps, setting=Setting.OFFLINE).scores)
    np.testing.assert_allclose(online, achieved(best), rtol=0.06)
    assert np.all(offline < online)
    assert np.all(achieved(gaps) < offline)  # one threshold for all records, no shadow models


def test_variance_is_global_below_64_shadow_models():
    for members, expected in ((64, Variance.GLOBAL), (65, Variance.PER_RECORD)):
        masks, losses = tensors(members=members)
        chosen = membership.lira(masks, losses).scores
        np.testing.assert_array_equal(
            chosen, membership.lira(masks, losses, variance=expected).scores
        )


def test_permuting_members_or_targets_permutes_scores():
    masks, losses = tensors()
    rng = np.random.default_rng(3)
    rows, columns = rng.permutation(M), rng.permutation(T)
    moved = np.ix_(rows, columns)
    for attack in (membership.lira, membership.rmia):
        np.testing.assert_allclose(
            attack(masks[moved], losses[moved]).scores,
            attack(masks, losses).scores[moved],
            rtol=1e-5,
        )


@pytest.mark.parametrize('attack', [membership.lira, membership.rmia])
def test_targets_that_are_no_examples_have_no_membership(attack):
    masks, losses = tensors()
    strangers = np.random.default_rng(5).gamma(2.0, size=(M, 2))
    wider = np.concatenate([strangers[:, :1], losses[:, ::-1], strangers[:, 1:]], axis=1)
    own = np.array([-1, *range(T - 1, -1, -1), -1])
    found = attack(masks, wider, target_examples=own)
    np.testing.assert_array_equal(found.targets, np.arange(1, T + 1))
    np.testing.assert_array_equal(found.included, masks[:, ::-1])
    np.testing.assert_allclose(found.scores, attack(masks, losses).scores[:, ::-1], rtol=1e-5)


@pytest.mark.parametrize('attack', [membership.lira, membership.rmia])
def test_missing_members_are_neither_attacked_nor_shadows(attack):
    masks, losses = tensors()
    gone = np.isin(np.arange(M), [2, 9])
    broken = losses.copy()
    broken[2, 1], broken[9] = np.inf, np.nan
    np.testing.assert_array_equal(
        attack(masks, broken).scores, attack(masks[~gone], losses[~gone]).scores
    )


def test_logit_gaps_of_losses():
    probability = np.array([[1e-12, 0.25, 0.5, 0.9, 1 - 1e-6]])
    gaps = membership.logit_gaps(-np.log(probability))
    np.testing.assert_allclose(gaps, np.log(probability) - np.log1p(-probability), rtol=1e-9)
    extremes = membership.logit_gaps(np.array([[0.0, 1e-30, 900.0, np.nan, np.inf]], np.float32))
    assert extremes.dtype == np.float32
    np.testing.assert_allclose(extremes, [[16.6355, 16.6355, -900, np.nan, -np.inf]], rtol=1e-5)
    with pytest.raises(ValueError, match=r'as low as -0\.5'):
        membership.logit_gaps(np.array([[0.1, -0.5, np.nan]]))


def test_constant_logits_give_finite_scores():
    masks, losses = tensors()
    losses[:, 2] = 0.0
    attack = membership.lira(masks, membership.logit_gaps(losses), variance=Variance.PER_RECORD)
    assert np.isfinite(attack.scores).all()
    np.testing.assert_array_equal(attack.scores[:, 2], 0)


@pytest.mark.parametrize('attack', [membership.lira, membership.rmia])
@pytest.mark.unchecked
def test_bad_input_is_refused(attack):
    masks, losses = tensors()
    with pytest.raises(ValueError, match='none of the targets is an example'):
        attack(masks, losses[:, :3])
    with pytest.raises(ValueError, match='masks must be bool'):
        attack(masks.astype(int), losses)
    always = masks.copy()
    always[:, 4] = True
    always[0, 4] = False
    with pytest.raises(ValueError, match=r'1 of 14 targets \(4\) are included in, or left out of'):
        attack(always, losses)


def test_bad_populations_are_refused():
    masks, losses = tensors()
    for gamma in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match='gamma'):
            membership.rmia(masks, losses, gamma=gamma)
    with pytest.raises(ValueError, match='1 target leaves RMIA no other'):
        membership.rmia(masks, losses[:, :1], target_examples=np.array([0]))


def repeated(rng, *, subsets, repeats, examples, effect=0.0, shared=0.0):
    """Masks, each of several members, whose logit gaps have a part that is shared by the mask."""
    masks = rng.random((subsets, examples)) < 0.5
    of_mask = shared * rng.normal(size=masks.shape)
    masks, of_mask = (np.repeat(part, repeats, axis=0) for part in (masks, of_mask))
    gaps = effect * masks + of_mask + rng.normal(size=masks.shape)
    order = rng.permutation(len(masks))
    return masks[order], gaps[order]


def losses_of(gaps):
    """-log p of these logit gaps: its inverse is `logit_gaps`."""
    return np.logaddexp(0, -gaps)


def area_of(attack):
    return membership.area(membership.roc(attack.scores, attack.included))


@pytest.mark.parametrize('variance', Variance)
def test_lira_of_repeated_subsets_equals_the_loops(variance):
    masks, gaps = repeated(np.random.default_rng(0), subsets=12, repeats=2, examples=24, effect=1.0)
    usable = np.minimum(masks.sum(axis=0), (~masks).sum(axis=0)) >= 6
    attack = membership.lira(
        masks, gaps[:, usable], variance=variance, target_examples=np.flatnonzero(usable)
    )
    own = np.flatnonzero(usable)
    expected = every_score(
        lambda m, t: reference.lira_score(
            masks, gaps[:, usable], own, m, t, online=True, one_variance=variance is Variance.GLOBAL
        ),
        (24, usable.sum()),
    )
    np.testing.assert_allclose(attack.scores, expected, rtol=1e-5, atol=1e-5)


def test_rmia_of_repeated_subsets_equals_the_loops():
    masks, gaps = repeated(np.random.default_rng(0), subsets=12, repeats=3, examples=24, effect=1.0)
    usable = np.minimum(masks.sum(axis=0), (~masks).sum(axis=0)) >= 6
    own, losses = np.flatnonzero(usable), losses_of(gaps[:, usable])
    attack = membership.rmia(masks, losses, target_examples=own)
    expected = every_score(
        lambda m, t: reference.rmia_score(masks, losses, own, m, t, gamma=2.0), losses.shape
    )
    np.testing.assert_allclose(attack.scores, expected, rtol=1e-6)


@pytest.mark.parametrize('repeats', [1, 2, 4])
def test_every_member_is_attacked_as_one_model(repeats):
    """Averaging the repeats first would make the attack look better than any model is at risk."""
    rng = np.random.default_rng(0)
    masks, gaps = repeated(rng, subsets=80, repeats=repeats, examples=150, effect=1.0)
    assert masks.shape == membership.lira(masks, gaps).scores.shape
    # The best attack tells N(1, 1) from N(0, 1) with AUROC 0.760.
    assert area_of(membership.lira(masks, gaps, variance=Variance.GLOBAL)) == pytest.approx(
        0.76, abs=0.012
    )
    assert area_of(membership.rmia(masks, losses_of(gaps))) < 0.77


def test_repeats_do_not_tell_each_others_membership():
    """What the members of one mask share, though inclusion has no effect."""
    areas = {'lira': [], 'offline': [], 'rmia': []}
    for seed in range(6):
        rng = np.random.default_rng(seed)
        masks, gaps = repeated(rng, subsets=40, repeats=2, examples=120, shared=3.0)
        areas['lira'].append(area_of(membership.lira(masks, gaps)))
        areas['offline'].append(area_of(membership.lira(masks, gaps, setting=Setting.OFFLINE)))
        areas['rmia'].append(area_of(membership.rmia(masks, losses_of(gaps))))
    for name, values in areas.items():
        assert np.mean(values) == pytest.approx(0.5, abs=0.012), name


def shuffled_design(rng, design, members, examples):
    """Masks that have nothing to do with any measurement."""
    included = np.arange(examples)[None] < examples // 2
    if design == 'exact size':
        return rng.permuted(included.repeat(members, 0), axis=1)
    if design == 'balanced':
        half = np.arange(members)[:, None] < members // 2
        return rng.permuted(half.repeat(examples, 1), axis=0)
    return rng.random((members, examples)) < 0.5


@pytest.mark.parametrize('design', ['independent', 'exact size', 'balanced'])
@pytest.mark.parametrize('examples', [6, 10, 40])
@pytest.mark.parametrize('gamma', [1.0, 2.0])
def test_the_population_of_rmia_does_not_tell_what_was_left_out(design, examples, gamma):
    rng = np.random.default_rng(examples)
    areas = []
    for _ in range(60):
        masks = shuffled_design(rng, design, 40, examples)
        losses = rng.gamma(2.0, 0.4, size=masks.shape)
        areas.append(area_of(membership.rmia(masks, losses, gamma=gamma)))
    assert abs(np.mean(areas) - 0.5) < 4 * np.std(areas) / math.sqrt(len(areas))
    assert np.std(areas) / math.sqrt(len(areas)) < 0.01


@pytest.mark.parametrize('keep', [0.1, 0.9])
def test_variance_is_global_where_one_side_is_small(keep):
    rng = np.random.default_rng(0)
    masks = rng.random((200, 30)) < keep
    gaps = masks + rng.normal(size=masks.shape)
    chosen = membership.lira(masks, gaps).scores
    np.testing.assert_array_equal(
        chosen, membership.lira(masks, gaps, variance=Variance.GLOBAL).scores
    )
    enough = rng.random((200, 30)) < 0.5
    np.testing.assert_array_equal(
        membership.lira(enough, gaps).scores,
        membership.lira(enough, gaps, variance=Variance.PER_RECORD).scores,
    )


def test_offline_lira_refuses_what_falls_with_inclusion():
    masks, losses = tensors(members=40)
    gaps = membership.logit_gaps(losses)
    with pytest.raises(ValueError, match='logit_gaps'):
        membership.lira(masks, losses, setting=Setting.OFFLINE)
    with pytest.raises(ValueError, match='inverted'):
        membership.lira(~masks, gaps, setting=Setting.OFFLINE)
    assert area_of(membership.lira(masks, gaps, setting=Setting.OFFLINE)) > 0.7


def test_rmia_refuses_what_cannot_be_a_loss():
    masks, losses = tensors(members=40)
    gaps = membership.logit_gaps(losses)
    with pytest.raises(ValueError, match=f'{gaps.min():g}'):
        membership.rmia(masks, gaps)
    with pytest.raises(ValueError, match='probability'):
        membership.rmia(masks, np.exp(-losses))
    with pytest.raises(ValueError, match='inverted'):
        membership.rmia(~masks, losses)
    correct = (np.exp(-losses) > 0.5).astype(np.float32)
    with pytest.raises(ValueError, match='correctness'):
        membership.rmia(masks, correct)


@pytest.mark.parametrize('design', ['independent', 'exact size', 'balanced'])
def test_noise_is_not_refused_for_its_direction(design):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        masks = shuffled_design(rng, design, 24, 12)
        levels = rng.normal(scale=3, size=(24, 1)) + 3 * rng.standard_t(2, size=masks.shape)
        assert np.isfinite(membership.lira(masks, levels, setting=Setting.OFFLINE).scores).all()
        assert np.isfinite(membership.rmia(masks, np.abs(levels)).scores).all()


def test_few_members_that_agree_by_chance_are_not_refused():
    for seed in range(400):
        rng = np.random.default_rng(seed)
        masks = shuffled_design(rng, 'balanced', 4, 2)
        values = rng.integers(2, size=masks.shape) / 3
        global_variance = partial(membership.lira, variance=Variance.GLOBAL)
        assert global_variance(masks, values, setting=Setting.OFFLINE).scores.shape == (4, 2)
        assert membership.rmia(masks, values).scores.shape == (4, 2)
