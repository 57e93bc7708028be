"""Members on one accelerator beside PyTorch on the same: images, language models, GPT-Neo.

    python -m benchmarks.accelerator [--parts=images,language,gpt_neo,attribution]

For a machine with a GPU, PyTorch beside the project. Every contender has a process of its own; all
prepare at the same time and then take turns. Peak memory is what jax has allocated. Set
XLA_PYTHON_CLIENT_PREALLOCATE=false, since they share the card's memory.
"""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from absl import app, flags

from benchmarks import contenders, language_contenders
from benchmarks.workers import Prepare, compete, ratio

_PARTS = flags.DEFINE_list('parts', ['images', 'language', 'gpt_neo', 'attribution'], 'which')
_ROUNDS = flags.DEFINE_integer('rounds', 3, 'turns of every contender')
_SECONDS = flags.DEFINE_float('seconds', 1.5, 'length of a turn')
_WIDTHS = flags.DEFINE_list('widths', ['1', '16', '64', '256'], 'members at a time')
_LARGE = flags.DEFINE_list('large', ['125M:16:512', '1.3B:8:512'], 'GPT-Neo: size:batch:tokens')
_REMAT = flags.DEFINE_bool('remat', False, 'GPT-Neo: layers are computed again for the gradient')
_PEAK = flags.DEFINE_float('peak', 989.0, 'TFLOP/s of bfloat16 products, as its maker has it')

_SIZES = {'125M': (768, 12, 12), '1.3B': (2048, 24, 16), 'tiny': (64, 2, 4)}
_VOCABULARY = 50257
_FLOAT32, _BFLOAT16 = 'float32', 'bfloat16'


