"""Which mesh to choose: the one with most members at once that fits."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

from influence_jax.planning.compile import GIB, Inputs, Plan, TooLarge, compile_step
from influence_jax.planning.topology import Topology
from influence_jax.training.compiled import abstract_state, only_begins_with_base
from influence_jax.training.member import Program
from influence_jax.training.mesh import MeshShape, Rules, specs, state_specs

_TRIES = 4


class Proposal(NamedTuple):
    """Which mesh was chosen, of which.

    plan: of the mesh whose step fits; None where none of those tried does.
    tried: meshes that were compiled for, in this order; none where not even states fit.
    """

    plan: Plan | None
    tried: tuple[MeshShape, ...]


def candidates(
    program: Program, topology: Topology, *, rules: Rules, inputs: Inputs, vmapped: int = 1
) -> Iterator[MeshShape]:
    """Meshes on which the states fit, most members at once first, then those that cut least.

    Left out are meshes on which a parameter does not divide, or a batch cannot be spread.

    Args:
        program: the task and how to train it.
        topology: the devices.
        rules: where parameters lie.
        inputs: shapes of the data.
        vmapped: members that share a group of devices.
    """
    for per_member in _divisors(topology.chips):
        for model in _divisors(per_member):
            shape = MeshShape(topology.chips // per_member, per_member // model, model, vmapped)
            if shape.data > program.batch_size:
                continue
            try:
                least = least_gib(program, shape, rules=rules, inputs=inputs)
            except ValueError:
                continue
            if least < topology.generation.memory_gib:
                yield shape


def least_gib(program: Program, shape: MeshShape, *, rules: Rules, inputs: Inputs) -> float:
    """Returns what states, gradients and the base take of each device, by their shapes alone.

    A step takes its activations besides, which only the compiler knows.

    Raises:
        ValueError: a parameter does not divide over the mesh.
    """
    state, base = abstract_state(program, inputs.base), inputs.base
    states = _bytes(state, state_specs(state, rules, shape), shape)
    # Gradients are there beside the states when these are updated.
    gradients = _bytes(state.params, specs(state.params, rules, shape), shape)
    # One that is gone before there are gradients takes no more room than they do.
    stays = None if only_begins_with_base(program) else base
    shared = _bytes(stays, specs(stays, rules, shape), shape)
    return (shape.vmapped * (states + gradients) + shared) / GIB


def propose(
    program: Program,
    topology: Topology,
    *,
    rules: Rules,
    inputs: Inputs,
    vmapped: int = 1,
    compiling: Callable[..., Plan] | None = None,
) -> Proposal:
    """The plan of the first mesh whose step fits, of a few that are tried.

    Compiling takes minutes. Only that candidate is tried, of those with as many devices a member,
    which cuts parameters least; where its step does not fit, the next has more devices a member.

    Args:
        program: the task and how to train it.
        topology: the devices.
        rules: where parameters lie.
        inputs: shapes of the data.
        vmapped: members that share a group of devices.
        compiling: instead of `compile_step`, with the same arguments: one that says what it does.

    Raises:
        ValueError: libtpu is not installed.
    """
    found = candidates(program, topology, rules=rules, inputs=inputs, vmapped=vmapped)
    tried: list[MeshShape] = []
    by_size = itertools.groupby(found, key=lambda shape: shape.devices_per_member)
    for _, shapes in itertools.islice(by_size, _TRIES):
        tried.append(next(shapes))
        try:
            plan = (compiling or compile_step)(
                program, topology, tried[-1], rules=rules, inputs=inputs
            )
        except TooLarge:
            continue
        return Proposal(plan, tuple(tried))
    return Proposal(None, tuple(tried))


def _bytes(tree: Any, where: Any, shape: MeshShape) -> int:
    def of(leaf: Any, spec: Any) -> int:
        parts = math.prod(shape.size(axes) for axes in spec)
        return math.prod(leaf.shape) * leaf.dtype.itemsize // parts

    return sum(jax.tree.leaves(jax.tree.map(of, tree, where)))


def _divisors(number: int) -> list[int]:
    return [candidate for candidate in range(1, number + 1) if number % candidate == 0]
