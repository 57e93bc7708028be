"""Near-duplicates read from influence: candidate pairs, clusters, and how good they are."""

from influence_jax.analysis.duplicates.candidates import (
    CandidatePairs,
    ScoredPairs,
    best_scores,
    candidate_pairs,
    clusters,
    low_self_influence_pairs,
)
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
