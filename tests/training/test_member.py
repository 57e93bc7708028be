"""One member: the training is the textbook's, and a mask is a physical cut."""

import functools

import jax
import numpy as np
import optax
import pytest

from influence_jax import subsets
from influence_jax.estimators import difference_in_means
from influence_jax.training import member, train_member
from influence_jax.training.member import Stream, measure

MASK = np.random.default_rng(3).random(24) < 0.5


def _train(program, mask, examples, targets=None, *, seed=0):
    def run(key, mask, examples, targets):
        return train_member(program, key=key, mask=mask, examples=examples, targets=targets)

    targets = examples if targets is None else targets
    return jax.jit(run)(jax.random.key(seed), mask, examples, targets)


def _assert_close(actual, expected):
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=2e-5, atol=2e-6), actual, expected
    )


def test_training_is_gradient_descent_written_as_a_loop(points, make_program):
    """Gradients by hand, in float64."""
    program = make_program(steps=12)
    trained = _train(program, MASK, points)
    key = jax.random.key(0)
    params = program.task.init(key=jax.random.fold_in(key, Stream.PARAMETERS))
    w, b = np.asarray(params['w'], np.float64), 0.0
    batches = member.batches(
        MASK, key=jax.random.fold_in(key, Stream.ORDER), steps=12, batch_size=4, smallest=4
    )
    for batch in np.asarray(batches):
        residual = points.x[batch] @ w + b - points.y[batch]
        w = w - 0.05 * 2 * (residual @ points.x[batch]) / 4
        b = b - 0.05 * 2 * residual.mean()
    _assert_close(trained.params, {'w': w, 'b': b})
    prediction = points.x @ w + b
    _assert_close(
        trained.measurements, {'loss': (prediction - points.y) ** 2, 'prediction': prediction}
    )


def test_training_with_an_optimizer_that_has_state(points, make_program):
    """AdamW's steps one by one, each its own program, with the noise of each step's own key."""
    program = make_program(noise=0.3, optimizer=optax.adamw(0.1, weight_decay=0.1))
    trained = _train(program, MASK, points, seed=5)
    key = jax.random.key(5)
    params = program.task.init(key=jax.random.fold_in(key, Stream.PARAMETERS))
    state = program.optimizer.init(params)
    batches = member.batches(
        MASK, key=jax.random.fold_in(key, Stream.ORDER), steps=5, batch_size=4, smallest=4
    )

    @jax.jit
    def step(params, state, batch, step_key):
        gradient = jax.grad(lambda p: program.task.train_loss(p, batch, key=step_key).mean())(
            params
        )
        update, state = program.optimizer.update(gradient, state, params)
        return optax.apply_updates(params, update), state

    for number, indices in enumerate(np.asarray(batches)):
        step_key = jax.random.fold_in(jax.random.fold_in(key, Stream.LOSS), number)
        batch = type(points)(points.x[indices], points.y[indices])
        params, state = step(params, state, batch, step_key)
    _assert_close(trained.params, params)


def test_masked_is_physically_cut(points, make_program):
    program = make_program(noise=0.3, optimizer=optax.sgd(0.05, momentum=0.9), steps=20)
    cut = type(points)(points.x[MASK], points.y[MASK])
    masked = _train(program, MASK, points, points)
    alone = _train(
        program._replace(smallest_subset=int(MASK.sum())),
        np.ones(MASK.sum(), bool),
        cut,
        points,
    )
    _assert_close(masked, alone)


def test_what_was_left_out_is_never_read(points, make_program):
    spoilt = type(points)(np.where(MASK[:, None], points.x, np.nan), points.y)
    program = make_program()
    _assert_close(_train(program, MASK, spoilt, points), _train(program, MASK, points))


@pytest.mark.parametrize('measure_batch', [1, 5, 24, 1000])
def test_targets_are_measured_in_their_order(points, make_program, measure_batch):
    program = make_program(measure_batch=measure_batch)
    params = {'w': np.array([1.0, 2.0, 3.0], np.float32), 'b': np.float32(-1)}
    params = jax.tree.map(jax.numpy.asarray, params)
    measured = jax.jit(functools.partial(measure, program))(params, points)
    assert list(measured) == list(program.task.measurements)
    prediction = points.x @ np.array([1, 2, 3]) - 1
    np.testing.assert_allclose(measured['prediction'], prediction, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(measured['loss'], (prediction - points.y) ** 2, rtol=1e-4, atol=1e-5)


def test_permuting_examples_permutes_influence(points, make_program):
    """Each batch is the whole subset, so that only sums' rounding depends on the order."""
    size, members = 12, 16
    program = make_program(batch_size=size, steps=6, smallest_subset=size)
    masks = subsets.exact_size(key=jax.random.key(1), members=members, examples=24)
    permutation = np.random.default_rng(0).permutation(24)
    permuted = type(points)(points.x[permutation], points.y[permutation])

    @jax.jit
    def losses(masks, examples):
        def one(seed, mask):
            key = jax.random.fold_in(jax.random.key(0), seed)
            return train_member(
                program, key=key, mask=mask, examples=examples, targets=points
            ).measurements['loss']

        return jax.vmap(one)(np.arange(members), masks)

    # Targets stay where they are.
    order = np.argsort(permutation)
    influence = difference_in_means(masks, losses(masks, points))
    other = difference_in_means(
        masks[:, permutation], losses(masks[:, permutation], permuted), target_examples=order
    )
    np.testing.assert_allclose(other.values, influence.values[permutation], atol=1e-4)
    np.testing.assert_allclose(
        other.standard_error, influence.standard_error[permutation], atol=1e-4
    )
    assert np.abs(influence.values).max() > 1e-2
