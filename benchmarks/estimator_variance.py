"""Variance of the adjusted estimate against the difference of means, on the tensors of a run.

    python -m benchmarks.estimator_variance RUN_DIRECTORY

Both estimate from two disjoint halves of the members: half the variance of the difference is the
variance of one, and the difference over its standard error must have standard deviation 1.
"""

import sys

import numpy as np

from influence_jax import store
from influence_jax.estimators import adjusted, difference_in_means


def main(directory: str) -> None:
    run = store.open_run(directory)
    masks, losses = run.masks[run.complete], run.measurement('loss')[run.complete]
    order = np.random.default_rng(0).permutation(len(masks))
    halves = order[::2], order[1::2]
    off = ~np.eye(masks.shape[1], dtype=bool)
    print(f'{len(halves[0])} members a half, entries off the diagonal')
    for name, values in {'loss': losses, 'probability': -np.exp(-losses)}.items():
        spread = {}
        for estimator in (difference_in_means, adjusted):
            a, b = (estimator(masks[half], values[half]) for half in halves)
            difference = (a.values - b.values)[off]
            spread[estimator] = difference.std() / np.sqrt(2)
            error = np.hypot(a.standard_error, b.standard_error)[off]
            print(
                f'{name:12} {estimator.__name__:20} standard deviation {spread[estimator]:.4f}, '
                f'z of the difference {(difference / error).std():.3f}'
            )
        ratio = (spread[difference_in_means] / spread[adjusted]) ** 2
        print(f'{name:12} variance ratio {ratio:.2f}')


if __name__ == '__main__':
    main(sys.argv[1])
