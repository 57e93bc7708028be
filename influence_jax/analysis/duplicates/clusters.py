"""From pairs to clusters, and to one score of each example."""

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array, csgraph

from influence_jax.analysis.duplicates.candidates import CandidatePairs, ScoredPairs


def clusters(
    pairs: CandidatePairs | ScoredPairs, *, examples: int, threshold: float
) -> Int[np.ndarray, ' N']:
    """Examples joined by pairs that score at least `threshold`: connected components.

    Single linkage: A and C share a cluster if both are paired with B, however unlike A and C are.
    One false pair joins two clusters, and a series in which each resembles the next becomes one
    cluster; look at the largest before trusting them, and raise the threshold.

    Args:
      pairs: scored pairs.
      examples: N.
      threshold: lowest score of a pair that joins.

    Returns:
      `[N]` the cluster of each example, numbered by their first example from 0; an example in no
      pair is a cluster by itself. So it can be given to `subsets.draw(groups=...)` as it is.

    Raises:
      ValueError: a pair names an example that does not exist.
    """
    _check(pairs, examples)
    joined = pairs.examples[pairs.scores >= threshold]
    edges = (np.ones(len(joined), bool), (joined[:, 0], joined[:, 1]))
    graph = coo_array(edges, shape=(examples, examples))
    _, labels = csgraph.connected_components(graph, directed=False)
    return labels.astype(np.int64)


def best_scores(pairs: CandidatePairs | ScoredPairs, *, examples: int) -> Float[np.ndarray, ' N']:
    """Of each example the highest score of its pairs, -inf where it is in none.

    How likely an example has any near-duplicate.

    Raises:
      ValueError: a pair names an example that does not exist.
    """
    _check(pairs, examples)
    best = np.full(examples, -np.inf)
    np.maximum.at(best, pairs.examples, pairs.scores[:, None])
    return best


def _check(pairs: CandidatePairs | ScoredPairs, examples: int) -> None:
    named = pairs.examples
    if named.size and not 0 <= named.min() <= named.max() < examples:
        raise ValueError(
            f'pairs name the examples {named.min()} to {named.max()}, '
            f'but there are the examples 0 to {examples - 1}'
        )
