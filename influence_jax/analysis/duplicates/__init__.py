"""Near-duplicates read from influence: candidate pairs, clusters, and how good they are."""

from influence_jax.analysis.duplicates.candidates import (
    CandidatePairs,
    ScoredPairs,
    candidate_pairs,
    low_self_influence_pairs,
)
from influence_jax.analysis.duplicates.clusters import best_scores, clusters
from influence_jax.analysis.duplicates.evaluation import Retrieval, evaluate

__all__ = [
    'CandidatePairs',
    'Retrieval',
    'ScoredPairs',
    'best_scores',
    'candidate_pairs',
    'clusters',
    'evaluate',
    'low_self_influence_pairs',
]
