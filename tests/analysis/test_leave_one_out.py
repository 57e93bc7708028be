"""Exact leave-one-out: against another library, and influence functions against it."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import sklearn.datasets
from sklearn.linear_model import LogisticRegression

from influence_jax import tasks
from influence_jax.analysis import judge
from influence_jax.attribution import Exact, Gradients, InfluenceFunction, Model, Records
from influence_jax.data import Dataset
from influence_jax.estimators import Columns
from influence_jax.models import MLPConfig

DECAY = 0.1


def wine():
    found = sklearn.datasets.load_wine()
    features = (found.data - found.data.mean(axis=0)) / found.data.std(axis=0)
    return features.astype(np.float32), found.target.astype(np.int32)


@pytest.fixture(scope='module')
def truth():
    return judge.leave_one_out(*wine(), np.arange(0, 178, 6), weight_decay=DECAY)


def test_differences_are_those_of_another_library(truth):
    features, labels = wine()
    inputs = np.column_stack([features, np.ones(len(features))])

    def losses(weights):
        # Its C is of the sum of losses.
        model = LogisticRegression(
            C=1 / (DECAY * len(inputs)), fit_intercept=False, tol=1e-10, max_iter=10_000
        )
        logits = model.fit(inputs, labels, weights).decision_function(inputs)
        return scipy.special.logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]

    before = losses(np.ones(len(labels)))
    for row in (0, 17):
        weights = np.arange(len(labels)) != truth.left_out[row]
        expected = losses(weights.astype(float)) - before
        np.testing.assert_allclose(truth.differences[row], expected, atol=2e-6)


def test_an_exact_influence_function_is_nearly_exact(truth):
    features, labels = wine()
    dataset = Dataset({'input': features, 'label': labels})
    problem = tasks.bind(tasks.Classification(MLPConfig(13, 3, ())), dataset)
    layer = {'kernel': jnp.float32(truth.kernel), 'bias': jnp.float32(truth.bias)}
    model = Model(problem.task, {'layers': {0: layer}})
    records = Records(problem.examples, problem.examples)
    method = InfluenceFunction(Exact(), damping=1e-6, weight_decay=DECAY)
    found = judge.leave_one_out_agreement(method([model], records), truth)
    assert found.pearson > 0.99
    assert found.spearman > 0.99
    assert found.self_pearson > 0.99
    gradients = judge.leave_one_out_agreement(Gradients()([model], records), truth)
    assert 0 < gradients.pearson < found.pearson


def test_what_cannot_be_compared_or_trained_is_refused(truth):
    with pytest.raises(ValueError, match=r'\[5 178\]'):
        judge.leave_one_out_agreement(Columns.of_matrix(np.ones((5, 178))), truth)
    with pytest.raises(ValueError, match='weight_decay'):
        judge.leave_one_out(*wine(), np.arange(2), weight_decay=0.0)
