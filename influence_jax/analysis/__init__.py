"""What an influence matrix shows: memorization, margins, duplicates, membership, convergence."""

from influence_jax.analysis import convergence, duplicates, membership
from influence_jax.analysis.convergence import Convergence, split_half
from influence_jax.analysis.groups import GroupInfluence, additive_group_influence, group_influence
from influence_jax.analysis.margins import self_influence, self_influence_excess, top1_margin
from influence_jax.analysis.ranking import (
    TopInfluencers,
    auroc,
    average_precision,
    precision_at_k,
    top_influencers,
)
from influence_jax.analysis.views import Overview, overview

__all__ = [
    'Convergence',
    'GroupInfluence',
    'Overview',
    'TopInfluencers',
    'additive_group_influence',
    'auroc',
    'average_precision',
    'convergence',
    'duplicates',
    'group_influence',
    'membership',
    'overview',
    'precision_at_k',
    'self_influence',
    'self_influence_excess',
    'split_half',
    'top1_margin',
    'top_influencers',
]
