"""The paper's table of a finished language run for its first M members, by estimator.

    python -m benchmarks.language_members runs/nq [--counts=50,100,200]

Near-duplicates are told by the ids ('X', 'X~1', ...), as experiments.language_model writes them.
"""

import sys

import numpy as np
from absl import app, flags

from influence_jax import analysis, estimators, store
from influence_jax.estimators import adjusted, difference_in_means

_COUNTS = flags.DEFINE_list('counts', ['50', '100', '200'], 'numbers of members')
_MEASUREMENTS = ('loss', 'answer_loss')


def main(arguments: list[str]) -> None:
    if len(arguments) != 2:
        sys.exit('error: give one run directory')
    run = store.open_run(arguments[1])
    if run.shown is None or run.shown.groups is None:
        sys.exit(f'error: {arguments[1]} keeps no groups of near-duplicates: train it again')
    _, group, sizes = np.unique(run.shown.groups, return_inverse=True, return_counts=True)
    duplicated = sizes[group] > 1
    complete = run.complete
    held = run.masks[complete]
    for name in run.manifest.measurements:
        values = run.measurement(name)[complete]
        parts = [
            f'{what} {values[rows & kind[None]].mean():.3f}'
            for rows, where in ((held, 'held'), (~held, 'left out'))
            for kind, what in ((~duplicated, f'{where}: unique'), (duplicated, 'near-duplicated'))
        ]
        print(f'{name:24}' + '; '.join(parts))
    print(
        f'\n{"measurement":13}{"M":>6} {"estimator":12}{"self-influence":>22}{"ratio":>7}'
        f'{"median margin":>16}{"ratio":>7}{"AUROC margin":>14}{"floored":>9}{"z":>7}{"self":>7}'
    )
    for name in _MEASUREMENTS:
        for count in map(int, _COUNTS.value):
            members = complete[:count]
            losses = run.measurement(name)[members]
            for estimator in (difference_in_means, adjusted):
                found = estimators.summarize(run.masks[members], losses, estimator=estimator)
                own, margin = found.self_influence, found.margin
                kinds = (~duplicated, duplicated)
                means, medians = (
                    [statistic(values[kind]) for kind in kinds]
                    for statistic, values in ((np.mean, own), (np.median, margin))
                )
                aurocs = [
                    analysis.auroc(-np.nan_to_num(score), duplicated)
                    for score in (margin, found.floored_margin, found.z_margin, own)
                ]
                print(
                    f'{name:13}{len(members):6} {estimator.name:12}'
                    f'{means[0]:12.3f} /{means[1]:8.3f}{means[0] / means[1]:7.2f}'
                    f'{medians[0]:8.2f} /{medians[1]:6.2f}{medians[0] / medians[1]:7.2f}'
                    f'{aurocs[0]:14.3f}{aurocs[1]:9.3f}{aurocs[2]:7.3f}{aurocs[3]:7.3f}'
                )


if __name__ == '__main__':
    app.run(main)
