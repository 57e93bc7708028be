"""The real step of large members, compiled for devices that are not there."""

import re
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from influence_jax.planning import collectives
from influence_jax.planning.collectives import Collectives
from influence_jax.planning.roofline import StepCost, step_cost
from influence_jax.planning.topology import Topology
from influence_jax.training.compiled import compile_program
from influence_jax.training.executor import sharded
from influence_jax.training.member import Program
from influence_jax.training.mesh import MeshShape, Rules
from influence_jax.types import Batch, Params

GIB = 2**30


class TooLarge(ValueError):
    """The step does not fit into the devices' memory."""


class Inputs(NamedTuple):
    """Shapes of what a step reads besides the members' states.

    examples: pytree with a leading axis N.
    base: what the members share; None where they share nothing.
    """

    examples: Batch
    base: Params | None = None


class Plan(NamedTuple):
    """What the compiler says of a step.

    topology: the devices.
    shape: of the mesh.
    arguments_gib: states, data and the base that stays on the devices, per device.
    temporaries_gib: what the step needs besides, per device.
    peak_gib: the most that is in use at any time, per device.
    collectives: who talks to whom.
    seconds: that compiling took.
    cost: FLOPs and bytes of the step on one device; None where the compiler does not say.
    """

    topology: Topology
    shape: MeshShape
    arguments_gib: float
    temporaries_gib: float
    peak_gib: float
    collectives: Collectives
    seconds: float
    cost: StepCost | None = None

    @property
    def free_gib(self) -> float:
        """What is left of a device's memory at the peak."""
        return self.topology.generation.memory_gib - self.peak_gib


def compile_step(
    program: Program, topology: Topology, shape: MeshShape, *, rules: Rules, inputs: Inputs
) -> Plan:
    """Compiles the step that `training.train` would run.

    Args:
        program: the task and how to train it.
        topology: the devices.
        shape: of the mesh, over all of them.
        rules: where parameters lie.
        inputs: shapes of the data.

    Raises:
        TooLarge: it does not fit.
        ValueError: libtpu is not installed, the mesh is of another size, or the rules cannot
            place a parameter on it.
    """
    check_size(topology, shape)
    run = compile_program(
        program, sharded(shape, rules), base=inputs.base, devices=topology.devices()
    )
    everywhere = NamedSharding(run.mesh, PartitionSpec())
    number = jax.ShapeDtypeStruct((), jnp.int32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    members = jax.ShapeDtypeStruct((shape.members_at_once,), jnp.int32)
    schedule = jax.ShapeDtypeStruct((*members.shape, program.steps, program.batch_size), jnp.int32)
    examples = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=everywhere),
        inputs.examples,
    )
    start = time.perf_counter()
    lowered = run.advance.lower(
        run.state, number, number, key, members, schedule, examples, run.kept_base
    )
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if 'RESOURCE_EXHAUSTED' not in str(error):
            raise
        raise TooLarge(_said(str(error))) from error
    memory, text = compiled.memory_analysis(), compiled.as_text()
    assert memory is not None and text is not None  # XLA's compilers for TPUs have both
    return Plan(
        topology,
        shape,
        arguments_gib=memory.argument_size_in_bytes / GIB,
        temporaries_gib=memory.temp_size_in_bytes / GIB,
        peak_gib=memory.peak_memory_in_bytes / GIB,
        collectives=collectives.read(
            text,
            devices=topology.chips,
            devices_per_member=shape.devices_per_member,
        ),
        seconds=time.perf_counter() - start,
        cost=step_cost(analysis, text) if (analysis := compiled.cost_analysis()) else None,
    )


def check_size(topology: Topology, shape: MeshShape) -> None:
    """Refuses (ValueError) a mesh that is not over all chips."""
    if shape.devices != topology.chips:
        raise ValueError(
            f'the mesh {shape} takes {shape.devices} devices, but {topology.name} has '
            f'{topology.chips}; choose sizes whose product is {topology.chips}'
        )


def _said(message: str) -> str:
    """The compiler's own sentence: how much it would take, and how much there is."""
    sentence = re.search(r'RESOURCE_EXHAUSTED: *([^\n]*?[a-zA-Z)])(?:\.\s|\.?$|\n)', message)
    return sentence[1] if sentence else 'out of memory'
