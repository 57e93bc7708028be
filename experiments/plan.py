"""Plans a run on a TPU slice: compiles its training step on this machine, which needs no TPU.

    python -m experiments.plan --topology=v5e:4x4 [--mesh=4,4,1]

The run is the paper's (arXiv 2506.20481): GPT-Neo 1.3B fine-tuned on halves of 1,500 records.
Other launches plan their own run with --plan.
"""

import dataclasses
import os
from typing import NamedTuple

import jax
import jax.numpy as jnp
from absl import flags as absl_flags

from experiments import flags, launch
from influence_jax.models.adapter_modeling import AdapterModeling
from influence_jax.models.gpt_neo import GPTNeoConfig, abstract
from influence_jax.models.gpt_neo.flops import Flops, flops
from influence_jax.models.gpt_neo.sharding import RULES
from influence_jax.models.language_modeling import LanguageModeling, TokenBatch
from influence_jax.models.lora import LoRA
from influence_jax.training import Program, Recipe, plan
from influence_jax.training.mesh import MeshShape
from influence_jax.training.plan import Inputs, Plan, TooLarge, Topology
from influence_jax.training.sharding import Rules

absl_flags.disclaim_key_flags()  # they are the launch's, see experiments.flags

GPT_NEO_1_3B = GPTNeoConfig(
    vocab_size=50257,
    hidden=2048,
    layers=24,
    heads=16,
    max_positions=2048,
    window=256,
    compute_dtype=jnp.bfloat16,
    remat=True,
)