def with_memory(prepare: Callable[[], contenders.Work]) -> contenders.Work:
    """Prints what jax has allocated at most, once prepared."""
    work = prepare()
    start = time.perf_counter()
    work()
    import jax

    peak = (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use', 0)
    name = getattr(prepare, 'keywords', {}) | {'arguments': getattr(prepare, 'args', ())[1:]}
    first = time.perf_counter() - start
    print(f'  {name}: {peak / 2**30:.2f} GiB, first call {first:.1f} s', flush=True)
    return work


@dataclasses.dataclass(frozen=True)
class Large:
    """Fine-tuning of a whole GPT-Neo on random tokens.

    Attributes:
      size: of `_SIZES`.
      batch: sequences.
      tokens: of each.
      remat: whether this project's member computes layers again for the gradient.
      steps: at once.
    """

    size: str
    batch: int
    tokens: int
    remat: bool = False
    steps: int = 8

    @property
    def is_large(self) -> bool:
        """Whether one contender of PyTorch is enough."""
        return self.size == '1.3B'

    @property
    def flops_of_token(self) -> float:
        """As is usual: six for every weight of a product, and attention over all pairs."""
        hidden, layers, _ = _SIZES[self.size]
        return 6 * (12 * layers * hidden**2 + hidden * _VOCABULARY) + (
            12 * layers * hidden * self.tokens
        )

    def rows(self) -> np.ndarray:
        """Token ids [N S + 1]."""
        rng = np.random.default_rng(0)
        return rng.integers(0, _VOCABULARY, (64, self.tokens + 1), np.int32)


def gpt_neo(problem: Large) -> contenders.Work:
    """This project's: one member on a mesh of one device, step by step."""
    import jax
    import jax.numpy as jnp

    from benchmarks.chunk import Chunk
    from influence_jax import training
    from influence_jax.models.gpt_neo import GPTNeoConfig
    from influence_jax.models.gpt_neo.network import SHARDING_RULES
    from influence_jax.tasks.language_modeling import LanguageModeling, TokenBatch

    hidden, layers, heads = _SIZES[problem.size]
    rows = problem.rows()
    config = GPTNeoConfig(
        _VOCABULARY,
        hidden=hidden,
        layers=layers,
        heads=heads,
        max_positions=problem.tokens + 1,
        compute_dtype=jnp.bfloat16,
        remat=problem.remat,
    )
    program = training.Program(
        task=LanguageModeling(config),
        optimizer=training.Recipe(learning_rate=1e-4).optimizer(10_000),
        steps=1,
        batch_size=problem.batch,
        measure_batch=1,
        smallest_subset=problem.batch,
    )
    lengths = jnp.full(len(rows), problem.tokens + 1, jnp.int32)
    batch = TokenBatch(jnp.asarray(rows), lengths, jnp.zeros_like(lengths))
    executor = training.sharded(training.MeshShape(1, 1, 1), SHARDING_RULES)
    target = jax.tree.map(lambda leaf: leaf[:1], batch)
    chunk = Chunk(program, executor, examples=batch, targets=target)
    step = chunk.stepping(np.ones((1, len(rows)), bool))

    def work() -> int:
        step(problem.steps)
        return problem.steps * problem.batch * problem.tokens

    return work


def torch_gpt_neo(problem: Large, *, compiled: bool) -> contenders.Work:
    """PyTorch's, bfloat16 autocast."""
    import torch

    from benchmarks import torch_gpt_neo as peer
    from benchmarks import torch_peer

    device = contenders.torch_device(16)
    hidden, layers, heads = _SIZES[problem.size]
    with device:
        network = peer.GPTNeo(_VOCABULARY, hidden, layers, heads, 256, problem.tokens + 1)
    optimizer = torch_peer.adamw(list(network.parameters()))
    rows = torch.from_numpy(problem.rows()).long().to(device)
    own = torch.full((problem.batch,), problem.tokens + 1, device=device)
    losses = torch.compile(peer.losses) if compiled else peer.losses

    def work() -> int:
        for number in range(problem.steps):
            first = number * problem.batch % (len(rows) - problem.batch + 1)
            optimizer.zero_grad(set_to_none=True)
            with contenders.torch_rounded(device, _BFLOAT16):
                loss = losses(network, rows[first : first + problem.batch], own).mean()
            loss.backward()
            optimizer.step()
        contenders.torch_done(device)
        return problem.steps * problem.batch * problem.tokens

    return work


def attribution() -> None:
    """Seconds of methods over all clip-art images of one model, with and without compilation."""
    import jax

    from influence_jax import attribution as methods
    from influence_jax.data import Dataset
    from influence_jax.models import ResNetConfig
    from influence_jax.tasks import Classification
    from influence_jax.tasks.images import standardized

    images, labels = contenders.Problem().data()
    config = ResNetConfig(contenders.CLASSES, 32, (1, 1), 4)
    bound = Classification(config, prepare=standardized).bind(
        Dataset({'image': images, 'label': labels})
    )
    task: Any = bound.task
    model = methods.Model(task, jax.jit(lambda key: task.init(key=key))(jax.random.key(0)))
    records = methods.Records(bound.examples, bound.examples)
    roomy = dataclasses.replace(records, batch=256, memory=2**34)
    for method in (
        methods.Gradients(cosine=True),
        methods.KFAC(),
        methods.Compressed(),
        methods.TRAK(512),
    ):
        times = []
        for _ in range(3):
            start = time.perf_counter()
            scores = method([model], roomy)
            np.asarray(scores.read(np.arange(scores.targets)))
            times.append(time.perf_counter() - start)
        print(
            f'  {method.method.name:24} first {times[0]:6.2f} s, then {min(times[1:]):6.2f} s',
            flush=True,
        )


def show(title: str, rates: dict[str, list[float]], unit: str, flops: float) -> None:
    """Prints a table, beside the fastest of PyTorch."""
    theirs = [name for name in rates if 'PyTorch' in name]
    best = max(theirs, key=lambda name: statistics.median(rates[name]), default=next(iter(rates)))
    print(f'\n{title}; ratios to {best}\n{"":44}{unit:>14}{"TFLOP/s":>10}   ratio (min .. max)')
    for name, own in rates.items():
        low, middle, high = ratio(own, rates[best])
        rate = statistics.median(own)
        print(
            f'{name:44}{rate:14,.0f}{rate * flops / 1e12:10.1f}'
            f'   {middle:.2f} ({low:.2f} .. {high:.2f})',
            flush=True,
        )


def main(_: list[str]) -> None:
    cores = [set(os.sched_getaffinity(0))]
    threads, widths = len(cores[0]), [int(width) for width in _WIDTHS.value]

    def raced(running: dict[str, Prepare]) -> dict[str, list[float]]:
        return compete(
            {name: (prepare, cores) for name, prepare in running.items()},
            rounds=_ROUNDS.value,
            seconds=_SECONDS.value,
            together=True,
        )

    for part, kind in (('images', contenders), ('language', language_contenders)):
        if part not in _PARTS.value:
            continue
        problem: Any = kind.Problem(steps=24)
        running: dict[str, Prepare] = {}
        for width in widths:
            for dtype in (_FLOAT32, _BFLOAT16) if width == 64 else (_BFLOAT16,):
                engine = partial(kind.engine, problem, 1, width, 1, dtype=dtype)
                running[f'engine, {width} at a time, {dtype}'] = partial(with_memory, engine)
        one, many = kind.torch_one_by_one, kind.torch_vmap
        running |= {
            'PyTorch eager': partial(one, problem, threads),
            'PyTorch compiled (CUDA graphs)': partial(one, problem, threads, compiled=True),
            'PyTorch torch.func vmap 64': partial(many, problem, threads, 64),
            'PyTorch torch.func vmap 64, bfloat16': partial(
                many, problem, threads, 64, dtype=_BFLOAT16
            ),
        }
        rates = raced(running)
        unit, flops = (
            ('samples/s', problem.training_flops())
            if part == 'images'
            else ('tokens/s', problem.flops_of_token())
        )
        show(f'{part}: {problem}', rates, unit, flops)
    if 'gpt_neo' in _PARTS.value:
        for described in _LARGE.value:
            size, batch, tokens = described.split(':')
            large = Large(size, int(batch), int(tokens), _REMAT.value)
            contestants: dict[str, Prepare] = {
                'one member on a mesh, bfloat16': partial(with_memory, partial(gpt_neo, large)),
                'PyTorch compiled, bfloat16': partial(torch_gpt_neo, large, compiled=True),
            }
            if not large.is_large:
                contestants['PyTorch eager, bfloat16'] = partial(
                    torch_gpt_neo, large, compiled=False
                )
            found = raced(contestants)
            show(
                f'GPT-Neo: {large}; peak {_PEAK.value:.0f}', found, 'tokens/s', large.flops_of_token
            )
    if 'attribution' in _PARTS.value:
        print('\nattribution, 1,567 images, one model')
        attribution()


if __name__ == '__main__':
    app.run(main)
