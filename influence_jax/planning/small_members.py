"""Plans of members that fit on one chip, many at a time: memory, and a roofline of their speed."""

import jax

from influence_jax.planning.compile import Inputs, Plan, compile_step
from influence_jax.planning.costs import StoreBytes
from influence_jax.planning.roofline import CHIPS, least_time
from influence_jax.planning.topology import Topology
from influence_jax.training.automatic import accelerator_width
from influence_jax.training.compiled import abstract_state
from influence_jax.training.member import Program
from influence_jax.training.mesh import REPLICATED, MeshShape


def compile_members(
    program: Program, topology: Topology, *, inputs: Inputs, members: int, width: int | None = None
) -> Plan:
    """Compiles the step of members that each chip of a slice trains under `vmap`.

    Args:
        program: the task and how to train it.
        topology: the devices.
        inputs: shapes of the data, or the data.
        members: M, of the ensemble.
        width: members a chip; by default what training would choose.

    Raises:
        TooLarge: it does not fit.
        ValueError: libtpu is not installed.
    """
    each = -(-members // topology.chips)
    width = width or accelerator_width(program, inputs.base, members=each)
    shape = MeshShape(topology.chips, vmapped=width)
    return compile_step(program, topology, shape, rules=REPLICATED, inputs=inputs)


def describe_members(
    made: Plan, program: Program, *, store: StoreBytes | None = None
) -> dict[str, str]:
    """Returns what is printed of such a plan, by name.

    Args:
        made: by `compile_members`.
        program: of the same members.
        store: what their run takes on disk.
    """
    topology, width = made.topology, made.shape.vmapped
    kind = topology.name.partition(':')[0]
    leaves = jax.tree.leaves(abstract_state(program).params)
    said = {
        'topology': (
            f'{topology.name}, {topology.chips} chips, '
            f'{topology.generation.memory_gib:g} GiB of HBM each'
        ),
        'a member': (
            f'{sum(leaf.size for leaf in leaves):,} parameters, {program.steps:,} steps of '
            f'{program.batch_size}'
        ),
        'members at a time': f'{width} on each chip (--vmap)',
        'HBM a chip': (
            f'{made.peak_gib:.2f} GiB at the peak, {made.free_gib:.2f} GiB free; the examples '
            f'are in it, on every chip'
        ),
    }
    if store is not None:
        said['store'] = str(store)
    cost = made.cost
    if cost is None:
        return said
    found = least_time(cost, CHIPS[kind])  # of a TPU: as fast in float32 as in bfloat16
    most, cautious = (
        found.members_per_second(width=width, steps=program.steps, cautious=which)
        for which in (False, True)
    )
    said |= {
        'a step': (
            f'{cost.flops / 1e9:,.3g} GFLOP, {cost.memory_bytes / 1e6:,.3g} MB through HBM and '
            f'{cost.accessed_bytes / 1e6:,.3g} MB accessed in all, by the compiler'
        ),
        'speed': (
            f'at most {most:,.3g} members/s on one {kind} chip (roofline estimate, bound by '
            f'{found.bound}); {cautious:,.3g} if every access went to HBM'
        ),
        'not counted': (
            'measuring, loading and compiling, and whatever a real step waits for, since nothing '
            'was run; estimation and report (docs/results/growth.md)'
        ),
    }
    if cost.loops:
        said['note'] = (
            f'the compiler counts the body of each of {cost.loops} loops once: the speed is less'
        )
    return said
