"""Methods of attribution beside exact leave-one-out retraining of logistic regression.

    python -m benchmarks.leave_one_out [--dataset=digits] [--left_out=50] [--weight_decay=0.05]

Every example that is left out costs a training to convergence (Newton's method, float64). Methods
read the model that was trained on all; those whose damping stands for weight decay get the true
one, all others have their own settings. Correlations are over pairs of an example that was left
out and another; 'itself' is over what examples do to themselves.
"""

import dataclasses
import time
from typing import cast

import jax.numpy as jnp
import numpy as np
import sklearn.datasets
from absl import app, flags, logging

from influence_jax import attribution, tasks
from influence_jax.analysis import judge
from influence_jax.attribution import ASTRA, KFAC, Attribution, InfluenceFunction, Model, Records
from influence_jax.data import Dataset
from influence_jax.models import MLPConfig
from influence_jax.types import Task

_TABLES = {
    'digits': sklearn.datasets.load_digits,
    'breast_cancer': sklearn.datasets.load_breast_cancer,
    'wine': sklearn.datasets.load_wine,
}
_DATASET = flags.DEFINE_enum('dataset', 'breast_cancer', list(_TABLES), 'of scikit-learn')
_LEFT_OUT = flags.DEFINE_integer('left_out', 50, 'examples that are left out, drawn at random')
_DECAY = flags.DEFINE_float('weight_decay', 0.05, 'of all parameters')
_METHODS = flags.DEFINE_list('attribution', [], 'methods; by default all')
_SEED = flags.DEFINE_integer('seed', 0, 'of the draw')

_NEGLIGIBLE = 1e-3
"""Damping beside weight decay, as a share of it."""


def main(arguments: list[str]) -> None:
    """Prints a line for each method, best first."""
    del arguments
    logging.set_verbosity(logging.WARNING)
    found = _TABLES[_DATASET.value]()
    scale = np.maximum(found.data.std(axis=0), 1e-6)
    features = ((found.data - found.data.mean(axis=0)) / scale).astype(np.float32)
    labels = found.target.astype(np.int32)
    order = np.random.default_rng(_SEED.value).permutation(len(labels))
    start = time.perf_counter()
    truth = judge.leave_one_out(
        features, labels, order[: _LEFT_OUT.value], weight_decay=_DECAY.value
    )
    seconds = time.perf_counter() - start
    print(f'{_DATASET.value}: {_LEFT_OUT.value} of {len(labels)} left out, {seconds:.0f} s')
    dataset = Dataset({'input': features, 'label': labels})
    network = MLPConfig(features.shape[1], int(labels.max()) + 1, ())
    problem = tasks.bind(tasks.Classification(network), dataset)
    layer = {'kernel': jnp.float32(truth.kernel), 'bias': jnp.float32(truth.bias)}
    model = Model(cast(Task, problem.task), {'layers': {0: layer}})
    records = Records(problem.examples, problem.examples)
    named = [attribution.by_name(name) for name in _METHODS.value]
    lines = []
    for method in map(_with_decay, named or attribution.BUILT_IN):
        title, start = method.method.title, time.perf_counter()
        try:
            agreement = judge.leave_one_out_agreement(method([model], records), truth)
        except ValueError as error:
            print(f'left out: {title}: {error}')
        else:
            lines.append((agreement, title, time.perf_counter() - start))
    print('| method | Pearson | Spearman | itself | seconds |\n|---|---|---|---|---|')
    for agreement, title, seconds in sorted(lines, key=lambda line: -line[0].pearson):
        numbers = ' | '.join(f'{value:.3f}' for value in agreement)
        print(f'| {title} | {numbers} | {seconds:.1f} |')


def _with_decay(method: Attribution) -> Attribution:
    """The method with the weight decay of the training in the place of its damping."""
    match method:
        case InfluenceFunction():
            damping = _NEGLIGIBLE * _DECAY.value
            return dataclasses.replace(method, weight_decay=_DECAY.value, damping=damping)
        case KFAC() | ASTRA():
            return dataclasses.replace(method, damping=_DECAY.value)
    return method


if __name__ == '__main__':
    app.run(main)
