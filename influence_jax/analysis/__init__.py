"""What the influence matrix says: memorization, margins, rankings, convergence."""

from influence_jax.analysis.convergence import Convergence, split_half
from influence_jax.analysis.margins import self_influence, top1_margin
from influence_jax.analysis.overview import Overview, overview
from influence_jax.analysis.ranking import TopInfluencers, auroc, top_influencers

__all__ = [
    'Convergence',
    'Overview',
    'TopInfluencers',
    'auroc',
    'overview',
    'self_influence',
    'split_half',
    'top1_margin',
    'top_influencers',
]
