"""Two results of the same targets side by side: which targets moved beyond their errors."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from influence_jax.estimators import benjamini_hochberg, p_values, z_scores
from influence_jax.explorer import encoding
from influence_jax.report.results import Results

LEVEL = 0.05
"""False discovery rate at which a target has moved."""

_SIDE_BY_SIDE = 'self_influence', 'margin', 'z_margin', 'other_value', 'effective_members'


def shared_targets(first: Results, second: Results) -> Int[np.ndarray, '2 S']:
    """Returns positions of the targets of the same id in both, in the order of the first."""
    there = {name: place for place, name in enumerate(second.target_ids)}
    pairs = [(place, there[name]) for place, name in enumerate(first.target_ids) if name in there]
    return np.array(pairs, np.int32).reshape(-1, 2).T


def compare_document(
    first: Results,
    second: Results,
    *,
    masks: tuple[Bool[np.ndarray, '_ _'] | None, Bool[np.ndarray, '_ _'] | None] | None = None,
) -> dict[str, Any]:
    """Returns `compare.json`.

    A target has moved where its two self-influences differ by more than their errors explain:
    Benjamini and Hochberg at a false discovery rate of 5 %, errors taken as independent.
    Where members are shared they are not, and nothing is tested: `independent` is false, and
    `moved` is 0.

    Args:
        first: results.
        second: others.
        masks: `[M N]` of the members of both, None where not known.

    Raises:
        ValueError: no target is in both.
    """
    places = shared_targets(first, second)
    if not places.size:
        raise ValueError(
            f'no target has the same id in both, such as {first.target_ids[0]!r:.80} and '
            f'{second.target_ids[0]!r:.80}: compare results of the same records, '
            f'and name these alike with ids= (or --ids) when they are stored'
        )
    both = tuple((results.summary, at) for results, at in zip((first, second), places, strict=True))
    values = [summary.self_influence[at].astype(np.float64) for summary, at in both]
    errors = [summary.self_standard_error[at].astype(np.float64) for summary, at in both]
    difference, error = values[1] - values[0], np.hypot(*errors)
    z = z_scores(difference, error)
    used = [summary.members_used for summary, _ in both]
    p = p_values(z, members=min(used) if min(used) >= 3 else None)
    shared = _shared_members(first, second, places, masks)
    moved = benjamini_hochberg(p, level=LEVEL) & (shared is None)
    columns = {'difference': difference, 'error': error, 'z': z}
    for number, (summary, at) in enumerate(both):
        columns |= {f'{name}_{number}': getattr(summary, name)[at] for name in _SIDE_BY_SIDE}
        columns[f'self_influence_error_{number}'] = errors[number]
    return {
        'runs': [0, 1],
        'ids': [encoding.name(first.target_ids[place]) for place in places[0].tolist()],
        'target': [encoding.integers(at) for at in places],
        'columns': {name: encoding.floats(column) for name, column in columns.items()},
        'moved': {'self_influence': encoding.integers(moved)},
        'count': int(moved.sum()),
        'level': LEVEL,
        'independent': shared is None,
        'pairs': _pairs_in_common(first, second),
        'caveats': _caveats(first, second, places, shared),
    }


def _pairs_in_common(first: Results, second: Results) -> dict[str, int]:
    """Counts significant pairs of examples and targets that both have, by who lists them."""
    ids = set(first.example_ids) & set(second.example_ids)
    targets = set(first.target_ids) & set(second.target_ids)
    listed = []
    for results in (first, second):
        pairs = results.summary.pairs
        names = (
            (results.example_ids[example], results.target_ids[target])
            for example, target in zip(pairs.examples.tolist(), pairs.targets.tolist(), strict=True)
        )
        listed.append({(e, t) for e, t in names if e in ids and t in targets})
    one, other = listed
    return {'both': len(one & other), 'first': len(one - other), 'second': len(other - one)}


def _caveats(
    first: Results, second: Results, places: Int[np.ndarray, '2 S'], shared: str | None
) -> list[str]:
    found = []
    if first.unit != second.unit:
        found.append(
            encoding.prose(f'The units differ ({first.unit} and {second.unit}): so do the values.')
        )
    if shared is not None:
        found.append(
            f'{shared}: their errors are not independent, so that whether a difference is beyond '
            f'them is not tested. Compare ensembles of different seeds for that.'
        )
    else:
        found.append(
            'Errors are taken as independent, as those of members of their own are; of members '
            'that both have in common they are not.'
        )
    if all(name.isdecimal() for name in first.target_ids):
        found.append('Targets are matched by their positions: they have no ids of their own.')
    left_out = [count - places.shape[1] for count in (first.num_targets, second.num_targets)]
    if any(left_out):
        found.append(
            f'{left_out[0]:,} targets are in the first alone, {left_out[1]:,} in the second alone.'
        )
    return found


def _shared_members(
    first: Results,
    second: Results,
    places: Int[np.ndarray, '2 S'],
    masks: tuple[Bool[np.ndarray, '_ _'] | None, Bool[np.ndarray, '_ _'] | None] | None,
) -> str | None:
    """Returns how members are shared, as a sentence begins; None where none are known to be."""
    if masks is not None and masks[0] is not None and masks[1] is not None:
        members = min(len(masks[0]), len(masks[1]))
        if np.array_equal(masks[0][:members], masks[1][:members]):
            if len(masks[0]) == len(masks[1]):
                return 'Both are of the same members, or of members with the same subsets'
            short = 'first' if members == len(masks[0]) else 'second'
            return f'The {members:,} subsets of the {short} are the beginning of those of the other'
    one, other = first.mean_loss, second.mean_loss
    if one is None or other is None or not np.array_equal(one[places[0]], other[places[1]]):
        return None
    return 'Both are of the same members'  # as of two estimators on one ensemble
