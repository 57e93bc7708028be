"""What the influence matrix says: memorization, margins, duplicates, membership, convergence."""

from influence_jax.analysis import duplicates, membership
from influence_jax.analysis.convergence import Convergence, split_half
from influence_jax.analysis.groups import (
    GroupInfluence,
    additive_group_influence,
    group_influence,
)
from influence_jax.analysis.margins import self_influence, top1_margin
from influence_jax.analysis.overview import Overview, overview
from influence_jax.analysis.ranking import (
    TopInfluencers,
    auroc,
    average_precision,
    precision_at_k,
    top_influencers,
)

__all__ = [
    'Convergence',
    'GroupInfluence',
    'Overview',
    'TopInfluencers',
    'additive_group_influence',
    'auroc',
    'average_precision',
    'duplicates',
    'group_influence',
    'membership',
    'overview',
    'precision_at_k',
    'self_influence',
    'split_half',
    'top1_margin',
    'top_influencers',
]
