"""Any module of Flax is trained as its own documentation says: state carried, Dropout off after."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from influence_jax import tasks, training
from influence_jax.data import Dataset
from influence_jax.training import Program, sequential, vmapped
from influence_jax.training.contract import check_task
from influence_jax.types import Variables

RNG = np.random.default_rng(0)
IMAGES = Dataset(
    {
        'image': RNG.integers(0, 256, (20, 6, 6, 3), np.uint8),
        'label': RNG.integers(0, 4, 20, np.int32),
    }
)
TABLE = Dataset({'features': RNG.normal(size=(20, 5)).astype(np.float32), 'label': RNG.random(20)})


class Net(nnx.Module):
    """A convolution with BatchNorm and Dropout, as anyone would write it."""

    def __init__(self, *, rngs, rate=0.5):
        self.convolution = nnx.Conv(3, 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.out = nnx.Linear(8, 4, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.convolution(x)))
        return self.out(self.dropout(x.mean((1, 2))))


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Conv(8, (3, 3))(x))
        x = nn.relu(x).mean((1, 2))
        return nn.Dense(4)(nn.Dropout(0.5, deterministic=not train)(x))


def _program(problem, *, steps=3, **changes):
    return Program(
        task=problem.task,
        optimizer=optax.sgd(0.1),
        steps=steps,
        batch_size=5,
        measure_batch=8,
        smallest_subset=5,
    )._replace(**changes)


def _train(problem, program, executor=None, members=3):
    masks = np.ones((members, 20), bool)
    chunks = training.train(
        program,
        key=jax.random.key(0),
        masks=masks,
        members=range(members),
        examples=problem.examples,
        targets=problem.targets,
        executor=executor or sequential(1),
        keep_params=True,
    )
    return jax.tree.map(lambda *rows: np.concatenate(rows), *[chunk.result for chunk in chunks])


@pytest.mark.slow
def test_training_is_that_of_flax_step_by_step():
    """BatchNorm's statistics included; without Dropout, so that nothing is random."""
    task = tasks.Classification(lambda rngs: Net(rngs=rngs, rate=0.0))
    problem = task.bind(IMAGES)
    program = _program(problem)
    trained = _train(problem, program, members=1)
    own = jax.random.fold_in(jax.random.key(0), 0)
    key = jax.random.fold_in(own, training.member.Stream.PARAMETERS)
    net = Net(rngs=nnx.Rngs(params=key, default=key), rate=0.0)
    net.train()
    optimizer = nnx.Optimizer(net, optax.sgd(0.1), wrt=nnx.Param)
    order = training.member.schedule(program, jnp.ones(20, bool), key=own)
    pixels, labels = IMAGES.arrays['image'] / np.float32(255), IMAGES.arrays['label']

    def loss(net, images, labels):
        return optax.softmax_cross_entropy_with_integer_labels(net(images), labels).mean()

    for batch in np.asarray(order):
        gradient = nnx.grad(loss)(net, pixels[batch], labels[batch])
        optimizer.update(net, gradient)
    net.eval()
    expected = optax.softmax_cross_entropy_with_integer_labels(net(pixels), labels)
    np.testing.assert_allclose(trained.measurements['loss'][0], expected, rtol=1e-4, atol=1e-5)
    mean = trained.params.state['norm']['mean'].get_value()[0]
    np.testing.assert_allclose(mean, net.norm.mean[...], rtol=1e-4, atol=1e-5)
    assert np.abs(mean).max() > 0.01  # not as they began


@pytest.mark.parametrize('executor', [sequential(2), vmapped(3, 1)], ids=str)
@pytest.mark.slow
def test_members_have_statistics_of_their_own(executor):
    problem = tasks.Classification(lambda rngs: Net(rngs=rngs)).bind(IMAGES)
    program = _program(problem)
    check_task(program, examples=problem.examples, targets=problem.targets)
    alone, together = _train(problem, program), _train(problem, program, executor)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), alone, together
    )
    means = alone.params.state['norm']['mean'].get_value()
    assert len(np.unique(means[:, 0])) == 3


