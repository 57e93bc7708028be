"""Where the noise of an influence comes from: random seeds or random subsets, and at which rate.

    python -m benchmarks.noise_sources [MASKS]

Trains the members of the default clip-art job on MASKS (64) subsets: each with two seeds of its
own and once with one seed common to all, then on as many subsets of other rates with own seeds.
Printed are means over targets. 'noise' is M times the squared standard error of the influence of
any one example, its own inclusion having been taken out: v_in / p + v_out / (1 - p), where v is
the variance within the members that have, or lack, the target itself.
"""

import sys

import numpy as np

from benchmarks.chunk import Chunk
from experiments.settings import NetworkSettings
from influence_jax import data, training
from influence_jax.training import Recipe

_OTHER_RATES = (0.3, 0.7)


def main(count: int) -> None:
    dataset = data.load('clipart')
    rng = np.random.default_rng(0)
    shape = count, dataset.num_examples
    masks = rng.random(shape) < 0.5
    own, repeated = np.arange(count), np.arange(count) + count
    first, second = (_losses(dataset, masks, seeds) for seeds in (own, repeated))
    common = _losses(dataset, masks, np.zeros(count, int))
    for name, change in _MEASUREMENTS.items():
        a, b, c = change(first), change(second), change(common)
        every = (_noise(masks, a) + _noise(masks, b)) / 2
        seeds = _noise(masks, (a - b) / 2**0.5, centred=False)
        print(
            f'{name:12} noise {every:.4f}, of which seeds alone {seeds:.4f} ({seeds / every:.1%}); '
            f'one common seed {_noise(masks, c):.4f} ({_noise(masks, c) / every:.1%}), '
            f'two seeds averaged {_noise(masks, (a + b) / 2):.4f}'
        )
    rates = {0.5: (masks, first)}
    for rate in _OTHER_RATES:
        others = rng.random(shape) < rate
        rates[rate] = others, _losses(dataset, others, own)
    for rate, (drawn, losses) in sorted(rates.items()):
        for name, change in _MEASUREMENTS.items():
            values = change(losses)
            effect = _mean_by_group(~drawn, values) - _mean_by_group(drawn, values)
            print(
                f'{name:12} rate {rate}: noise {_noise(drawn, values):.4f}, '
                f'mean self-influence {effect.mean():.4f}'
            )


_MEASUREMENTS = {'loss': lambda loss: loss, 'probability': lambda loss: -np.exp(-loss)}


def _losses(dataset: data.Dataset, masks: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    recipe = Recipe()
    problem = NetworkSettings().task(dataset).bind(dataset)
    steps = recipe.steps(masks.mean() * dataset.num_examples)
    program = training.Program(
        task=problem.task,
        optimizer=recipe.optimizer(steps),
        steps=steps,
        batch_size=recipe.batch_size,
        measure_batch=512,
        smallest_subset=int(masks.sum(axis=1).min()),
    )
    # A member's number is its seed; numbers may repeat here, which `training.train` has no use for.
    chunk = Chunk(
        program, training.sequential(1), examples=problem.examples, targets=problem.targets
    )
    parts = []
    for start in range(0, len(masks), chunk.size):
        rows = np.arange(start, start + chunk.size).clip(max=len(masks) - 1)
        losses = np.asarray(chunk.train(seeds[rows], masks[rows])['loss'], np.float64)
        parts.append(losses[: len(masks) - start])
    return np.concatenate(parts)


def _mean_by_group(masks: np.ndarray, values: np.ndarray) -> np.ndarray:
    return (masks * values).sum(axis=0) / masks.sum(axis=0)


def _noise(masks: np.ndarray, values: np.ndarray, *, centred: bool = True) -> float:
    total = 0.0
    for group in (masks, ~masks):
        size = group.sum(axis=0)
        if centred:
            squares = np.square(values - _mean_by_group(group, values))
            variance = (group * squares).sum(axis=0) / (size - 1)
        else:
            variance = _mean_by_group(group, np.square(values))
        total += (variance / (size / len(masks))).mean()
    return total


if __name__ == '__main__':
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 64)
