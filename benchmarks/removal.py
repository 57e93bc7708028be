"""Groups of examples by the signs of their influence, removed, and the others trained again.

    python -m benchmarks.removal RUN [--method=ekfac] [--repeats=8]

RUN is of a launch, best with planted wrong labels and kept parameters:

    python -m experiments.image_resnet --members=256 --wrong_labels=0.1 --keep_params

Groups: points memorized and points generalized from (`analysis.memorization`, our reading of
Kounavis et al., arXiv 2305.16094), and as many of the examples that harm the others most as labels
are wrong, by the ensemble and by a method of attribution; all examples of wrong labels, beside
them. Measured are the targets of right labels that no subset lacks, against random groups of the
same size.
"""

import jax
import numpy as np
from absl import app, flags

from experiments import remake
from influence_jax import attribution, estimators, open_run
from influence_jax.analysis import judge
from influence_jax.analysis.memorization import split_by_sign
from influence_jax.ensemble import measure_subsets
from influence_jax.estimators import Columns
from influence_jax.judging.retraining import recipe_of

_METHOD = flags.DEFINE_string('method', 'ekfac', 'of attribution, beside the ensemble')
_MODELS = flags.DEFINE_integer('num_models', 4, 'how many members of RUN the method reads')
_REPEATS = flags.DEFINE_integer('repeats', 8, 'models a subset')
_MOST = 0.25  # of the examples: of larger groups no random one leaves common targets


def main(arguments: list[str]) -> None:
    if len(arguments) != 2:
        raise app.UsageError('name one run of a launch')
    run = open_run(arguments[1])
    dataset, task = remake.dataset_and_task(run)
    self_index = run.target_examples
    right = np.ones(len(dataset), bool)
    if dataset.mislabelled is not None:
        right = ~dataset.mislabelled
    targets = np.flatnonzero((self_index >= 0) & right[self_index])

    def train(masks: np.ndarray) -> np.ndarray:
        return measure_subsets(task, dataset, masks, recipe=recipe_of(run), seed=1)['loss']

    models, records = attribution.read_run(run, dataset, range(_MODELS.value))
    method = attribution.by_name(_METHOD.value)
    masks, losses = run.masks[run.complete], run.measurement('loss')[run.complete]
    sources = {
        'ensemble': Columns.of_estimate(estimators.adjusted, masks, losses),
        method.method.title: method(models, records),
    }
    groups: dict[str, np.ndarray] = {}
    wrong = int((~right).sum())
    if wrong:
        groups['wrong labels'] = ~right
    for name, columns in sources.items():
        found = split_by_sign(columns, self_index)
        groups[f'{name}: memorized'] = found.memorized
        groups[f'{name}: generalized from'] = found.generalized
        if wrong:
            order = np.argsort(found.on_others, kind='stable')
            groups[f'{name}: the {wrong} most harmful'] = np.isin(
                np.arange(len(dataset)), order[:wrong]
            )
    print('| group | examples | wrong labels | targets | loss without it | without random ones |')
    print('|---|---|---|---|---|---|')
    for name, group in groups.items():
        share = f'{(group & ~right).sum()} of {wrong}' if wrong else ''
        line = f'| {name} | {group.sum()} | {share} |'
        if not 0 < group.sum() <= _MOST * len(group):
            print(f'{line} | none, or too many, to be removed | |', flush=True)
            continue
        removal = judge.remove_group(
            group, targets, self_index, train, repeats=_REPEATS.value, key=jax.random.key(0)
        )
        rises = (
            f'{rise.value:+.4f} ± {rise.standard_error:.4f}'
            + f' ({rise.diverged} diverged)' * bool(rise.diverged)
            for rise in (removal.removed, removal.random)
        )
        print(f'{line} {len(removal.targets)} | {" | ".join(rises)} |', flush=True)


if __name__ == '__main__':
    app.run(main)
