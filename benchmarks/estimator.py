"""Time and memory of the summaries beside numpy's matrix product of the same sizes.

    python -m benchmarks.estimator [--members=1000] [--examples=20000] [--large=50000]

One process, all cores, everything compiled before it is timed; ratios are of medians over
alternating repetitions. Losses are synthetic: each target is influenced by itself and two others.
Then, in processes of their own, the peak memory of a large summary.
"""

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from absl import app, flags

from influence_jax.estimators import adjusted, difference_in_means, summarize, with_scores

_MEMBERS = flags.DEFINE_integer('members', 1000, 'M')
_EXAMPLES = flags.DEFINE_integer('examples', 20_000, 'N = T of the timings')
_LARGE = flags.DEFINE_integer(
    'large', 50_000, 'N = T of the summary whose memory is taken; 0: none'
)
_REPEATS = flags.DEFINE_integer('repeats', 3, 'of each timing')
_ASSISTED = flags.DEFINE_bool('assisted', False, 'also time `assisted` by one matrix of scores')
_MEMORY_ONLY = flags.DEFINE_bool('memory_only', False, 'print the peak memory of one summary')
_CHECKED_TARGETS = 200
_PEER = 'numpy product'


def ensemble(members: int, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks [M N] and losses [M N]."""
    generator = np.random.default_rng(0)
    masks = np.empty((members, examples), bool)
    losses = np.empty((members, examples), np.float32)
    for member in range(members):  # row by row: the peak memory is to be that of the summary
        masks[member] = generator.random(examples, np.float32) < 0.5
        inside = masks[member]
        losses[member] = generator.gamma(1.5, size=examples)
        losses[member] -= inside + 0.5 * np.roll(inside, 1) - 0.4 * np.roll(inside, 2)
    return masks, losses


def seconds(function: Callable[[], object]) -> float:
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def timings(masks: np.ndarray, losses: np.ndarray) -> None:
    by_example = np.ascontiguousarray(masks.T.astype(np.float32))  # the layout numpy likes best
    contenders = {
        _PEER: lambda: by_example @ losses,
        'summarize': lambda: summarize(masks, losses),
        'summarize, adjusted': lambda: summarize(masks, losses, estimator=adjusted),
    }
    few = slice(0, 1024)  # targets: enough to compile everything
    for estimator in (difference_in_means, adjusted):
        summarize(masks, losses[:, few], estimator=estimator)
    if _ASSISTED.value:
        contenders |= assisted(masks, losses, few)
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(_REPEATS.value):
        for name, function in contenders.items():
            taken[name].append(seconds(function))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    for name, median in medians.items():
        print(
            f'{name:23} {median:7.2f} s  {median / medians[_PEER]:5.2f} of numpy, '
            f'{median / medians["summarize"]:5.2f} of summarize  ({_listed(taken[name])})'
        )


def assisted(masks: np.ndarray, losses: np.ndarray, few: slice) -> dict[str, Callable[[], object]]:
    """By scores of noise, of which nothing is learnt, and by those that know the influences."""
    examples, targets = masks.shape[1], losses.shape[1]
    noise = np.random.default_rng(1).standard_normal((examples, targets), np.float32)
    of_target = np.arange(targets)
    useful = 0.3 * noise
    useful[(of_target - 1) % examples, of_target] += 0.5
    useful[(of_target - 2) % examples, of_target] -= 0.4

    def summarized(scores: np.ndarray, targets: slice = slice(None)) -> Callable[[], object]:
        estimator = with_scores(scores[:, targets])
        return lambda: summarize(masks, losses[:, targets], estimator=estimator)

    for scores in (noise, useful):
        summarized(scores, few)()
    return {
        'summarize, assisted': summarized(noise),
        'the same, useful scores': summarized(useful),
    }


def agreement(masks: np.ndarray, losses: np.ndarray) -> None:
    """Every kind of answer against float64, in standard errors."""
    targets = np.arange(_CHECKED_TARGETS)
    found = summarize(masks, losses)
    x = losses[:, targets].astype(np.float64)
    included = masks.sum(axis=0)[:, None]
    total_in = masks.T.astype(np.float64) @ x
    squares_in = masks.T.astype(np.float64) @ x**2
    outside = len(masks) - included
    total_out, squares_out = x.sum(axis=0) - total_in, (x**2).sum(axis=0) - squares_in
    values = total_out / outside - total_in / included
    errors = np.sqrt(
        (squares_in - total_in**2 / included) / (included - 1) / included
        + (squares_out - total_out**2 / outside) / (outside - 1) / outside
    )
    order = np.argsort(-values, axis=0)[: found.top_values.shape[1]].T
    unit = found.null_standard_error[targets][:, None]
    quantiles = np.quantile(values, found.quantile_levels.astype(np.float64), axis=0).T
    for name, mine, exact in (
        ('top values', found.top_values[targets], values[order, targets[:, None]]),
        ('top errors', found.top_standard_errors[targets], errors[order, targets[:, None]]),
        ('quantiles', found.quantiles[targets], quantiles),
        ('standard deviations', found.standard_deviation[targets, None], values.std(0)[:, None]),
    ):
        print(f'{name:22} differ by at most {np.abs((mine - exact) / unit).max():.1e} errors')
    same = (found.top_examples[targets] == order).all()
    print(f'top examples are the same: {same}; {len(found.pairs.values):,} significant pairs')


def _listed(times: list[float]) -> str:
    return ', '.join(f'{value:.2f}' for value in times)


def main(arguments: list[str]) -> None:
    del arguments
    if _MEMORY_ONLY.value:
        masks, losses = ensemble(_MEMBERS.value, _EXAMPLES.value)
        taken = seconds(lambda: summarize(masks, losses))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f'N = T = {_EXAMPLES.value:,}: {taken:.1f} s, peak memory {peak:.2f} GiB')
        return
    masks, losses = ensemble(_MEMBERS.value, _EXAMPLES.value)
    print(f'M = {_MEMBERS.value:,}, N = T = {_EXAMPLES.value:,}')
    timings(masks, losses)
    agreement(masks, losses)
    if _LARGE.value:
        command = [sys.executable, '-m', 'benchmarks.estimator', '--memory_only']
        command += [f'--members={_MEMBERS.value}', f'--examples={_LARGE.value}']
        subprocess.run(command, check=True)


if __name__ == '__main__':
    app.run(main)
