"""The task on texts: what it trains on, what it measures, and that padding costs nothing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from influence_jax import training
from influence_jax.models.gpt_neo import Attention, GPTNeoConfig, init, packed
from influence_jax.models.lora import LoRA
from influence_jax.tasks import language_modeling
from influence_jax.tasks.language_modeling import (
    AdapterModeling,
    LanguageModeling,
    TokenBatch,
    token_losses,
)
from tests.models.gpt_neo_cases import jit, logits

V, S, RECORDS = 37, 41, 9
KINDS = (Attention.GLOBAL, Attention.LOCAL)
CONFIG = GPTNeoConfig(V, hidden=16, layers=2, heads=2, max_positions=S, window=5, attention=KINDS)


def _far_from_initial(config):
    """Every part of the network counts."""
    fresh = jit(lambda: init(config, key=jax.random.key(0)))()
    leaves, structure = jax.tree.flatten(fresh)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    noisy = [
        leaf + 0.3 * jax.random.normal(k, leaf.shape) for leaf, k in zip(leaves, keys, strict=True)
    ]
    return jax.tree.unflatten(structure, noisy)


@pytest.fixture(scope='module')
def params():
    return _far_from_initial(CONFIG)


@pytest.fixture(scope='module')
def batch():
    rng = np.random.default_rng(0)
    lengths = np.array([2, S, 5, 40, 3, 33, 34, 7, S], np.int32)
    tokens = rng.integers(0, V, (RECORDS, S)).astype(np.int32)
    starts = np.array([0, 30, 2, 39, 1, 0, 33, 6, 1], np.int32)
    return TokenBatch(jnp.asarray(tokens), jnp.asarray(lengths), jnp.asarray(starts))


def token_by_token(params, batch):
    """-log p of every token of every record but its first, one record alone at a time."""
    each = []
    for tokens, length in zip(np.asarray(batch.tokens), np.asarray(batch.lengths), strict=True):
        text = tokens[:length]
        scores = np.asarray(logits(CONFIG, params, text[None, :-1])[0], np.float64)
        scores -= scores.max(1, keepdims=True)
        log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        each.append((-log_p[np.arange(length - 1), text[1:]], log_p.argmax(1) == text[1:]))
    return each


@functools.partial(jit, static_argnums=0)
def measured(task, params, batch):
    return task.measure(params, batch)


@functools.partial(jit, static_argnums=0)
def trained_loss(task, params, batch):
    return task.train_loss(params, batch, key=jax.random.key(0))


def test_measurements_are_those_of_each_record_alone(params, batch):
    found = measured(LanguageModeling(CONFIG), params, batch)
    assert set(found) == set(LanguageModeling(CONFIG).measurements)
    for record, (losses, right) in enumerate(token_by_token(params, batch)):
        start = max(int(batch.answer_starts[record]), 1)
        np.testing.assert_allclose(found['loss'][record], losses.mean(), rtol=1e-5)
        np.testing.assert_allclose(
            found['answer_loss'][record], losses[start - 1 :].mean(), rtol=1e-5
        )
        np.testing.assert_allclose(found['token_accuracy'][record], right.mean(), rtol=1e-6)


@pytest.mark.parametrize('capacity', [None, 'exactly', 'more', 10**6])
def test_training_loss_is_the_mean_over_a_records_tokens(params, batch, capacity):
    total = int((batch.lengths - 1).sum())
    capacity = {'exactly': total, 'more': total + 17}.get(capacity, capacity)
    losses = trained_loss(LanguageModeling(CONFIG, capacity), params, batch)
    expected = [each.mean() for each, _ in token_by_token(params, batch)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


def test_gradients_of_packed_and_padded_records_are_the_same(params, batch):
    def gradient(capacity):
        task = LanguageModeling(CONFIG, capacity)
        weights = jnp.arange(1.0, RECORDS + 1)

        def weighted(params):
            return (weights * task.train_loss(params, batch, key=jax.random.key(0))).sum()

        return jit(jax.grad(weighted))(params)

    packed, padded = gradient(int((batch.lengths - 1).sum())), gradient(None)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(padded))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6 * scale), packed, padded
    )


@pytest.mark.parametrize('capacity', [None, 400])
def test_padding_changes_nothing(params, batch, capacity):
    task = LanguageModeling(CONFIG, capacity)
    padding = jnp.arange(S)[None, :] >= batch.lengths[:, None]
    other = batch._replace(tokens=jnp.where(padding, (batch.tokens + 1) % V, batch.tokens))
    np.testing.assert_array_equal(
        trained_loss(task, params, batch), trained_loss(task, params, other)
    )
    jax.tree.map(
        np.testing.assert_array_equal, measured(task, params, batch), measured(task, params, other)
    )


def test_one_record_alone_sees_no_other(params, batch):
    """Blocks before the first one must not be those at the end."""
    alone = jax.tree.map(lambda leaf: leaf[1:2], batch)
    loss = trained_loss(LanguageModeling(CONFIG, 60), params, alone)
    np.testing.assert_allclose(loss[0], token_by_token(params, alone)[0][0].mean(), rtol=1e-5)


def test_a_batch_beyond_the_capacity_is_not_measured_wrongly(params, batch):
    total = int((batch.lengths - 1).sum())
    losses = trained_loss(LanguageModeling(CONFIG, total - 33), params, batch)
    assert np.isnan(losses).all()


@pytest.mark.parametrize('capacity', [None, 400])
def test_records_longer_than_the_positions_are_refused(params, batch, capacity):
    """S - 1 tokens are read; packed ones would all take the last position."""
    small = dataclasses.replace(CONFIG, max_positions=S - 2)
    with pytest.raises(ValueError, match=rf'{S - 1} tokens, but the network has max_positions=39'):
        jax.eval_shape(
            LanguageModeling(small, capacity).train_loss, params, batch, key=jax.random.key(0)
        )


def test_places_are_those_of_a_loop():
    counts = np.array([3, 0, 1, 4])
    at = packed.places(jnp.asarray(counts), 10)
    expected = [(row, column) for row in range(4) for column in range(counts[row])]
    assert [(int(r), int(c)) for r, c in zip(at.row[:8], at.column[:8], strict=True)] == expected
    np.testing.assert_array_equal(at.used, np.arange(10) < 8)
    values = jnp.arange(1.0, 11.0)
    np.testing.assert_allclose(packed.sums(values, at, 4), [6, 0, 4, 26])
    assert bool(packed.fits(jnp.asarray(counts), 8)) and not packed.fits(jnp.asarray(counts), 7)


@pytest.fixture(params=['cpu', 'gpu'])
def on_kind(request, monkeypatch):
    monkeypatch.setattr(jax, 'default_backend', lambda: request.param)


@pytest.mark.parametrize(
    ('kind', 'vocabulary', 'missing'),
    [('gpu', 50257, 47), ('gpu', 1000, 0), ('cpu', 50257, 0), ('tpu', 37, 91)],
)
def test_tables_are_filled_up_to_whole_tiles(kind, vocabulary, missing, monkeypatch):
    monkeypatch.setattr(jax, 'default_backend', lambda: kind)
    assert language_modeling._missing_rows(vocabulary) == missing


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_token_losses_and_their_gradients_are_optax(dtype, on_kind):
    rng = np.random.default_rng(3)
    hidden = jnp.asarray(rng.normal(size=(12, 8)), dtype)
    table = jnp.asarray(rng.normal(size=(V, 8)) * 3, jnp.float32)
    labels = jnp.asarray(rng.integers(0, V, 12))
    weights = jnp.asarray(rng.normal(size=12), jnp.float32)

    def plain(hidden, table):
        logits = (hidden.astype(jnp.float32) @ table.astype(dtype).astype(jnp.float32).T) + 900
        return (weights * optax.softmax_cross_entropy_with_integer_labels(logits, labels)).sum()

    def ours(hidden, table):
        return (weights * token_losses(hidden, table, labels)).sum()

    exact = dtype == jnp.float32
    tolerance = {'rtol': 1e-4, 'atol': 1e-4} if exact else {'rtol': 0.05, 'atol': 0.1}
    (found, gradients), (expected, others) = (
        jax.jit(jax.value_and_grad(of, (0, 1)))(hidden, table) for of in (ours, plain)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    for a, b in zip(gradients, others, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(
            np.asarray(a, np.float32), np.asarray(b, np.float32), **tolerance
        )


def test_token_losses_have_derivatives_of_every_order(on_kind):
    """Jacobian-vector products and products with Hessians, as of the plain formula."""
    rng = np.random.default_rng(4)
    primals, tangents = (
        (jnp.asarray(rng.normal(size=(12, 8))), jnp.asarray(rng.normal(size=(V, 8))))
        for _ in range(2)
    )
    labels = jnp.asarray(rng.integers(0, V, 12))

    def plain(hidden, table):
        return optax.softmax_cross_entropy_with_integer_labels(hidden @ table.T, labels)

    def ours(hidden, table):
        return token_losses(hidden, table, labels)

    def curved(losses):
        def gradient(*primals):
            return jax.grad(lambda *p: (losses(*p) ** 2).sum(), (0, 1))(*primals)

        return jax.jvp(gradient, primals, tangents)

    def slope(losses):
        return jax.jvp(losses, primals, tangents)

    for derivative in (slope, curved):
        derivative = jax.jit(derivative, static_argnums=0)
        for a, b in zip(
            *(jax.tree.leaves(derivative(losses)) for losses in (ours, plain)), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_token_losses_of_a_frozen_table_have_no_gradient_by_it(on_kind):
    hidden, table, labels = jnp.ones((5, 3)), jnp.ones((7, 3)), jnp.zeros(5, jnp.int32)
    text = str(jax.make_jaxpr(jax.grad(lambda h: token_losses(h, table, labels).sum()))(hidden))
    assert text.count('dot_general') == 2


def test_token_losses_of_far_logits_are_finite(on_kind):
    hidden = jnp.full((1, 2), 300.0)
    table = jnp.array([[300.0, 0], [0, 0], [-300.0, 0]])
    losses, gradient = jax.jit(
        jax.value_and_grad(lambda h: token_losses(h, table, jnp.array([2])).sum())
    )(hidden)
    np.testing.assert_allclose(losses, 180_000)
    assert np.isfinite(gradient).all()


# Engine programs are compiled in full: as little of them as there can be.
TINY = dataclasses.replace(CONFIG, layers=1, hidden=8, attention=())


@pytest.fixture(scope='module')
def base():
    return _far_from_initial(TINY)


@pytest.fixture(scope='module')
def program():
    task = LanguageModeling(TINY)
    return training.Program(task, optax.adam(1e-2), 6, 4, RECORDS, 4)


def _train(program, batch, masks, base=None):
    chunks = training.train(
        program,
        key=jax.random.key(5),
        masks=masks,
        members=range(len(masks)),
        examples=batch,
        targets=batch,
        executor=training.vmapped(len(masks), 1),
        base=base,
        keep_params=True,
    )
    return next(iter(chunks)).result


@pytest.mark.slow
def test_capacity_is_known_before_anything_is_trained(program, batch):
    """Too small by one token, some batch would have a loss of NaN, and so would the member."""
    masks = np.random.default_rng(1).random((3, RECORDS)) < 0.8
    counts = np.asarray(batch.lengths) - 1
    capacity = training.largest_batch(program, masks, key=jax.random.key(5), sizes=counts)
    assert counts.max() <= capacity < 4 * (S - 1)
    sums = []
    for member, mask in enumerate(masks):
        key = jax.random.fold_in(jax.random.key(5), member)
        rows = training.member.schedule(program, jnp.asarray(mask), key=key)
        assert mask[np.asarray(rows)].all()
        sums.append(counts[np.asarray(rows)].sum(1).max())
    assert capacity == max(sums)
    packed = program._replace(task=dataclasses.replace(program.task, capacity=capacity))
    losses = _train(packed, batch, masks).measurements['loss']
    np.testing.assert_allclose(
        losses, _train(program, batch, masks).measurements['loss'], rtol=1e-3
    )


def test_adapters_start_at_the_base_and_leave_it_alone(program, batch, base):
    masks = np.ones((2, RECORDS), bool)
    lora = LoRA(rank=2, matrices=('layers/attention/query', 'layers/mlp/up'))
    adapted = program._replace(task=AdapterModeling(program.task, lora))
    before = _train(adapted._replace(steps=0), batch, masks, base=base)
    expected = measured(program.task, base, batch)
    for name, values in before.measurements.items():
        np.testing.assert_allclose(values[0], expected[name], rtol=1e-5, err_msg=name)
    after = _train(adapted._replace(steps=30), batch, masks, base=base)
    assert after.measurements['loss'].mean() < before.measurements['loss'].mean() - 0.1
    merged = lora.merge(base, jax.tree.map(lambda leaf: leaf[1], after.params))
    np.testing.assert_allclose(
        after.measurements['loss'][1], measured(program.task, merged, batch)['loss'], rtol=1e-3
    )


@pytest.mark.parametrize('capacity', [None, 400])
def test_adapters_are_trained_as_what_they_merge_to(params, batch, capacity):
    """Also packed: the adapters that are trained must be those that are measured."""
    modeling, lora = LanguageModeling(CONFIG, capacity), LoRA(rank=2)
    zero_b = lora.init(params, key=jax.random.key(2))
    adapters = jax.tree.map(lambda leaf: leaf + 0.2, zero_b)
    adapted = AdapterModeling(modeling, lora).on(params)
    loss = trained_loss(modeling, lora.merge(params, adapters), batch)
    np.testing.assert_allclose(trained_loss(adapted, adapters, batch), loss, rtol=1e-4)
    assert (np.abs(loss - trained_loss(modeling, params, batch)) > 0.01).all()


def test_a_warm_start_begins_at_the_base(program, batch, base):
    masks = np.ones((2, RECORDS), bool)
    warm = program._replace(task=training.WarmStart(program.task))
    before = _train(warm._replace(steps=0), batch, masks, base=base)
    np.testing.assert_allclose(
        before.measurements['loss'][1], measured(program.task, base, batch)['loss'], rtol=1e-5
    )
    after = _train(warm._replace(steps=30), batch, masks, base=base)
    assert after.measurements['loss'].mean() < before.measurements['loss'].mean() - 0.1
