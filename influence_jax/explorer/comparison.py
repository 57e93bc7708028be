"""Two results of the same targets side by side: which targets moved beyond their errors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from influence_jax import formatting
from influence_jax.analysis.shared_members import SharedMembers, shared_members
from influence_jax.estimators import benjamini_hochberg, p_values, z_scores
from influence_jax.explorer import encoding
from influence_jax.explorer.compared_pairs import EntriesAt, compared_pairs
from influence_jax.report.results import Results

BothDigests = tuple[Int[np.ndarray, '_ 2'] | None, Int[np.ndarray, '_ 2'] | None]

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
    members: BothDigests = (None, None),
    entries: tuple[EntriesAt, EntriesAt] | None = None,
    differences: Sequence[str] = (),
) -> dict[str, Any]:
    """Returns `compare.json`.

    A target has moved where its two self-influences differ by more than the error of their
    difference explains: Benjamini and Hochberg at a false discovery rate of 5 %. Members that both
    have in common make that error smaller, see `SharedMembers.error_factor`. Where it is not known,
    or is zero, nothing is tested: `tested` is false, and `moved` is 0.

    Args:
        first: results.
        second: others.
        members: `member_digests` of both; by default those that the results have.
        entries: readers of entries of both, see `compared_pairs`.
        differences: between the settings of the two, a line for each.

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
    shared = _shared_members(first, second, members)
    is_tested = shared.is_testable if shared else not _same_losses(first, second, places)
    difference = values[1] - values[0]
    error = np.hypot(*errors) * (shared.error_factor if shared and is_tested else 1)
    z = z_scores(difference, error)
    used = [summary.members_used for summary, _ in both]
    p = p_values(z, members=min(used) if min(used) >= 3 else None)
    moved = benjamini_hochberg(p, level=LEVEL) & is_tested
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
        'tested': is_tested,
        'members': [_ensemble(results) for results in (first, second)],
        'median_errors': {
            'self_influence': encoding.numbers(map(_median, errors)),
            'entry': encoding.numbers(_median(of.null_standard_error[at]) for of, at in both),
        },
        'pairs': compared_pairs(first, second, entries),
        'differences': list(differences),
        'caveats': _caveats(first, second, places, _about_members(shared, is_tested=is_tested)),
    }


def _caveats(
    first: Results, second: Results, places: Int[np.ndarray, '2 S'], about_members: str
) -> list[str]:
    found = []
    if first.unit != second.unit:
        found.append(
            encoding.prose(f'The units differ ({first.unit} and {second.unit}): so do the values.')
        )
    found.append(about_members)
    if all(name.isdecimal() for name in first.target_ids):
        found.append('Targets are matched by their positions: they have no ids of their own.')
    left_out = [count - places.shape[1] for count in (first.num_targets, second.num_targets)]
    if any(left_out):
        found.append(
            f'{left_out[0]:,} targets are in the first alone, {left_out[1]:,} in the second alone.'
        )
    return found


def _shared_members(first: Results, second: Results, members: BothDigests) -> SharedMembers | None:
    """Returns how many members both have in common; None where those of one are not known."""
    one, other = (
        results.member_digests if digests is None else digests
        for results, digests in zip((first, second), members, strict=True)
    )
    return None if one is None or other is None else shared_members(one, other)


def _same_losses(first: Results, second: Results, places: Int[np.ndarray, '2 S']) -> bool:
    """Returns whether mean losses are the same, as of two estimators on one ensemble."""
    one, other = first.mean_loss, second.mean_loss
    return (
        one is not None and other is not None and np.array_equal(one[places[0]], other[places[1]])
    )


def _about_members(shared: SharedMembers | None, *, is_tested: bool) -> str:
    """Returns which members both have in common, and what that does to the errors."""
    untested = 'whether a difference is beyond its error is not tested'
    if shared is None and is_tested:
        return (
            'Which members a report is of is not kept with one of the two: errors are taken as '
            'independent. Where one is a part of the other they are too large: write both reports '
            'again, and it is known.'
        )
    if shared is None or shared.shared == shared.first == shared.second:
        return (
            f'Both are of the same members: their errors are not independent, and {untested}. '
            f'Compare ensembles of different seeds for that.'
        )
    if shared.same_subset:
        common = f'{shared.shared:,} members are in both, and ' if shared.shared else ''
        return (
            f'{common}{shared.same_subset:,} members have the subsets of members of the other run, '
            f'with other losses: the error of a difference is an upper bound, and {untested}. '
            f'Compare ensembles of different seeds for that.'
        )
    if not shared.shared:
        return 'No members in common: errors are independent.'
    if shared.is_nested:
        part, whole = sorted((shared.first, shared.second))
        name = 'first' if shared.first == part else 'second'
        other = 'second' if name == 'first' else 'first'
        return (
            f'The {name} is {part:,} of the {whole:,} members of the {other}: the error of a '
            f'difference is that of a part and the whole, {shared.error_factor:.2f} times that of '
            f'two independent runs.'
        )
    return (
        f'{shared.shared:,} members are in both, of {shared.first:,} and {shared.second:,}: the '
        f'error of a difference is {shared.error_factor:.2f} times that of two independent runs, '
        f'which is an upper bound.'
    )


def _ensemble(results: Results) -> str:
    """Returns how many members there are: '100 members', or '48 masks, 10 members each'."""
    subsets, members = results.summary.members_used, results.members or 0
    if members <= subsets:
        return formatting.count(subsets, 'member')
    masks, each = formatting.count(subsets, 'mask'), members / subsets
    if each % 1:
        return f'{masks}, {formatting.count(members, "member")}'
    return f'{masks}, {formatting.count(int(each), "member")} each'


def _median(values: Float[np.ndarray, ' n']) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else np.nan
