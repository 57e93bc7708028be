"""Trained member-tokens a second of small language models: the engine beside PyTorch.

    python -m benchmarks.language_throughput [--cores=2] [--rounds=5]

Needs PyTorch (pip install torch==2.13.0) beside the project. All contenders train the same
network on the same records (embedded WordNet glosses), take turns in one run, and are pinned to
the same cores. A token counts if it is predicted; padding does not.
"""

import os
import statistics
from functools import partial

from absl import app, flags

from benchmarks import language_contenders as contenders
from benchmarks.contenders import matmul_peak
from benchmarks.workers import compete, ratio

_CORES = flags.DEFINE_integer('cores', 2, 'cores that every contender may use')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'turns of every contender')
_SECONDS = flags.DEFINE_float('seconds', 3.0, 'length of a turn')
_WIDTH = flags.DEFINE_integer('width', 64, 'width of the network')
_LAYERS = flags.DEFINE_integer('layers', 1, 'layers of the network')
_VOCABULARY = flags.DEFINE_integer('vocabulary', 1000, 'tokens of the vocabulary')

_EAGER, _EAGER_EACH = 'PyTorch eager', 'PyTorch eager, one process a core'
_COMPILED, _COMPILED_EACH = 'torch.compile', 'torch.compile, one process a core'
_VMAP = 'torch.func vmap, 4 members'
_IN_BFLOAT16 = _EAGER, _EAGER_EACH, _COMPILED, _COMPILED_EACH  # with vmap PyTorch cannot
_PEERS = *_IN_BFLOAT16, _VMAP
_BFLOAT16 = ', bfloat16'
_PEAK = 'f32 matmul'
_ENGINE = 'engine, every core'


def main(_: list[str]) -> None:
    cores = _CORES.value
    here = sorted(os.sched_getaffinity(0))
    if len(here) < cores:
        raise app.UsageError(f'--cores={cores}, but this process may use only {len(here)}')
    every, each = [set(here[:cores])], [{core} for core in here[:cores]]
    problem = contenders.Problem(_WIDTH.value, _LAYERS.value, _VOCABULARY.value)
    engine = partial(contenders.engine, problem, cores)
    running: dict[str, tuple[partial[contenders.Work], list[set[int]]]] = {
        _PEAK: (partial(matmul_peak), every),
        _ENGINE: (partial(engine, 1, 1), every),
        'engine, every core, padded': (
            partial(engine, 1, 1, packed=False),
            every,
        ),
        'engine, every core x vmap 4': (partial(engine, 4, 1), every),
        'plain JAX loop, padded': (partial(contenders.plain_jax, problem), every),
        _EAGER: (partial(contenders.torch_one_by_one, problem, cores), every),
        _EAGER_EACH: (partial(contenders.torch_one_by_one, problem, 1), each),
        _COMPILED: (partial(contenders.torch_one_by_one, problem, cores, compiled=True), every),
        _COMPILED_EACH: (partial(contenders.torch_one_by_one, problem, 1, compiled=True), each),
        _VMAP: (partial(contenders.torch_vmap, problem, cores, 4), every),
    }
    running |= {
        peer + _BFLOAT16: (partial(running[peer][0], dtype='bfloat16'), running[peer][1])
        for peer in _IN_BFLOAT16
    }
    rates = compete(running, rounds=_ROUNDS.value, seconds=_SECONDS.value)

    flops = problem.flops_of_token()
    peak = statistics.median(rates[_PEAK])
    print(f'\n{problem}, {cores} cores, {_ROUNDS.value} rounds')
    print(f'{flops / 1e6:.2f} MFLOP a trained token; matmul peak {peak / 1e9:.0f} GFLOP/s\n')
    print(f'{"":36}{"tokens/s":>10}{"of peak":>9}   of PyTorch eager (min .. max)')
    for name, own in rates.items():
        if name != _PEAK:
            low, middle, high = ratio(own, rates[_EAGER])
            speed = statistics.median(own)
            print(
                f'{name:36}{speed:10.0f}{speed * flops / peak:9.1%}'
                f'{middle:10.2f} ({low:.2f} .. {high:.2f})'
            )
    print()
    for peer in (*_PEERS, *(peer + _BFLOAT16 for peer in _IN_BFLOAT16)):
        low, middle, high = ratio(rates[_ENGINE], rates[peer])
        print(f'{_ENGINE} over {peer}: {middle:.2f} ({low:.2f} .. {high:.2f})')


if __name__ == '__main__':
    app.run(main)
