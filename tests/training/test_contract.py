"""What a task gets wrong is found by its shapes, before anything is trained."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from influence_jax.training.contract import check_task
from influence_jax.types import Variables


def _check(make_program, points, task):
    check_task(make_program(task=task), examples=points, targets=points)


def _changed(make_program, **methods):
    """The linear regression of the other tests, some methods of which are others."""
    task = make_program().task
    return dataclasses.make_dataclass(
        'Changed', [], bases=(type(task),), frozen=True, namespace=methods
    )()


def test_a_task_that_is_right(make_program, points):
    _check(make_program, points, make_program().task)


@pytest.mark.parametrize(
    ('methods', 'message'),
    [
        (
            {'train_loss': lambda self, p, b, *, key: jnp.zeros(())},
            r'train_loss returns \[\] for 4',
        ),
        (
            {'train_loss': lambda self, p, b, *, key: jnp.zeros(4, int)},
            'train_loss returns int32: return floating',
        ),
        (
            {'train_loss': lambda self, p, b, *, key: (jnp.zeros(4), {})},
            'returns a tuple, but init returns no state',
        ),
        (
            {'measure': lambda self, p, b: {'loss': jnp.zeros(10)}},
            r"returns \['loss'\], but .*pred",
        ),
        (
            {'measure': lambda self, p, b: {'loss': jnp.zeros((10, 1)), 'prediction': b.y}},
            r"measure returns 'loss' as \[10, 1\] for 10 rows",
        ),
        (
            {'measure': lambda self, p, b: {'loss': b.y, 'prediction': b.y > 0}},
            "measure returns 'prediction' as bool",
        ),
        ({'measure': lambda self, p, b: b.y}, 'return a dict of arrays'),
        ({'init': lambda self, *, key: {'w': jnp.zeros(3, int), 'b': 0.0}}, 'w is int32'),
    ],
)
def test_a_task_that_is_wrong(make_program, points, methods, message):
    with pytest.raises(ValueError, match=message) as raised:
        _check(make_program, points, _changed(make_program, **methods))
    assert '\n' not in str(raised.value)


def _with_state(make_program, train_loss):
    task = make_program().task
    return _changed(
        make_program,
        init=lambda self, *, key: Variables(task.init(key=key), {'seen': jnp.zeros(2)}),
        train_loss=train_loss,
        measure=lambda self, v, b: task.measure(v.params, b),
    )


@pytest.mark.parametrize(
    ('returned', 'message'),
    [
        (lambda losses, state: losses, 'returns no new state'),
        (lambda losses, state: (losses, {'seen': state['seen'][:1]}), r'seen is float32\[1\], exp'),
        (lambda losses, state: (losses, {}), r'seen is absent, expected float32\[2\]'),
    ],
)
def test_state_that_is_not_carried_along(make_program, points, returned, message):
    task = make_program().task

    def train_loss(self, variables, batch, *, key):
        return returned(task.train_loss(variables.params, batch, key=key), variables.state)

    with pytest.raises(ValueError, match=message):
        _check(make_program, points, _with_state(make_program, train_loss))


def test_batch_statistics_among_the_parameters(make_program, points):
    """As of `nnx.split(module)[1]`: they would stay at 0 and 1 without a word."""
    task = _changed(
        make_program,
        init=lambda self, *, key: nnx.split(nnx.BatchNorm(3, rngs=nnx.Rngs(0)))[1],
    )
    with pytest.raises(ValueError, match='init returns BatchStat among the parameters'):
        _check(make_program, points, task)


def test_nothing_is_computed(make_program, points):
    """Shapes are enough."""
    shapes = jax.eval_shape(lambda: points)
    check_task(make_program(), examples=shapes, targets=shapes)
