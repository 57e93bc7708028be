"""Will a run fit a TPU slice that nobody has yet? Its step, compiled ahead of time on a CPU."""

from influence_jax.planning.compile import Inputs, Plan, TooLarge, compile_step
from influence_jax.planning.cost import Cost, cost
from influence_jax.planning.proposal import Proposal, candidates, propose
from influence_jax.planning.topology import Topology, find

__all__ = [
    'Cost',
    'Inputs',
    'Plan',
    'Proposal',
    'TooLarge',
    'Topology',
    'candidates',
    'compile_step',
    'cost',
    'find',
    'propose',
]
