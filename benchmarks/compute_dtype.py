"""What bfloat16 products change of an ensemble's results, beside the same one in float32.

    python -m benchmarks.compute_dtype RUN_IN_FLOAT32 RUN_IN_BFLOAT16

Two runs of the same subsets and seeds, such as of --compute_dtype=float32 and bfloat16. Prints what
both found, and their difference with 95 % intervals over members, drawn again together.
"""

import sys
from collections.abc import Callable

import numpy as np
from absl import app, flags

from influence_jax import analysis, estimators, store

_DRAWS = flags.DEFINE_integer('draws', 40, 'bootstrap samples of the members')
_MEMBERS = flags.DEFINE_integer('members', 0, 'the first so many; 0: all that both have')

Results = dict[str, float]


def found(
    masks: np.ndarray, losses: np.ndarray, correct: np.ndarray, duplicated: np.ndarray
) -> Results:
    """Of one run; `duplicated` by target."""
    summary = estimators.summarize(masks, losses, estimator=estimators.adjusted)
    return {
        'loss on own examples': losses[masks].mean(),
        'loss on others': losses[~masks].mean(),
        'accuracy on own examples': correct[masks].mean(),
        'accuracy on others': correct[~masks].mean(),
        'mean self-influence': summary.self_influence.mean(),
        'median margin': float(np.nanmedian(summary.margin)),
        'AUROC of low margins for near-duplicates': analysis.auroc(
            -np.nan_to_num(summary.margin), duplicated
        ),
    }


def main(arguments: list[str]) -> None:
    if len(arguments) != 3:
        sys.exit('error: give two run directories')
    runs = [store.open_run(directory) for directory in arguments[1:]]
    shown = runs[0].shown
    if shown is None or shown.groups is None:
        sys.exit(f'error: {arguments[1]} keeps no groups of near-duplicates: train it again')
    members = np.intersect1d(runs[0].complete, runs[1].complete)[: _MEMBERS.value or None]
    if not np.array_equal(runs[0].masks[members], runs[1].masks[members]):
        sys.exit('error: the runs have other subsets: give them the same --seed')
    _, group, sizes = np.unique(shown.groups, return_inverse=True, return_counts=True)
    duplicated = sizes[group] > 1
    masks = runs[0].masks[members]
    accuracy = next(name for name in runs[0].manifest.measurements if name in _ACCURACY)
    values = [
        (np.asarray(run.measurement('loss')[members]), run.measurement(accuracy)[members])
        for run in runs
    ]
    compare(masks, values, duplicated, print)


_ACCURACY = ('correct', 'token_accuracy')


def compare(
    masks: np.ndarray,
    values: list[tuple[np.ndarray, np.ndarray]],
    duplicated: np.ndarray,
    write: Callable[[str], object],
) -> None:
    """Writes a line for each result; `values` are losses and accuracies of both runs."""
    whole = [found(masks, losses, correct, duplicated) for losses, correct in values]
    generator = np.random.default_rng(0)
    differences: dict[str, list[float]] = {name: [] for name in whole[0]}
    for _ in range(_DRAWS.value):
        drawn = generator.integers(0, len(masks), len(masks))
        again = [
            found(masks[drawn], losses[drawn], correct[drawn], duplicated)
            for losses, correct in values
        ]
        for name, own in differences.items():
            own.append(again[1][name] - again[0][name])
    write(f'{len(masks)} members\n{"":42}{"float32":>10}{"bfloat16":>10}{"difference":>12}')
    for name, own in differences.items():
        low, high = np.quantile(own, [0.025, 0.975])
        first, second = whole[0][name], whole[1][name]
        write(
            f'{name:42}{first:10.4f}{second:10.4f}{second - first:12.4f} ({low:.4f} .. {high:.4f})'
        )


if __name__ == '__main__':
    app.run(main)
