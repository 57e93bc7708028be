"""LoRA members beside fully fine-tuned ones of one base: speed, and memory a member.

    python -m benchmarks.language_adapters [--cores=2] [--width=768] [--layers=4] [--rank=8]

All start from one base (random: its values change neither) and train on the same records
(embedded WordNet glosses), in turns in one run. Memory is what XLA plans for the whole compiled
chunk; what one more vmapped member adds is the difference of two chunks.
"""

import functools
import os
import statistics
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks.language_contenders import Problem, Work, jax_parts
from benchmarks.workers import compete, ratio

_CORES = flags.DEFINE_integer('cores', 2, 'cores that every contender may use')
_ROUNDS = flags.DEFINE_integer('rounds', 5, 'turns of every contender')
_SECONDS = flags.DEFINE_float('seconds', 5.0, 'length of a turn')
_WIDTH = flags.DEFINE_integer('width', 768, 'width of the base')
_LAYERS = flags.DEFINE_integer('layers', 4, 'layers of the base')
_VOCABULARY = flags.DEFINE_integer('vocabulary', 1000, 'tokens of the vocabulary')
_RANK = flags.DEFINE_integer('rank', 8, 'rank of the adapters')
_BATCH = flags.DEFINE_integer('batch', 16, 'records of a batch')
_WIDE = 4


def members(problem: Problem, devices: int, width: int, rank: int) -> tuple[Any, np.ndarray, int]:
    """Returns the chunk, the masks of its members, and the tokens that it trains."""
    import jax

    jax.config.update('jax_num_cpu_devices', devices)
    from benchmarks.chunk import Chunk
    from influence_jax.models.lora import LoRA
    from influence_jax.tasks.language_modeling import AdapterModeling
    from influence_jax.training import Executor, MeshShape, WarmStart

    program, examples, lengths = jax_parts(problem, packed=True)
    modeling = program.task
    base = jax.jit(modeling.init)(key=jax.random.key(3))
    based = AdapterModeling(modeling, LoRA(rank)) if rank else WarmStart(modeling)
    chunk = Chunk(
        program._replace(task=based),
        Executor(MeshShape(devices, vmapped=width)),
        examples=examples,
        targets=jax.tree.map(lambda leaf: leaf[:1], examples),
        base=base,
    )
    masks = np.random.default_rng(1).random((chunk.size, problem.records)) < 0.5
    tokens = round(chunk.size * problem.steps * problem.batch * (lengths - 1).mean())
    return chunk, masks, tokens


def trained(problem: Problem, devices: int, width: int, rank: int) -> Work:
    """A contender of `workers.compete`."""
    import jax

    chunk, masks, tokens = members(problem, devices, width, rank)

    def work() -> int:
        jax.block_until_ready(chunk.train(np.arange(chunk.size), masks))
        return tokens

    return work


def planned_bytes(problem: Problem, width: int, rank: int) -> int:
    """What XLA plans for a chunk on one device."""
    chunk, masks, _ = members(problem, 1, width, rank)
    return chunk.planned_bytes(np.arange(chunk.size), masks)


def main(_: list[str]) -> None:
    cores, rank = _CORES.value, _RANK.value
    own = [set(sorted(os.sched_getaffinity(0))[:cores])]
    problem = Problem(_WIDTH.value, _LAYERS.value, _VOCABULARY.value, _BATCH.value, steps=4)
    kinds = {'full fine-tuning': 0, f'LoRA of rank {rank}': rank}
    running = {
        f'{name}, {width} at a time': (
            functools.partial(trained, problem, cores, width, kind),
            own,
        )
        for name, kind in kinds.items()
        for width in (1, _WIDE)
    }
    rates = compete(running, rounds=_ROUNDS.value, seconds=_SECONDS.value)
    reference = next(iter(rates.values()))
    print(f'\n{problem}, {cores} cores, {_ROUNDS.value} rounds\n')
    print(f'{"":36}{"tokens/s":>10}   of full fine-tuning, one at a time (min .. max)')
    for name, values in rates.items():
        low, middle, high = ratio(values, reference)
        print(f'{name:36}{statistics.median(values):10.0f}{middle:10.2f} ({low:.2f} .. {high:.2f})')
    print(f'\n{"":36}{"one member":>14}{f"{_WIDE} members":>14}{"one more":>14}')
    for name, kind in kinds.items():
        few, many = (planned_bytes(problem, width, kind) for width in (1, _WIDE))
        more = (many - few) / (_WIDE - 1)
        print(f'{name:36}' + ''.join(f'{size / 2**20:10.1f} MiB' for size in (few, many, more)))


if __name__ == '__main__':
    app.run(main)
