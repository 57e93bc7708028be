"""Will a run fit a TPU slice that nobody has yet? Its step, compiled ahead of time on a CPU."""

from influence_jax.planning.compile import Inputs, Plan, TooLarge, compile_step
from influence_jax.planning.costs import Cost, StoreBytes, cost, store_bytes
from influence_jax.planning.description import describe, estimate
from influence_jax.planning.planned_run import (
    GPT_NEO_1_3B,
    PlannedRun,
    RunSettings,
    checkpoint_config,
    language_run,
)
from influence_jax.planning.proposal import Proposal, candidates, propose
from influence_jax.planning.roofline import CHIPS, Chip, Roofline, StepCost, least_time, step_cost
from influence_jax.planning.small_members import compile_members, describe_members
from influence_jax.planning.topology import Topology, find

__all__ = [
    'CHIPS',
    'GPT_NEO_1_3B',
    'Chip',
    'Cost',
    'Inputs',
    'Plan',
    'PlannedRun',
    'Proposal',
    'Roofline',
    'RunSettings',
    'StepCost',
    'StoreBytes',
    'TooLarge',
    'Topology',
    'candidates',
    'checkpoint_config',
    'compile_members',
    'compile_step',
    'cost',
    'describe',
    'describe_members',
    'estimate',
    'find',
    'language_run',
    'least_time',
    'propose',
    'step_cost',
    'store_bytes',
]
