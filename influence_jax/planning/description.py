"""A plan in words: what fits, which devices communicate, what it costs."""

import dataclasses

from influence_jax.planning.compile import Plan, check_size
from influence_jax.planning.costs import cost, store_bytes
from influence_jax.planning.planned_run import PlannedRun
from influence_jax.planning.proposal import least_gib
from influence_jax.planning.topology import Topology
from influence_jax.training.mesh import MeshShape


def describe(made: Plan, run: PlannedRun, utilization: float) -> dict[str, str]:
    """Returns what is printed of a plan, by name."""
    shape = made.shape
    return estimate(run, made.topology, shape, utilization) | {
        'mesh': f'{shape} = members, data, model; compiled in {made.seconds:.0f} s',
        'HBM a device': (
            f'{made.peak_gib:.2f} GiB at the peak, {made.free_gib:.2f} GiB free '
            f'(arguments {made.arguments_gib:.2f}, temporaries {made.temporaries_gib:.2f})'
        ),
        'collectives': f'{made.collectives.total}, {_crossing(made)}',
    }


def estimate(
    run: PlannedRun, topology: Topology, shape: MeshShape, utilization: float
) -> dict[str, str]:
    """Returns what shapes alone say of a plan, by name, in no time: nothing is compiled.

    Raises:
        ValueError: the mesh is not over the chips, or a parameter does not divide over it.
    """
    check_size(topology, shape)
    batch_size, steps = run.program.batch_size, run.program.steps
    least = least_gib(run.program, shape, rules=run.rules, inputs=run.inputs)
    return {
        'topology': (
            f'{topology.name}, {topology.chips} chips, '
            f'{topology.generation.memory_gib:g} GiB of HBM each'
        ),
        'mesh': f'{shape} = members, data, model',
        'records': _records(run),
        'members at a time': f'{shape.members_at_once}, on {shape.devices_per_member} chips each',
        'HBM a device': f'{least:.2f} GiB at least, of states and gradients',
        'FLOPs': (
            f'{run.step_flops:.3g} a step of a member (batch {batch_size}), '
            f'{run.member_flops:.3g} a member of {steps} steps and its measurements, '
            f'{run.full_data_flops:.3g} the one of {run.full_data_steps} steps on all records, '
            f'{run.members * run.member_flops + run.full_data_flops:.3g} in all'
        ),
        'chip-hours': _hours(topology, shape, run, utilization),
        'store': _store(run),
        'not counted': (
            'decoding completions, loading, compiling and checkpoints; '
            'memory is that of training, not of measuring or decoding; estimation and report '
            '(docs/results/growth.md)'
        ),
        **_uneven(shape, run),
    }


def _hours(topology: Topology, shape: MeshShape, run: PlannedRun, utilization: float) -> str:
    ensemble = cost(
        topology,
        shape,
        members=run.members,
        flops_per_member=run.member_flops,
        utilization=utilization,
    )
    full_data = cost(
        topology,
        dataclasses.replace(shape, vmapped=1),
        members=1,
        flops_per_member=run.full_data_flops,
        utilization=utilization,
    )
    return (
        f'{ensemble.chip_hours + full_data.chip_hours:,.1f} at an assumed utilization of '
        f'{utilization:.0%} of {topology.generation.peak_tflops:g} TFLOP/s '
        f'({full_data.chip_hours:,.2f} of them for the member on all records): '
        f'{ensemble.hours + full_data.hours:,.2f} hours on this slice'
    )


def _store(run: PlannedRun) -> str:
    records = run.inputs.examples.tokens.shape[0]
    return str(
        store_bytes(
            members=run.members,
            examples=records,
            targets=records,
            measurements=len(run.program.task.measurements),
        )
    )


def _records(run: PlannedRun) -> str:
    count, tokens = run.inputs.examples.tokens.shape
    return f'{count:,} of {tokens} tokens (the longest; with --data_dir those of the data)'


def _crossing(made: Plan) -> str:
    talk = made.collectives
    if talk.unread:
        return f'{talk.crossing} across members, {talk.unread} that cannot be read'
    return f'{talk.crossing} across members' if talk.crossing else 'none across members'


def _uneven(shape: MeshShape, run: PlannedRun) -> dict[str, str]:
    batch, data = run.program.batch_size, shape.data
    if not batch % data:
        return {}
    each = -(-batch // data)
    return {
        'note': (
            f'a batch of {batch} does not divide over data = {data}: each device computes '
            f'{each} rows, {each * data - batch} of {each * data} for nothing'
        )
    }
