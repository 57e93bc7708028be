"""A plan in words: what fits, who talks to whom, what it costs."""

import dataclasses

from experiments.planned_run import Run
from influence_jax import planning as plan
from influence_jax.planning import Plan


def described(made: Plan, run: Run, utilisation: float) -> dict[str, str]:
    """What is printed of a plan, by name."""
    topology, shape = made.topology, made.shape
    batch_size, steps = run.program.batch_size, run.program.steps
    return {
        'topology': (
            f'{topology.name}, {topology.chips} chips, '
            f'{topology.generation.memory_gib:g} GiB of HBM each'
        ),
        'mesh': f'{shape} = members, data, model; compiled in {made.seconds:.0f} s',
        'records': _records(run),
        'members at a time': f'{shape.members_at_once}, on {shape.devices_per_member} chips each',
        'HBM a device': (
            f'{made.peak_gib:.2f} GiB at the peak, {made.free_gib:.2f} GiB free '
            f'(arguments {made.arguments_gib:.2f}, temporaries {made.temporaries_gib:.2f})'
        ),
        'collectives': f'{made.collectives.total}, {_crossing(made)}',
        'FLOPs': (
            f'{run.step_flops:.3g} a step of a member (batch {batch_size}), '
            f'{run.member_flops:.3g} a member of {steps} steps and its measurements, '
            f'{run.everything_flops:.3g} the one of {run.everything_steps} steps on all records, '
            f'{run.members * run.member_flops + run.everything_flops:.3g} in all'
        ),
        'chip-hours': _hours(made, run, utilisation),
        'not counted': (
            'decoding completions, loading, compiling and checkpoints; '
            'memory is that of training, not of measuring or decoding'
        ),
        **_uneven(made, run),
    }


def _hours(made: Plan, run: Run, utilisation: float) -> str:
    topology, shape = made.topology, made.shape
    ensemble = plan.cost(
        topology,
        shape,
        members=run.members,
        flops_per_member=run.member_flops,
        utilisation=utilisation,
    )
    everything = plan.cost(
        topology,
        dataclasses.replace(shape, vmapped=1),
        members=1,
        flops_per_member=run.everything_flops,
        utilisation=utilisation,
    )
    return (
        f'{ensemble.chip_hours + everything.chip_hours:,.1f} at an assumed utilisation of '
        f'{utilisation:.0%} of {topology.generation.peak_tflops:g} TFLOP/s '
        f'({everything.chip_hours:,.2f} of them for the member on all records): '
        f'{ensemble.hours + everything.hours:,.2f} hours on this slice'
    )


def _records(run: Run) -> str:
    count, tokens = run.inputs.examples.tokens.shape
    return f'{count:,} of {tokens} tokens (the longest; with --data_dir those of the data)'


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
