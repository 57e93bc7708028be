"""Significant pairs of two results: those in both, and those that one alone lists."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from influence_jax.explorer import encoding
from influence_jax.explorer.entries import StoredEntries
from influence_jax.report.results import Results

MOST_ROWS = 2**16
"""Pairs of the table."""

EntriesAt = Callable[[Int[np.ndarray, ' n'], Int[np.ndarray, ' n']], Float[np.ndarray, '2 n']]
"""Reads values and errors where examples cross targets, NaN where they are not known."""


def compared_pairs(
    first: Results, second: Results, entries: tuple[EntriesAt, EntriesAt] | None = None
) -> dict[str, Any]:
    """Returns the significant pairs of examples and targets that both have, largest first.

    `listed` is 0 of pairs in both, 1 of those in the first alone, 2 of those in the second alone.
    A value that one does not list is given where it is stored, or can be estimated again.

    Args:
        first: results.
        second: others.
        entries: readers of both; by default of what is stored.
    """
    examples = _places(first.example_ids, second.example_ids)
    targets = _places(first.target_ids, second.target_ids)
    width = len(first.example_ids)
    of_first, of_second = first.summary.pairs, second.summary.pairs
    here = (examples[0][of_first.examples] >= 0) & (targets[0][of_first.targets] >= 0)
    there = examples[1][of_second.examples], targets[1][of_second.targets]
    keys = (
        of_first.targets[here].astype(np.int64) * width + of_first.examples[here],
        (there[1].astype(np.int64) * width + there[0])[(there[0] >= 0) & (there[1] >= 0)],
    )
    every = np.union1d(*keys)
    in_first, in_second = (np.isin(every, of) for of in keys)
    listed = np.where(in_first & in_second, 0, np.where(in_first, 1, 2))
    target, example = np.divmod(every, width)
    at = (example, target), (examples[0][example], targets[0][target])
    readers = entries or tuple(StoredEntries(of.summary).at for of in (first, second))
    found = np.array([read(*places) for read, places in zip(readers, at, strict=True)])
    size = np.nan_to_num(np.abs(found[:, 0])).max(axis=0)
    order = np.argsort(-size, kind='stable')[:MOST_ROWS]
    both, first_alone, second_alone = np.bincount(listed, minlength=3).tolist()
    return {
        'both': both,
        'first': first_alone,
        'second': second_alone,
        'examples': [encoding.integers(places[0][order]) for places in at],
        'targets': [encoding.integers(places[1][order]) for places in at],
        'listed': encoding.integers(listed[order]),
        'columns': {
            f'{name}_{number}': encoding.floats(found[number, part, order])
            for number in (0, 1)
            for part, name in enumerate(('value', 'error'))
        },
    }


def _places(
    first: tuple[str, ...], second: tuple[str, ...]
) -> tuple[Int[np.ndarray, ' _'], Int[np.ndarray, ' _']]:
    """Returns where each of the first is in the second, and the reverse; -1 for nowhere."""
    known = [{name: place for place, name in enumerate(names)} for names in (first, second)]
    return (
        np.array([known[1].get(name, -1) for name in first], np.int64),
        np.array([known[0].get(name, -1) for name in second], np.int64),
    )
