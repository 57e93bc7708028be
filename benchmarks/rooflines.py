"""Rooflines of training steps, compiled ahead of time for TPUs: needs the extra tpu, but no TPU.

    python -m benchmarks.rooflines [--networks=images,cifar10,texts,gpt-neo-125m,gpt-neo-1.3b]
        [--generations=v5e,v4] [--widths=1,16,256] [--output=runs/rooflines.json]

What is compiled is the step that the launches train, on every chip of the smallest slice, for so
many members a chip under vmap. Compiling takes minutes; what the file has is not compiled again.
The table is of the file: estimates from FLOPs and bytes, nothing was run.
"""

import dataclasses
import functools
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments import image_ensemble, language_ensemble, plan
from experiments.cifar10_resnet import PAPER as CIFAR10
from experiments.image_ensemble import ImageExperiment
from experiments.language_model import DEFAULTS as TEXTS
from experiments.settings import AnalysisSettings, EnsembleSettings, MachineSettings
from influence_jax import planning
from influence_jax.data import Dataset
from influence_jax.models.gpt_neo import GPTNeoConfig
from influence_jax.models.gpt_neo.config import flops
from influence_jax.planning import GPT_NEO_1_3B, Inputs, Plan, RunSettings, TooLarge
from influence_jax.planning.roofline import CHIPS, StepCost, least_time
from influence_jax.training import ComputeDtype, Program, Recipe

_NETWORKS = flags.DEFINE_list(
    'networks', ['images', 'cifar10', 'texts', 'gpt-neo-125m', 'gpt-neo-1.3b'], 'what is trained'
)
_GENERATIONS = flags.DEFINE_list('generations', ['v5e', 'v4'], 'kinds of chips')
_WIDTHS = flags.DEFINE_list('widths', ['1', '16', '256'], 'members a chip')
_OUTPUT = flags.DEFINE_string('output', 'runs/rooflines.json', 'file of what was compiled')

_SLICES = {'v4': 'v4:2x2x1', 'v5e': 'v5e:2x2', 'v5p': 'v5p:2x2x1', 'v6e': 'v6e:2x2'}
GPT_NEO_125M = GPTNeoConfig(
    vocab_size=50257,
    hidden=768,
    layers=12,
    heads=12,
    max_positions=2048,
    window=256,
    compute_dtype=jnp.bfloat16,
    remat=True,
)


class Network(NamedTuple):
    """What is trained, and what of.

    flops: of a step by hand, recomputed layers included; None where the compiler's count is whole.
    config: of a network whose layers are scanned: it is compiled with one and two instead.
    """

    program: Program
    inputs: Inputs
    bfloat16: bool = False
    flops: float | None = None
    config: GPTNeoConfig | None = None


def _images(experiment: ImageExperiment, dataset: Dataset | None = None) -> Network:
    if dataset is None:
        dataset, task = image_ensemble.prepare(experiment)
    else:
        task = experiment.network.task(dataset)
    recipe = dataclasses.replace(experiment.recipe, compute_dtype=ComputeDtype.FLOAT32)
    return _network(task, dataset, recipe)


def _network(task: Any, dataset: Dataset, recipe: Recipe) -> Network:
    ensemble = EnsembleSettings(members=64, keep=0.5, seed=0)
    found = plan.Members.of(task, dataset, recipe, ensemble, AnalysisSettings())
    return Network(found.program, found.inputs)


def _cifar10() -> Network:
    count = CIFAR10.data.num_examples
    blank = {
        'image': np.zeros((count, 32, 32, 3), np.uint8),
        'label': np.arange(count, dtype=np.int32) % 10,
    }
    return _images(CIFAR10, Dataset(blank, class_names=tuple(map(str, range(10)))))


def _texts() -> Network:
    with tempfile.TemporaryDirectory() as folder:
        machine = MachineSettings(output_dir=f'{folder}/run')
        experiment = dataclasses.replace(TEXTS, machine=machine)
        dataset, task = language_ensemble.prepare(experiment)
        return _network(task, dataset, experiment.recipe)


def _gpt_neo(config: GPTNeoConfig) -> Network:
    settings = RunSettings()
    run = planning.language_run(config, settings)
    count = flops(config, batch=settings.batch_size, tokens=settings.tokens - 1)
    by_hand = count.step() + (count.layers if config.remat else 0)
    return Network(run.program, run.inputs, bfloat16=True, flops=by_hand, config=config)