def test_dropout_is_on_in_training_and_off_when_measuring():
    problem = tasks.Classification(lambda rngs: Net(rngs=rngs)).bind(IMAGES)
    variables = problem.task.init(key=jax.random.key(1))
    rows = jax.tree.map(lambda leaf: leaf[:8], problem.examples)

    def losses(seed):
        return problem.task.train_loss(variables, rows, key=jax.random.key(seed))[0]

    np.testing.assert_array_equal(losses(0), losses(0))
    assert np.abs(losses(0) - losses(1)).max() > 1e-3
    first, second = (problem.task.measure(variables, rows)['loss'] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_a_linen_module_by_its_init_and_apply():
    net = LinenNet()
    problem = tasks.Classification((net.init, net.apply)).bind(IMAGES)
    program = _program(problem)
    check_task(program, examples=problem.examples, targets=problem.targets)
    variables = _train(problem, program).params
    assert isinstance(variables, Variables)
    mean = variables.state['batch_stats']['BatchNorm_0']['mean']
    assert mean.shape == (3, 8) and np.abs(mean).max() > 0.01
    one = jax.tree.map(lambda leaf: leaf[1], variables)
    logits = net.apply(
        {'params': one.params, **one.state}, IMAGES.arrays['image'] / 255, train=False
    )
    measured = problem.task.measure(one, problem.examples)
    expected = optax.softmax_cross_entropy_with_integer_labels(logits, IMAGES.arrays['label'])
    np.testing.assert_allclose(measured['loss'], expected, rtol=1e-4, atol=1e-5)


def test_what_is_measured_of_a_classifier():
    problem = tasks.Classification(lambda rngs: Net(rngs=rngs)).bind(IMAGES)
    variables = problem.task.init(key=jax.random.key(1))
    measured = problem.task.measure(variables, problem.examples)
    logits = problem.task.of.network.predict(variables, IMAGES.arrays['image'] / np.float32(255))
    p = np.asarray(jax.nn.softmax(logits), np.float64)
    own = p[np.arange(20), IMAGES.arrays['label']]
    np.testing.assert_allclose(measured['loss'], -np.log(own), rtol=1e-4)
    np.testing.assert_allclose(measured['logit_gap'], np.log(own / (1 - own)), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(
        measured['correct'], np.argmax(p, axis=1) == IMAGES.arrays['label']
    )


@pytest.mark.parametrize('outputs', [1, 2])
def test_regression(outputs):
    labels = RNG.normal(size=(20, outputs)).astype(np.float32)
    table = Dataset({'x': TABLE.arrays['features'], 'y': labels if outputs > 1 else labels[:, 0]})
    task = tasks.Regression(lambda rngs: nnx.Linear(5, outputs, rngs=rngs), label='y')
    problem = task.bind(table)
    program = _program(problem, steps=400)
    check_task(program, examples=problem.examples, targets=problem.targets)
    trained = _train(problem, program, members=1)
    design = np.c_[table.arrays['x'], np.ones(20)]
    fit = design @ np.linalg.lstsq(design, labels, rcond=None)[0]
    # Stochastic gradients come near the least squares.
    np.testing.assert_allclose(
        trained.measurements['loss'].mean(), ((fit - labels) ** 2).mean(), rtol=0.2
    )
    assert (
        trained.measurements['absolute_error'] ** 2 <= trained.measurements['loss'] * 1.001
    ).all()


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (lambda: tasks.Classification(lambda rngs: Net(rngs=rngs)).bind(TABLE), 'integers from 0'),
        (
            lambda: tasks.Classification(lambda rngs: Net(rngs=rngs), label='class').bind(IMAGES),
            "reads the array 'class', but .* has .*'image', 'label'",
        ),
        (
            lambda: tasks.Classification(lambda rngs: Net(rngs=rngs), inputs='pixels').bind(IMAGES),
            "no array 'pixels'",
        ),
        (
            lambda: tasks.Regression(lambda rngs: Net(rngs=rngs)).bind(
                Dataset({'a': np.zeros(4), 'b': np.zeros(4), 'label': np.zeros(4)})
            ),
            'inputs=',
        ),
        (lambda: tasks.Classification(Net(rngs=nnx.Rngs(0))), 'a function that builds a module'),
        (lambda: tasks.Classification((1, 2)), r'\(init, apply\)'),
        (
            lambda: tasks.Classification(lambda rngs: nnx.Linear(3, 2, rngs=rngs)).bind(
                Dataset({'x': np.zeros((4, 3), np.float32), 'label': np.arange(4)})
            ),
            'label 3, .* 2 classes',
        ),
        (
            lambda: tasks.Regression(lambda rngs: nnx.Linear(5, 2, rngs=rngs)).bind(TABLE),
            r'returns \[1, 2\] for labels \[1, 1\]',
        ),
    ],
)
def test_what_does_not_fit_is_one_line(make, message):
    with pytest.raises(ValueError, match=message) as raised:
        make()
    assert '\n' not in str(raised.value)
