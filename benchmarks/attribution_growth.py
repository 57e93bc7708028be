"""How the cost of attribution grows: with examples, targets and parameters, and to GPT-Neo 125M.

    python -m benchmarks.attribution_growth [--width=32]

Measured: seconds of scores by one untrained network on clip art, from parameters to scores, the
second of two calls, one size varied at a time; cost does not depend on what was learnt. On paper:
GPT-Neo 125M, whose weights are never made, on 1,500 records of 100 tokens, by `attribution.cost`.
"""

import dataclasses
import time
from collections.abc import Iterator
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from influence_jax import attribution, data, tasks
from influence_jax.attribution import KFAC, TRAK, Attribution, Compressed, Gradients, Model, Records
from influence_jax.models import ResNetConfig
from influence_jax.models.gpt_neo import GPTNeoConfig, abstract
from influence_jax.tasks.images import standardized
from influence_jax.tasks.language_modeling import LanguageModeling, TokenBatch
from influence_jax.types import Task

_WIDTH = flags.DEFINE_integer('width', 32, 'channels of the first stage, where not varied.')

METHODS: tuple[Attribution, ...] = (Gradients(cosine=True), KFAC(), TRAK(256), Compressed())
SIZES = (392, 784, 1567)
WIDTHS = (16, 32, 64)
GIB = 2**30

GPT_NEO_125M = GPTNeoConfig(
    vocab_size=50257, hidden=768, layers=12, heads=12, max_positions=2048, window=256
)
RECORDS, TOKENS = 1500, 100


def clipart(width: int, examples: int, targets: int) -> tuple[Model, Records]:
    """A fresh network, and the first records."""
    dataset = data.load('clipart')
    classes = int(dataset.array('label').max()) + 1
    config = ResNetConfig(classes, width, (1, 1), 4)
    problem = tasks.bind(
        tasks.Classification(config, inputs='image', prepare=standardized), dataset
    )
    some, others = (
        jax.tree.map(lambda leaf, count=count: leaf[:count], problem.examples)
        for count in (examples, targets)
    )
    task = cast(Task, problem.task)
    return Model(task, task.init(key=jax.random.key(0))), Records(some, others, memory=8 * GIB)


def seconds(method: Attribution, model: Model, records: Records) -> float:
    """Of the second call."""
    found = 0.0
    for _ in range(2):
        start = time.perf_counter()
        columns = method([model], records)
        columns.read(np.arange(columns.targets))
        found = time.perf_counter() - start
    return found


def grid() -> Iterator[tuple[str, int, int, int]]:
    """Yields what is varied, and width, examples and targets."""
    whole = SIZES[-1]
    for size in SIZES:
        yield 'examples', _WIDTH.value, size, whole
    for size in SIZES[:-1]:
        yield 'targets', _WIDTH.value, whole, size
    for width in WIDTHS:
        if width != _WIDTH.value:
            yield 'parameters', width, whole, whole


def on_paper() -> None:
    """Prints what GPT-Neo 125M takes, with all its parameters and with those of its blocks."""

    def tokens() -> TokenBatch:
        rows = jnp.zeros(RECORDS, jnp.int32)
        return TokenBatch(jnp.zeros((RECORDS, TOKENS), jnp.int32), rows, rows)

    records = jax.eval_shape(tokens)
    task = LanguageModeling(GPT_NEO_125M)
    print(f'\nGPT-Neo 125M, N = T = {RECORDS}, {TOKENS} tokens, one model, on paper')
    print('| parameters | method | numbers a record | GiB | PFLOP | of these, most in |')
    print('|---|---|---|---|---|---|')
    for blocks in ((), ('^layers',)):
        model = Model(task, abstract(GPT_NEO_125M), blocks)
        for method in METHODS:
            roomy = Records(records, records, memory=64 * GIB, batch=4, block=16)
            if isinstance(method, TRAK):
                method = dataclasses.replace(method, size=None)  # as many as the records allow
            row = f'| {model.size:,} | {method.method.title} |'
            try:
                found = attribution.cost(method, model, roomy)
            except ValueError as error:  # more memory than there is
                print(row, f'{str(error).partition(":")[0]} |||||')
                continue
            most = max(found.stages, key=lambda stage: stage.flops)
            kept = '' if found.kept else ', computed for each block of targets'
            print(
                f'{row} {found.width:,} | '
                f'{found.bytes / GIB:.1f} | {found.flops / 1e15:.3g} | {most.name}{kept} |'
            )


def main(arguments: list[str]) -> None:
    del arguments
    names = ' | '.join(method.method.title for method in METHODS)
    print(f'| varied | parameters | N | T | {names} |\n|---|---|---|---|{"---|" * len(METHODS)}')
    for varied, width, examples, targets in grid():
        model, records = clipart(width, examples, targets)
        took = ' | '.join(f'{seconds(method, model, records):.1f} s' for method in METHODS)
        print(f'| {varied} | {model.size:,} | {examples} | {targets} | {took} |', flush=True)
    on_paper()


if __name__ == '__main__':
    app.run(main)