_NETWORK_OF: dict[str, Callable[[], Network]] = {
    'images': lambda: _images(ImageExperiment()),
    'cifar10': _cifar10,
    'texts': _texts,
    'gpt-neo-125m': lambda: _gpt_neo(GPT_NEO_125M),
    'gpt-neo-1.3b': lambda: _gpt_neo(GPT_NEO_1_3B),
}


@functools.cache
def network(name: str) -> Network:
    """Returns the network of this name."""
    return _NETWORK_OF[name]()


def compiled(of: Network, generation: str, width: int) -> dict[str, Any]:
    """Compiles the step and returns its cost and memory on one chip, or why there is none."""
    found: dict[str, Any] = {}
    try:
        if of.config is not None:
            found['cost'] = _by_layers(of, generation, width)._asdict()
        whole = _compiled(of, generation, width)
    except TooLarge as error:
        return found | {'too_large': str(error)}
    assert whole.cost is not None
    return {'cost': whole.cost._asdict()} | found | {'peak_gib': whole.peak_gib}


def _compiled(of: Network, generation: str, width: int) -> Plan:
    return planning.compile_members(
        of.program,
        planning.find(_SLICES[generation]),
        inputs=of.inputs,
        members=width,
        width=width,
    )


def _by_layers(of: Network, generation: str, width: int) -> StepCost:
    """Extends the cost of one layer and of two, both kept for the backward pass, to all."""
    assert of.config is not None and of.flops is not None
    one, two = (
        _compiled(
            _gpt_neo(dataclasses.replace(of.config, layers=layers, attention=(), remat=False)),
            generation,
            width,
        ).cost
        for layers in (1, 2)
    )
    assert one is not None and two is not None
    return one.with_layers(two, of.config.layers)._replace(flops=width * of.flops)


def table(rows: list[dict[str, Any]]) -> None:
    """Prints estimates for the chip that was compiled for, and for an H100."""
    print(
        '| network | members a chip | chip | GFLOP a step | HBM MB | all accesses, MB | least ms a '
        'step, by | members/s at most | with every access in HBM | peak GiB |'
    )
    print('|' + '---|' * 10)
    for row in rows:
        of = network(row['network'])
        head = f'| {row["network"]} | {row["width"]} |'
        if 'cost' not in row['found']:
            print(f'{head} {row["generation"]} | {row["found"]["too_large"]} | | | | | | |')
            continue
        compiled_cost = StepCost(**row['found']['cost'])
        for name in (row['generation'], *(['H100 SXM'] if row['generation'] == 'v5e' else [])):
            own = name == row['generation']
            # What a TPU's program keeps on the chip says nothing of another one.
            cost = compiled_cost if own else compiled_cost._replace(memory_bytes=0)
            line = least_time(cost, CHIPS[name], bfloat16=of.bfloat16)
            rates = [
                line.members_per_second(
                    width=row['width'], steps=of.program.steps, cautious=cautious
                )
                for cautious in (False, True)
            ]
            peak = row['found'].get('peak_gib')
            memory = _number(cost.memory_bytes / 1e6) if own else ''
            fits = '' if not own else f'{peak:.2f}' if peak else 'does not fit'
            print(
                f'{head} {name} | {_number(cost.flops / 1e9)} | {memory} | '
                f'{_number(cost.accessed_bytes / 1e6)} | '
                f'{1e3 * line.seconds:.3g}, {line.bound} | {_number(rates[0])} | '
                f'{_number(rates[1])} | {fits} |'
            )


def _number(value: float) -> str:
    return f'{value:,.0f}' if value >= 1000 else f'{value:.3g}'


def main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise app.UsageError(f'unexpected argument {arguments[1]!r}')
    plan.compile_without_tpus()
    output = Path(_OUTPUT.value)
    output.parent.mkdir(parents=True, exist_ok=True)
    rows = json.loads(output.read_text()) if output.exists() else []
    for generation in _GENERATIONS.value:
        for name in _NETWORKS.value:
            for width in map(int, _WIDTHS.value):
                at = {'network': name, 'generation': generation, 'width': width}
                if any(at.items() <= row.items() for row in rows):
                    continue
                found = compiled(network(name), generation, width)
                print(f'{at}: {found}', file=sys.stderr, flush=True)
                rows.append({**at, 'found': found})
                output.write_text(json.dumps(rows, indent=1))
    table(rows)


if __name__ == '__main__':
    app.run(main)
