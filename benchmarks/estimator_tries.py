"""What was tried to need fewer models than `adjusted`, on the tensors of a clip-art run.

    python -m benchmarks.estimator_tries RUN_DIRECTORY [loss probability]

As in `estimator_variance`, two disjoint halves of the members give the variance of one estimate
and the spread of its z-scores, off the diagonal. Less variance is no gain where the effects shrink
with it: 'kept' is the mean share of small effects (0.3 standard errors, 20 a target, added to the
losses and, for contrast, subtracted) that comes back, 'net' the variance ratio times its square.
'signal' is the covariance of the two halves over one's variance, as a ratio likewise.
"""

import sys
from functools import partial

import numpy as np

from benchmarks.estimator_attempts import (
    Try,
    as_try,
    cross_fitted,
    cross_validated,
    fixed,
    latent,
    mask_factors,
    strata,
    strong,
    without,
)
from influence_jax import store
from influence_jax.estimators import BUILT_IN, measurements, ridge


def main(directory: str, *names: str) -> None:
    run = store.open_run(directory)
    masks, losses = run.masks[run.complete], run.measurement('loss')[run.complete]
    rng = np.random.default_rng(0)
    order = rng.permutation(len(masks))
    halves = order[::2], order[1::2]
    size = masks.shape[1]
    planted = np.zeros((size, size), np.float32)
    for target in range(size):
        others = rng.choice(size - 1, 20, replace=False)
        planted[others + (others >= target), target] = rng.choice([-1, 1], 20)
    both = {'loss': losses, 'probability': measurements.error_probability(losses)}
    for name in names or both:
        print(f'\n{name:34} ratio      z   kept    net  signal')
        values = both[name] - both[name].mean(axis=0)
        plain = None
        for label, attempt in tries().items():
            found = measured(attempt, masks, values, halves, planted)
            plain = plain or found
            ratio, kept = plain['variance'] / found['variance'], found['kept']
            signal = found['covariance'] / plain['covariance'] * ratio
            print(
                f'{label:34} {ratio:5.2f}  {found["z"]:.3f}  {kept:.3f}  {ratio * kept**2:5.2f}  '
                f'{signal:6.2f}',
                flush=True,
            )


def tries() -> dict[str, Try]:
    return {
        **{estimator.name: as_try(estimator) for estimator in BUILT_IN},
        **{
            f'{count} strongest': without(partial(fixed, count=count, least_z=0))
            for count in (1, 2, 3, 5, 9)
        },
        '|z| > 4': without(lambda m, x: fixed(m, x, 6, 4)),
        '|z| > 4, divided': without(lambda m, x: fixed(m, x, 6, 4), divided=True),
        '|z| > 4, two folds': lambda m, x: cross_fitted(m, x, folds=2, order=0),
        '|z| > 4, five folds': lambda m, x: cross_fitted(m, x, folds=5, order=0),
        'own products, five folds': lambda m, x: cross_fitted(m, x, folds=5, order=1),
        'own products': without(lambda m, x: fixed(m, x, 6, 4, order=1), divided=True),
        'all products of two': without(lambda m, x: fixed(m, x, 6, 4, order=2), divided=True),
        "adjusted's choice, own products": without(cross_validated, divided=True),
        'own products, then ridge': without(
            lambda m, x: fixed(m, x, 6, 4, order=1), rest=as_try(ridge)
        ),
        **{
            f'own products, {count} latent': without(
                partial(latent, count=count, only_out=False), divided=True
            )
            for count in (1, 4, 16)
        },
        **{
            f'own products, {count} latent x out': without(
                partial(latent, count=count, only_out=True), divided=True
            )
            for count in (1, 4, 16)
        },
        **{
            f'own products, {count} mask factors': partial(mask_factors, count=count)
            for count in (1, 4)
        },
        'target out and in: mean': lambda m, x: strata(m, x, inverse=False),
        'target out and in: least variance': lambda m, x: strata(m, x, inverse=True),
    }


def measured(
    attempt: Try,
    masks: np.ndarray,
    losses: np.ndarray,
    halves: tuple[np.ndarray, np.ndarray],
    planted: np.ndarray,
) -> dict[str, float]:
    off = ~np.eye(masks.shape[1], dtype=bool)
    (a, a_error), (b, b_error) = (attempt(masks[half], losses[half]) for half in halves)
    difference = (a - b)[off]
    half = masks[halves[0]]
    spread = strong(half, losses[halves[0]], np.arange(masks.shape[1])[:, None]).residual.std(0)
    effects = planted * (0.3 * 2 / np.sqrt(len(half)) * spread).astype(np.float32)
    shift = (half - half.mean(axis=0, dtype=np.float32)) @ effects
    more, less = (attempt(half, losses[halves[0]] + sign * shift)[0] for sign in (-1, 1))
    return {
        'variance': difference.var() / 2,
        'covariance': np.cov(a[off], b[off])[0, 1],
        'z': (difference / np.hypot(a_error, b_error)[off]).std(),
        'kept': ((more - less) * effects).sum() / (2 * np.square(effects).sum()),
    }


if __name__ == '__main__':
    main(*sys.argv[1:])