@dataclasses.dataclass(frozen=True)
class PlanSettings:
    """A slice to plan for.

    Attributes:
        topology: the TPU slice, such as v5e:4x4; a wrong name lists those known.
        mesh: sizes of the mesh, MEMBER,DATA,MODEL, such as 4,4,1; left empty, the one with most
            members at once that fits is looked for.
        utilisation: share of the chips' peak speed that is assumed for chip-hours.
    """

    topology: str = 'v5e:4x4'
    mesh: str = ''
    utilisation: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.utilisation <= 1:
            raise ValueError(f'utilisation must lie in (0, 1], not {self.utilisation}')


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The run that is planned.

    Attributes:
        members: number M of models.
        records: number N, each with probability 0.5 in a subset; all are targets.
        epochs: passes over a subset of the expected size.
        batch_size: B.
        tokens: S, of each record, its padding included.
        lora_rank: train adapters of this rank on a frozen model; 0 trains all weights.
        vmap: members that share a group of devices; for adapters, which are small.
    """

    members: int = 1000
    records: int = 1500
    epochs: float = 3.0
    batch_size: int = 50
    tokens: int = 100
    lora_rank: int = 0
    vmap: int = 1


class Run(NamedTuple):
    """What is planned.

    program: the task and how to train it.
    inputs: shapes of the data.
    rules: where parameters lie.
    members: M.
    step_flops: of one member.
    measure_flops: of one member, over all targets.
    """

    program: Program
    inputs: Inputs
    rules: Rules
    members: int
    step_flops: float
    measure_flops: float


def run_from_flags() -> None:
    """Plans what the command line asks for."""
    settings = flags.read(RunSettings)
    show(flags.read(PlanSettings), language_run(GPT_NEO_1_3B, settings), vmapped=settings.vmap)


def language_run(config: GPTNeoConfig, settings: RunSettings) -> Run:
    """Fine-tuning of a GPT-Neo, or of adapters on it."""
    expected = settings.records / 2
    recipe = Recipe(epochs=settings.epochs, batch_size=settings.batch_size, learning_rate=2e-4)
    steps = recipe.steps(expected)
    modeling = LanguageModeling(config)
    lora = LoRA(settings.lora_rank) if settings.lora_rank else None
    base = abstract(config) if lora else None
    program = Program(
        task=AdapterModeling(modeling, lora) if lora else modeling,
        optimizer=recipe.optimizer(steps),
        steps=steps,
        batch_size=settings.batch_size,
        measure_batch=settings.batch_size,
        smallest_subset=settings.batch_size,
    )

    def count(records: int) -> Flops:
        added = lora.parameter_count(base) if lora else 0
        return flops(config, batch=records, tokens=settings.tokens - 1, adapter_parameters=added)

    def zeros() -> TokenBatch:
        rows = jnp.zeros(settings.records, jnp.int32)
        return TokenBatch(jnp.zeros((settings.records, settings.tokens), jnp.int32), rows, rows)

    return Run(
        program,
        Inputs(jax.eval_shape(zeros), base),
        RULES,
        settings.members,
        step_flops=count(settings.batch_size).step(frozen=lora is not None),
        measure_flops=count(settings.records).forward,
    )


def show(settings: PlanSettings, run: Run, *, vmapped: int = 1) -> Plan | None:
    """Prints the plan of a run and returns it; None where no mesh fits.

    Raises:
        ValueError: no such topology, a mesh that is not over its chips, or no libtpu.
    """
    topology = plan.find(settings.topology)
    compile_without_tpus()
    program, rules, inputs = run.program, run.rules, run.inputs
    if settings.mesh:
        shape = MeshShape.parse(settings.mesh, vmapped=vmapped)
        try:
            made = plan.compile_step(program, topology, shape, rules=rules, inputs=inputs)
        except TooLarge as error:
            print(f'{topology.name}, mesh {shape}: does NOT fit. {error}')
        else:
            _print(made, run, settings.utilisation)
            return made
    found = plan.propose(program, topology, rules=rules, inputs=inputs, vmapped=vmapped)
    if found is None:
        fewer = ', or a smaller --vmap' if vmapped > 1 else ''
        print(f'{topology.name}: no mesh fits; choose more chips, or with more memory{fewer}')
        return None
    print(f'proposed: --mesh={",".join(map(str, found.shape.sizes))}')
    _print(found, run, settings.utilisation)
    return found


def compile_without_tpus() -> None:
    """Prepares libtpu, before it is loaded, for a machine that has no TPU."""
    jax.config.update('jax_platforms', 'cpu')
    os.environ |= {
        'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',  # nothing is run, so planners do not disturb each other
        'TPU_SKIP_MDS_QUERY': '1',
        'TPU_LOG_DIR': 'disabled',
        'TPU_STDERR_LOG_LEVEL': '3',
        'TPU_MIN_LOG_LEVEL': '3',
        'TPU_ACCELERATOR_TYPE': 'v5litepod-16',
        'TPU_WORKER_HOSTNAMES': 'localhost',
        'TPU_WORKER_ID': '0',
    }


def _print(made: Plan, run: Run, utilisation: float) -> None:
    for name, value in described(made, run, utilisation).items():
        print(f'{name:>18}: {value}')


def described(made: Plan, run: Run, utilisation: float) -> dict[str, str]:
    """A plan in words."""
    topology, shape, talk = made.topology, made.shape, made.collectives
    of_member = run.program.steps * run.step_flops + run.measure_flops
    cost = plan.cost(
        topology,
        shape,
        members=run.members,
        flops_per_member=of_member,
        utilisation=utilisation,
    )
    return {
        'topology': f'{topology.name}, {topology.chips} chips, {_memory(topology)} each',
        'mesh': f'{shape} = members, data, model; compiled in {made.seconds:.0f} s',
        'members at a time': f'{shape.members_at_once}, on {shape.devices_per_member} chips each',
        'HBM a device': (
            f'{made.peak_gib:.2f} GiB at the peak, {made.free_gib:.2f} GiB free '
            f'(arguments {made.arguments_gib:.2f}, temporaries {made.temporaries_gib:.2f})'
        ),
        'collectives': f'{talk.total}, {_crossing(made)}',
        'FLOPs': (
            f'{run.step_flops:.3g} a step of a member (batch {run.program.batch_size}), '
            f'{of_member:.3g} a member of {run.program.steps} steps and its measurements, '
            f'{cost.flops:.3g} for {run.members:,} members'
        ),
        'chip-hours': (
            f'{cost.chip_hours:,.0f} at an assumed utilisation of {utilisation:.0%} of '
            f'{topology.generation.peak_tflops:g} TFLOP/s: {cost.hours:,.1f} hours on this slice'
        ),
        **_uneven(made, run),
    }


def _crossing(made: Plan) -> str:
    talk = made.collectives
    if talk.unread:
        return f'{talk.crossing} across members, {talk.unread} that cannot be read'
    return f'{talk.crossing} across members' if talk.crossing else 'none across members'


def _uneven(made: Plan, run: Run) -> dict[str, str]:
    batch, data = run.program.batch_size, made.shape.data
    if not batch % data:
        return {}
    each = -(-batch // data)
    return {
        'note': (
            f'a batch of {batch} does not divide over data = {data}: each device computes '
            f'{each} rows, {each * data - batch} of {each * data} for nothing'
        )
    }


def _memory(topology: Topology) -> str:
    return f'{topology.generation.memory_gib:g} GiB of HBM'


if __name__ == '__main__':
    flags.define(PlanSettings())
    flags.define(RunSettings())
    launch.run(run_from_flags)
