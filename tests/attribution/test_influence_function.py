"""Influence functions against dense algebra and against models retrained without an example."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from influence_jax import attribution, tasks
from influence_jax.attribution import (
    Arnoldi,
    ConjugateGradients,
    Curvature,
    Exact,
    InfluenceFunction,
    LiSSA,
    Model,
    Records,
    RelatIF,
)
from influence_jax.data import Dataset
from influence_jax.models.mlp import MLPConfig
from influence_jax.tasks.language_modeling import LanguageModeling

SOLVERS = [
    Exact(),
    ConjugateGradients(tolerance=1e-5, iterations=200),
    LiSSA(steps=600),
    Arnoldi(iterations=10_000, rank=10_000),
]


@dataclasses.dataclass(frozen=True)
class PackedLoss:
    """Measures texts by the loss that they are trained with."""

    task: LanguageModeling

    @property
    def measurements(self):
        return ('loss',)

    def init(self, *, key):
        return self.task.init(key=key)

    def train_loss(self, params, batch, *, key):
        return self.task.train_loss(params, batch, key=key)

    def measure(self, params, batch):
        return {'loss': self.train_loss(params, batch, key=jax.random.key(0))}


def whole(columns):
    return np.asarray(columns.read(np.arange(columns.targets)))


def curvatures(model, rows):
    """Hessian and Gauss-Newton matrix of the mean loss by `jax.hessian` and dense Jacobians."""
    flat, unravel = ravel_pytree(model.chosen)

    def outputs(vector):
        return model.outputs(unravel(vector), rows)

    hessian = jax.jit(jax.hessian(lambda v: model.losses(unravel(v), rows, 'loss').mean()))(flat)
    found = jax.jit(outputs)(flat)
    jacobian = np.asarray(jax.jit(jax.jacobian(outputs))(flat), np.float64)
    jacobian = jacobian.reshape(found.size, -1)
    by_output = jax.jit(jax.hessian(lambda out: model.output_losses(out, rows).mean()))(found)
    inner = np.asarray(by_output, np.float64).reshape(found.size, found.size)
    return np.asarray(hessian, np.float64), jacobian.T @ inner @ jacobian


def gradients(model, rows):
    def of(chosen, row):
        return ravel_pytree(jax.grad(lambda p: model.measure(p, row, 'loss'))(chosen))[0]

    return np.asarray(jax.jit(jax.vmap(of, (None, 0)))(model.chosen, rows), np.float64)


@pytest.fixture(scope='module')
def dense(mlp):
    """Hessian, Gauss-Newton matrix and gradients of the examples of a mask."""
    model, examples = mlp
    model = dataclasses.replace(model, mask=np.arange(7) != 2)
    rows = jax.tree.map(lambda leaf: jnp.asarray(leaf[model.mask]), examples)
    return model, examples, curvatures(model, rows), gradients(model, examples)


@pytest.mark.parametrize('solver', SOLVERS, ids=lambda solver: solver.title)
@pytest.mark.parametrize('curvature', Curvature)
def test_every_solver_solves_the_dense_system(dense, solver, curvature):
    model, examples, (hessian, gauss_newton), own = dense
    matrix = gauss_newton if curvature is Curvature.GAUSS_NEWTON else hessian
    damping = 0.05 + max(0, -np.linalg.eigvalsh(matrix)[0])
    # One batch holds all examples, so that LiSSA's are all alike.
    records = Records(examples, examples, batch=7)
    method = InfluenceFunction(solver, curvature, damping=damping, weight_decay=0.01)
    expected = own @ np.linalg.solve(matrix + (damping + 0.01) * np.eye(len(matrix)), own.T) / 6
    np.testing.assert_allclose(
        whole(method([model], records)), expected, atol=3e-3 * np.abs(expected).max()
    )
    assert method.unit(model, records) == 'nats'


@pytest.mark.parametrize('solver', SOLVERS, ids=lambda solver: solver.title)
def test_damping_that_leaves_a_negative_eigenvalue_is_refused(dense, solver):
    model, examples, (hessian, _), _ = dense
    smallest = np.linalg.eigvalsh(hessian)[0]
    assert smallest < -0.01
    method = InfluenceFunction(solver, Curvature.HESSIAN, damping=float(-smallest) / 3)
    with pytest.raises(ValueError, match='raise'):
        whole(method([model], Records(examples, examples, batch=7)))


def test_damping_is_a_tenth_of_the_mean_eigenvalue_unless_given(dense):
    model, examples, (_, gauss_newton), _ = dense
    records = Records(examples, examples, batch=3)
    found = InfluenceFunction(weight_decay=0.5).operator(model, records).damping - 0.5
    assert found == pytest.approx(0.1 * np.trace(gauss_newton) / len(gauss_newton), rel=0.3)
    with pytest.raises(ValueError, match='damping=0'):
        InfluenceFunction(damping=0)


@pytest.mark.slow
def test_lissa_draws_batches(dense):
    model, examples, (_, gauss_newton), own = dense
    method = InfluenceFunction(LiSSA(steps=200, repeats=4), damping=0.2)
    found = whole(method([model], Records(examples, examples, batch=3)))
    expected = own @ np.linalg.solve(gauss_newton + 0.2 * np.eye(len(gauss_newton)), own.T) / 6
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


def test_relatif_divides_by_what_an_example_does_at_all(dense):
    model, examples, (_, gauss_newton), own = dense
    records = Records(examples, examples)
    solved = np.linalg.solve(gauss_newton + 0.1 * np.eye(len(gauss_newton)), own.T).T / 6
    scores = own @ solved.T
    for relatif, squares in (
        (RelatIF.THETA, (solved**2).sum(1)),
        (RelatIF.LOSS, (own * solved).sum(1)),
    ):
        method = InfluenceFunction(Exact(), damping=0.1, relatif=relatif)
        found = whole(method([model], records))
        np.testing.assert_allclose(found, scores / np.sqrt(squares)[:, None], rtol=0.01, atol=1e-3)
        assert relatif.title in method.method.title


def test_it_is_leaving_one_out_of_ridge_regression():
    """Strongly convex, with its optimum known: scores are changes of the loss within 1 percent."""
    generator = np.random.default_rng(0)
    count, decay = 2000, 0.1
    x = generator.normal(size=(count, 3)).astype(np.float32)
    y = (x @ [1.0, -2.0, 0.5] + generator.normal(size=count)).astype(np.float32)
    columns = np.concatenate([np.ones((count, 1)), x], axis=1).astype(np.float64)

    def fitted(keep):
        # The minimum of the mean over all examples, one of them weighing 0, + w/2 |w|^2.
        rows = columns[keep]
        gram = 2 * rows.T @ rows / count + decay * np.eye(4)
        return np.linalg.solve(gram, 2 * rows.T @ y[keep] / count)

    w = fitted(np.arange(count))
    problem = tasks.bind(tasks.Regression(MLPConfig(3, 1, ())), Dataset({'input': x, 'label': y}))
    params = problem.task.init(key=jax.random.key(0))
    leaves = [jnp.asarray(w[:1], jnp.float32), jnp.asarray(w[1:, None], jnp.float32)]
    model = Model(problem.task, jax.tree.unflatten(jax.tree.structure(params), leaves))
    some = jax.tree.map(lambda leaf: leaf[:10], problem.examples)
    method = InfluenceFunction(Exact(), Curvature.HESSIAN, damping=1e-6, weight_decay=decay)
    columns_found = method([model], Records(problem.examples, some, batch=500))
    scores = whole(columns_found)
    assert columns_found.unit == 'squared unit of the label'
    losses = (columns @ w - y) ** 2
    truth = []
    for i in range(30):
        without = fitted(np.delete(np.arange(count), i))
        truth.append(((columns @ without - y) ** 2 - losses)[:10])
    truth = np.array(truth)
    # Relative to the spread of what one example does: single entries may be about 0.
    assert np.abs(scores[:30] - truth).max() < 0.01 * np.abs(truth).max()


def test_a_task_without_outputs_has_no_gauss_newton_matrix(mlp):
    model, examples = mlp

    class Opaque:
        measurements = ('loss',)

        def init(self, *, key):
            return model.task.init(key=key)

        def train_loss(self, params, batch, *, key):
            return model.task.train_loss(params, batch, key=key)

        def measure(self, params, batch):
            return model.task.measure(params, batch)

    opaque = Model(Opaque(), model.variables)
    with pytest.raises(ValueError, match=r'Opaque .*Curvature\.HESSIAN'):
        whole(InfluenceFunction()([opaque], Records(examples, examples)))


def test_drawn_tokens_have_the_fisher_information_of_the_mean_loss(networks):
    """Of texts of any length: the second moment of gradients is the Gauss-Newton matrix."""
    model, records = networks['gpt_neo']()
    _, unravel = ravel_pytree(model.chosen)
    direction = np.random.default_rng(0).normal(size=model.size).astype(np.float32)
    row = jax.tree.map(lambda leaf: leaf[2], records)

    @jax.jit
    def squares(keys):
        def slope(key):
            def loss(chosen):
                return model.sampled(chosen, row, key)

            # By forward differentiation: attention's softmax has a Jacobian-vector product.
            return jax.jvp(loss, (model.chosen,), (unravel(jnp.asarray(direction)),))[1]

        return jax.vmap(slope)(keys) ** 2

    found = squares(jax.random.split(jax.random.key(0), 4000)).mean()
    one = jax.tree.map(lambda leaf: leaf[2:3], records)
    operator = InfluenceFunction(damping=1e-9).operator(model, Records(one, one))
    expected = direction @ np.asarray(operator.product(jnp.asarray(direction)[None]))[0]
    np.testing.assert_allclose(found, expected, rtol=0.1)


@pytest.mark.slow
def test_a_packed_training_loss_has_products_with_its_hessian(networks):
    """Through `token_losses`, attention and embeddings: scores are those of `measure`."""
    model, records = networks['gpt_neo']()
    packed = dataclasses.replace(
        model, task=PackedLoss(dataclasses.replace(model.task, capacity=64))
    )
    method = InfluenceFunction(ConjugateGradients(tolerance=1e-6), Curvature.HESSIAN, damping=200.0)
    found, plain = (whole(method([one], Records(records, records))) for one in (packed, model))
    np.testing.assert_allclose(found, plain, atol=1e-4 * np.abs(plain).max())


def test_what_is_for_chosen_targets():
    """Iterations for each target, or trainings: nobody wants them of thousands by default."""
    chosen = {one.method.name for one in attribution.BUILT_IN if one.for_chosen_targets}
    assert chosen == {
        'conjugate_gradients',
        'lissa',
        'astra',
        'metagradient',
        'data_value_embedding',
        'mirrored',
    }
