"""Which targets and examples are worth a reader's look."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from influence_jax.estimators.summary import Summary


class Block(NamedTuple):
    """Rows and columns of a readable piece of the influence matrix.

    examples: `[b]` rows.
    targets: `[c]` columns.
    """

    examples: Int[np.ndarray, ' b']
    targets: Int[np.ndarray, ' c']


def by_margin(summary: Summary) -> Int[np.ndarray, ' T']:
    """All targets, lowest margin first; those without an other example beyond noise behind."""
    return np.lexsort((_undefined_last(summary.margin), ~summary.other_stands_out))


def by_self_influence(summary: Summary) -> Int[np.ndarray, ' _']:
    """All targets that are examples, largest self-influence first."""
    order = np.argsort(-summary.self_influence, kind='stable')
    return order[~np.isnan(summary.self_influence[order])]


def spread_of_kinds(
    lowest_margin: Int[np.ndarray, ' _'], most_memorized: Int[np.ndarray, ' _'], *, each: int
) -> Int[np.ndarray, ' d']:
    """Some of lowest margin, of largest self-influence, and from the middle of the margins."""
    middle = lowest_margin[len(lowest_margin) // 2 :]
    kinds = np.concatenate([lowest_margin[:each], most_memorized[:each], middle[:each]])
    return np.array(list(dict.fromkeys(kinds.tolist())), int)


def block_of_neighbours(
    summary: Summary,
    own: Int[np.ndarray, ' T'],
    targets: Int[np.ndarray, ' _'],
    *,
    size: int,
) -> Block:
    """Targets next to what influences them beyond noise, that next to what influences it, ...

    Args:
      summary: of the whole matrix.
      own: `[T]` the example that each target is, or -1.
      targets: from which to start, in order.
      size: at most so many rows.
    """
    target_of = {int(e): t for t, e in enumerate(own) if e >= 0}
    significant = summary.top_stands_out

    placed: dict[int, None] = {}
    for start in targets:
        # Even where nothing is significant, the strongest is what the reader wants to see.
        pending = [int(summary.strongest_other[start])]
        pending += summary.top_examples[start][significant[start]][::-1].tolist()
        pending += [int(own[start])] if own[start] >= 0 else []
        while pending and len(placed) < size:
            example = pending.pop()
            if example in placed:
                continue
            placed[example] = None
            if example in target_of:
                target = target_of[example]
                pending += summary.top_examples[target][significant[target]][::-1].tolist()
    examples = np.array(list(placed), int)
    if all(example in target_of for example in placed):
        return Block(examples, np.array([target_of[e] for e in placed], int))
    return Block(examples, targets[:size])


def _undefined_last(values: Float[np.ndarray, ' T']) -> Float[np.ndarray, ' T']:
    return np.where(np.isnan(values), np.inf, values)
