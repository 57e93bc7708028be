"""Trained member-samples a second: the engine's executors beside plain JAX and PyTorch.

    python -m benchmarks.ensemble_throughput [--cores=2] [--rounds=7]

Needs PyTorch (pip install torch==2.13.0) beside the project. All contenders train the same
network on the same batches, take turns in one run, and are pinned to the same cores.
"""

import dataclasses
import os
import statistics
from functools import partial

from absl import app, flags

from benchmarks import contenders
from benchmarks.workers import compete, ratio

_CORES = flags.DEFINE_integer('cores', 2, 'cores that every contender may use')
_ROUNDS = flags.DEFINE_integer('rounds', 7, 'turns of every contender')
_SECONDS = flags.DEFINE_float('seconds', 3.0, 'length of a turn')
_WIDTH = flags.DEFINE_integer('width', 32, 'channels of the first stage')
_PATCH = flags.DEFINE_integer('patch', 4, 'side of the squares read as channels')
_STAGES = flags.DEFINE_integer('stages', 2, 'stages of one block each')
_BATCH = flags.DEFINE_integer('batch', 48, 'batch size')

_EAGER, _EAGER_EACH = 'PyTorch eager', 'PyTorch eager, one process a core'
_COMPILED, _COMPILED_EACH = 'torch.compile', 'torch.compile, one process a core'
_VMAP = 'torch.func vmap, 4 members'
_PEERS = _EAGER, _EAGER_EACH, _COMPILED, _COMPILED_EACH, _VMAP
_BFLOAT16 = ', bfloat16'
_ROUNDED = 'engine, every core' + _BFLOAT16
_PEAK = 'f32 matmul'


def main(_: list[str]) -> None:
    cores = _CORES.value
    here = sorted(os.sched_getaffinity(0))
    if len(here) < cores:
        raise app.UsageError(f'--cores={cores}, but this process may use only {len(here)}')
    every, each = [set(here[:cores])], [{core} for core in here[:cores]]
    problem = contenders.Problem(_WIDTH.value, (1,) * _STAGES.value, _PATCH.value, _BATCH.value)
    # The engine's own cost is counted over members of the length that the main job trains.
    whole = dataclasses.replace(problem, steps=196)
    executors = {
        'engine, one after another': (1, 1, 2),
        'engine, vmap 4': (1, 4, 1),
        'engine, every core': (cores, 1, 1),
        'engine, every core x vmap 4': (cores, 4, 1),
    }
    running: dict[str, tuple[partial[contenders.Work], list[set[int]]]] = {
        _PEAK: (partial(contenders.matmul_peak), every),
        'plain JAX loop': (partial(contenders.plain_jax, problem), every),
        **{
            name: (partial(contenders.engine, problem, *shape), every)
            for name, shape in executors.items()
            if shape[0] > 1 or 'every core' not in name
        },
        _ROUNDED: (partial(contenders.engine, problem, cores, 1, 1, dtype='bfloat16'), every),
        'bare scan, one core': (partial(contenders.bare_scan, whole, 1), each[:1]),
        'engine, one core': (partial(contenders.engine, whole, 1, 1, 1), each[:1]),
        _EAGER: (partial(contenders.torch_one_by_one, problem, cores), every),
        _COMPILED: (partial(contenders.torch_one_by_one, problem, cores, compiled=True), every),
        _VMAP: (partial(contenders.torch_vmap, problem, cores, 4), every),
    }
    if cores > 1:
        running |= {
            _EAGER_EACH: (partial(contenders.torch_one_by_one, problem, 1), each),
            _COMPILED_EACH: (partial(contenders.torch_one_by_one, problem, 1, compiled=True), each),
        }
    running |= {
        peer + _BFLOAT16: (partial(running[peer][0], dtype='bfloat16'), running[peer][1])
        for peer in _PEERS
        if peer in running
    }
    rates = compete(running, rounds=_ROUNDS.value, seconds=_SECONDS.value)

    flops = problem.training_flops()
    peak = statistics.median(rates[_PEAK])
    print(f'\n{problem}, {cores} cores, {_ROUNDS.value} rounds')
    print(f'{flops / 1e6:.1f} MFLOP a trained sample; matmul peak {peak / 1e9:.0f} GFLOP/s\n')
    print(f'{"":36}{"samples/s":>10}{"of peak":>9}   of PyTorch eager (min .. max)')
    for name, own in rates.items():
        if name != _PEAK:
            low, middle, high = ratio(own, rates[_EAGER])
            speed = statistics.median(own)
            print(
                f'{name:36}{speed:10.0f}{speed * flops / peak:9.1%}'
                f'{middle:10.2f} ({low:.2f} .. {high:.2f})'
            )
    best = max((n for n in executors if n in rates), key=lambda n: statistics.median(rates[n]))
    print(f'\nbest executor: {best}; and {_ROUNDED}')
    for peer in ('plain JAX loop', *_PEERS, *(peer + _BFLOAT16 for peer in _PEERS)):
        if peer in rates:
            ratios = (ratio(rates[own], rates[peer]) for own in (best, _ROUNDED))
            print(f'  over {peer}:', *('{1:.2f} ({0:.2f} .. {2:.2f})'.format(*r) for r in ratios))
    low, middle, high = ratio(rates['bare scan, one core'], rates['engine, one core'])
    print(f'engine over the bare train step: {middle - 1:+.1%} ({low - 1:+.1%} .. {high - 1:+.1%})')


if __name__ == '__main__':
    app.run(main)
