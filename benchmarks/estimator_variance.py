"""Variance of every estimator against the difference of means, on the tensors of an image run.

    python -m benchmarks.estimator_variance RUN_DIRECTORY [difference adjusted ridge lasso]

All estimate from two disjoint halves of the members: half the variance of their difference is the
variance of one, and the difference over its standard error must have standard deviation 1. So must
the z-scores, by all members, of far pairs: of different classes, where next to nothing is expected.
"""

import sys
import time

import numpy as np

from influence_jax import data, store
from influence_jax.estimators import BUILT_IN, by_name, measurements, z_scores


def main(directory: str, *names: str) -> None:
    chosen = [by_name(name) for name in names] or list(BUILT_IN)
    run = store.open_run(directory)
    masks, losses = run.masks[run.complete], run.measurement('loss')[run.complete]
    labels = data.load('clipart').array('label')
    far = labels[:, None] != labels[None, :]
    order = np.random.default_rng(0).permutation(len(masks))
    halves = order[::2], order[1::2]
    off = ~np.eye(masks.shape[1], dtype=bool)
    print(f'{len(halves[0])} members a half; entries off the diagonal')
    for name, values in {
        'loss': losses,
        'loss, at most 4': measurements.clipped_loss(losses, largest=4.0),
        'log loss': measurements.log_loss(losses),
        'probability': measurements.error_probability(losses),
        'logit gap': measurements.negated(run.measurement('logit_gap')[run.complete]),
        'correctness': measurements.negated(run.measurement('correct')[run.complete]),
    }.items():
        plain = 0.0
        for estimator in chosen:
            begun = time.perf_counter()
            a, b = (estimator(masks[half], values[half]) for half in halves)
            taken = (time.perf_counter() - begun) / 2
            difference = (a.values - b.values)[off]
            error = np.hypot(a.standard_error, b.standard_error)[off]
            known = error > 0  # correctness may be the same in all members
            spread = float(difference.std() / np.sqrt(2))
            plain = plain or spread
            z = z_scores(*estimator(masks, values))[far]
            print(
                f'{name:16} {estimator.name:11} standard deviation {spread:.4f}, variance ratio '
                f'{(plain / spread) ** 2:5.2f}; z of the difference '
                f'{(difference[known] / error[known]).std():.3f}, z of far pairs '
                f'{z[np.isfinite(z)].std():.3f}; {taken:.0f} s a half',
                flush=True,
            )


if __name__ == '__main__':
    main(*sys.argv[1:])
