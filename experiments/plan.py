"""Plans a run on a TPU slice: compiles its training step on this machine, which needs no TPU.

    python -m experiments.plan --topology=v5e:4x4 [--mesh=4,4,1]

The run is the paper's (arXiv 2506.20481): GPT-Neo 1.3B fine-tuned on halves of 1,500 records.
Other launches plan their own run with --plan.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from experiments import flags, launch
from experiments.settings import AnalysisSettings, EnsembleSettings
from influence_jax import planning, subsets, tasks
from influence_jax.data import Dataset
from influence_jax.formatting import count
from influence_jax.planning import (
    GPT_NEO_1_3B,
    Inputs,
    Plan,
    PlannedRun,
    RunSettings,
    TooLarge,
    Topology,
)
from influence_jax.training import ComputeDtype, EnsembleKeys, Recipe, vmapped
from influence_jax.training.member import Program
from influence_jax.training.mesh import MeshShape, Rules

_MASKS = 64
"""Subsets of which the largest batch of texts is taken."""


@dataclasses.dataclass(frozen=True)
class PlanSettings:
    """A slice to plan for.

    Attributes:
        topology: the TPU slice, such as v5e:4x4; a wrong name lists those known.
        mesh: sizes of the mesh, MEMBER,DATA,MODEL, such as 4,4,1. Left empty: in training, each
            member is on one device; in planning, the mesh with most members at once that fits is
            looked for.
        utilisation: share of the chips' peak speed that is assumed for chip-hours.
    """

    topology: str = 'v5e:4x4'
    mesh: str = ''
    utilisation: float = 0.4

    def __post_init__(self) -> None:
        planning.find(self.topology)  # refuses what is not known, before anything is loaded
        if not 0 < self.utilisation <= 1:
            raise ValueError(f'utilisation must lie in (0, 1], not {self.utilisation}')


def run_from_flags() -> None:
    """Plans what the command line asks for."""
    settings = flags.read(RunSettings)
    show(
        flags.read(PlanSettings),
        planning.language_run(GPT_NEO_1_3B, settings),
        vmapped=settings.vmap,
    )


def show(settings: PlanSettings, run: PlannedRun, *, vmapped: int = 1) -> Plan | None:
    """Prints the plan of a run and returns it; None where none of the meshes tried fits.

    First what shapes alone say, which takes no time; then a line before and after each mesh for
    which the step is compiled, which takes minutes.

    Raises:
        ValueError: a mesh that is not over the chips, or no libtpu.
    """
    topology = planning.find(settings.topology)
    compile_without_tpus()
    program, rules, inputs = run.program, run.rules, run.inputs
    given = MeshShape.parse(settings.mesh, vmapped=vmapped) if settings.mesh else None
    possible = planning.candidates(program, topology, rules=rules, inputs=inputs, vmapped=vmapped)
    first = given or next(possible, None)
    if first is not None:
        _say('Estimated from shapes, before anything is compiled:')
        _print(planning.estimate(run, topology, first, settings.utilisation))
    if given is not None:
        with contextlib.suppress(TooLarge):
            made = _compiled(program, topology, given, rules=rules, inputs=inputs)
            _print(planning.describe(made, run, settings.utilisation))
            return made
    found, tried = planning.propose(
        program, topology, rules=rules, inputs=inputs, vmapped=vmapped, compiling=_compiled
    )
    if found is None:
        fewer = ', or a smaller --vmap' if vmapped > 1 else ''
        _say(f'{topology.name}: {_none_fits(tried)}{fewer}')
        return None
    _say(f'proposed: --mesh={",".join(map(str, found.shape.sizes))}')
    _print(planning.describe(found, run, settings.utilisation))
    return found


class Members(NamedTuple):
    """Members that fit on one chip, to be planned.

    program: how they are trained.
    inputs: shapes of the data.
    members: M.
    """

    program: Program
    inputs: Inputs
    members: int

    @classmethod
    def of(
        cls,
        task: Any,
        dataset: Dataset,
        recipe: Recipe,
        ensemble: EnsembleSettings,
        analysis: AnalysisSettings,
    ) -> 'Members':
        """Binds a task to a dataset, as training does; subsets are drawn independently."""
        problem, keys = tasks.bind(task, dataset), EnsembleKeys.of(ensemble.seed)
        members = analysis.most_members(ensemble)
        masks = subsets.independent(
            key=keys.masks,
            members=min(members, _MASKS),
            examples=len(dataset),
            inclusion_prob=ensemble.keep,
        )
        if recipe.compute_dtype is None:  # that of TPUs
            recipe = dataclasses.replace(recipe, compute_dtype=ComputeDtype.BFLOAT16)
        program = recipe.program(
            problem.task, masks, ensemble.keep, measure_batch=problem.measure_batch
        )
        if problem.refine is not None:
            program = problem.refine(
                program, masks=masks, key=keys.members, executor=vmapped(2, devices=1)
            )
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
            (problem.examples, problem.base),
        )
        return cls(program, Inputs(*shapes), members)


def prepared(name: str) -> Topology:
    """Finds a slice, and prepares this process to compile for it.

    Raises:
        ValueError: there is none of that name.
    """
    topology = planning.find(name)
    compile_without_tpus()
    return topology


def show_members(topology: Topology, run: Members, *, width: int | None = None) -> Plan | None:
    """Prints the plan of members that fit on one chip, and returns it; None where they do not.

    Raises:
        ValueError: no libtpu.
    """
    at_a_time = count(width, 'member') if width else 'as many members as training would take'
    _say(f'{topology.name}: compiling the step of {at_a_time} a chip, which may take minutes')
    try:
        made = planning.compile_members(
            run.program, topology, inputs=run.inputs, members=run.members, width=width
        )
    except TooLarge as error:
        _say(f'{topology.name}: does NOT fit. {error}; choose a smaller --vmap')
        return None
    examples = jax.tree.leaves(run.inputs.examples)[0].shape[0]
    store = planning.store_bytes(
        members=run.members,
        examples=examples,
        targets=examples,
        measurements=len(run.program.task.measurements),
    )
    _print(planning.describe_members(made, run.program, store=store))
    return made


def _compiled(
    program: Program, topology: Topology, shape: MeshShape, *, rules: Rules, inputs: Inputs
) -> Plan:
    """Compiles the step for a mesh, with a line before and one after; raises as `compile_step`."""
    name = f'{topology.name}, mesh {shape}'
    _say(f'{name}: compiling the step, which may take minutes')
    start = time.monotonic()
    try:
        made = planning.compile_step(program, topology, shape, rules=rules, inputs=inputs)
    except TooLarge as error:
        _say(f'{name}: does NOT fit, after {time.monotonic() - start:.0f} s. {error}')
        raise
    _say(f'{name}: fits, {made.peak_gib:.2f} GiB at the peak, after {made.seconds:.0f} s')
    return made


def _say(text: str) -> None:
    print(text, flush=True)  # minutes may pass until the next line


def _none_fits(tried: Sequence[MeshShape]) -> str:
    if not tried:
        return 'no mesh holds states and gradients; choose more chips, or with more memory'
    return (
        f'none of the {len(tried)} meshes tried fits, {", ".join(map(str, tried))}; '
        f'choose another with --mesh, or chips that are more or have more memory'
    )


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


def _print(facts: Mapping[str, str]) -> None:
    for name, value in facts.items():
        _say(f'{name:>18}: {value}')


if __name__ == '__main__':
    flags.define(PlanSettings())
    flags.define(RunSettings())
    launch.run(run_from_flags)
