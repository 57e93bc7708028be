"""What the page begins with: which are memorized, because of which others, and how sure that is."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from influence_jax.analysis.verdicts import Verdict
from influence_jax.estimators import Summary, cross_fitted_values, z_scores
from influence_jax.report.results import Results

ROWS = 50
_OF_THE_REST = 10
OTHERS = 3
"""At most, that the table shows of each target."""

_FIRST = 12
"""Rows that are always seen; the others fold away."""

_FEWEST_OTHERS = 2


class Rows(NamedTuple):
    """Targets of one kind, in the order in which the table lists them.

    title: heading of the rows.
    targets: `[_]` positions.
    """

    title: str
    targets: Int[np.ndarray, ' _']


def choose_rows(
    summary: Summary, self_index: Int[np.ndarray, ' T'], found: Int[np.ndarray, ' T']
) -> tuple[Rows, ...]:
    """Chooses the targets of the table: half of them unique, half with near-duplicates.

    By self-influence alone there would be unique targets only, as near-duplicates share theirs.
    Where there are fewer of one kind, there are more of the other, and then a few of the rest.

    Args:
      summary: of the influences.
      self_index: `[T]` the example that each target is, -1 where it is none.
      found: `[T]` from `verdicts`.

    Returns:
      At most `ROWS` targets: unique ones, largest self-influence first; those with near-duplicates,
      surest first, of targets that name one another the first alone; the rest, of the largest
      influence. Kinds without any are left out.
    """
    own = np.where(np.isnan(summary.self_influence), -np.inf, summary.self_influence)
    z = z_scores(summary.other_value, summary.other_standard_error)

    def those(kind: np.ndarray, *keys: np.ndarray) -> Int[np.ndarray, ' _']:
        order = np.lexsort([-key for key in keys])
        return order[kind[order]]

    unique = those(found == Verdict.UNIQUE, own)
    near = _without_twins(those(found == Verdict.NEAR_DUPLICATED, z), summary, self_index)
    of_near = min(len(near), max(ROWS // 2, ROWS - len(unique)))
    unique, near = unique[: ROWS - of_near], near[:of_near]
    decided = (found == Verdict.UNIQUE) | (found == Verdict.NEAR_DUPLICATED)
    most = min(ROWS - len(unique) - len(near), _OF_THE_REST)
    rest = those(~decided, summary.other_value, own)[:most]
    shared = 'With near-duplicates that stand in for them, one of each: surest first'
    if not (self_index >= 0).any():
        shared = 'With an example that stands out of the noise: surest first'
    kinds = (
        Rows('Memorized, each mostly from its own record: largest self-influence first', unique),
        Rows(shared, near),
        Rows('Of the rest, those of the largest influence', rest),
    )
    return tuple(kind for kind in kinds if len(kind.targets))


def _without_twins(
    targets: Int[np.ndarray, ' _'], summary: Summary, self_index: Int[np.ndarray, ' T']
) -> Int[np.ndarray, ' _']:
    """Leaves out targets whose strongest other is itself a target before them."""
    listed: set[int] = set()
    kept = []
    for target in targets.tolist():
        if int(summary.strongest_other[target]) not in listed:
            kept.append(target)
            listed.add(int(self_index[target]))
    return np.array(kept, int)


class Influencer(NamedTuple):
    """One of the strongest influences on a target.

    cross_fitted: the influence less what selecting it added; NaN of the target itself and of noise.
    is_noise: whether it may be: it has an error and does not stand out (`Summary.stands_out`).
    """

    example: int
    value: float
    standard_error: float
    cross_fitted: float
    is_target: bool
    is_noise: bool


def influencers(results: Results, target: int, *, most: int) -> Iterator[Influencer]:
    """Yields the strongest influences on a target, largest first."""
    summary, pairs = results.summary, results.summary.pairs
    examples = summary.top_examples[target, :most]
    stands_out = summary.stands_out(examples, np.full(len(examples), target))
    of_target = pairs.targets == target
    listed = dict(zip(pairs.examples[of_target], pairs.cross_fitted[of_target], strict=True))
    for rank, example in enumerate(examples.tolist()):
        value = float(summary.top_values[target, rank])
        error = float(summary.top_standard_errors[target, rank])
        is_target = example == results.example_of(target)
        cross_fitted = float(listed.get(example, math.nan))
        if stands_out[rank] and example not in listed and not is_target and error > 0:
            least_z, one = results.overview.z_threshold, np.array([value])
            cross_fitted = float(cross_fitted_values(one, one / error, least_z=least_z)[0])
        is_noise = not (stands_out[rank] or math.isnan(error))
        yield Influencer(example, value, error, cross_fitted, is_target, is_noise)


class Row(NamedTuple):
    """A target of the table; its numbers are in the summary.

    others: two or three of its strongest others, the third only where it stands out.
    """

    target: int
    verdict: Verdict
    others: tuple[Influencer, ...]


class Question(NamedTuple):
    """The table, and how many of all targets have each verdict.

    rows: by the title of their kind; those that are always seen.
    folded: likewise, the others.
    counts: of the verdicts that any target has.
    has_self_influence: whether any target is an example.
    """

    rows: tuple[tuple[str, tuple[Row, ...]], ...]
    folded: tuple[tuple[str, tuple[Row, ...]], ...]
    counts: tuple[tuple[Verdict, int], ...]
    has_self_influence: bool

    @property
    def shown(self) -> int:
        """Returns how many targets are always seen."""
        return sum(len(rows) for _, rows in self.rows)

    @property
    def more(self) -> int:
        """Returns how many targets fold away."""
        return sum(len(rows) for _, rows in self.folded)


def question(results: Results) -> Question:
    """Answers it from the results."""
    summary = results.summary
    found = results.verdicts

    def row(target: int) -> Row:
        strongest = influencers(results, target, most=OTHERS + 1)
        others = [one for one in strongest if not one.is_target][:OTHERS]
        kept = (one for rank, one in enumerate(others) if rank < _FEWEST_OTHERS or not one.is_noise)
        return Row(target, Verdict(found[target]), tuple(kept))

    kinds = choose_rows(summary, results.overview.target_examples, found)
    counts = np.bincount(found, minlength=len(Verdict)).tolist()

    def parts(seen: bool) -> Iterator[tuple[str, tuple[Row, ...]]]:
        for kind, first in zip(kinds, _first_of_each(kinds), strict=True):
            if len(targets := kind.targets[:first] if seen else kind.targets[first:]):
                yield kind.title, tuple(map(row, targets.tolist()))

    return Question(
        tuple(parts(True)),
        tuple(parts(False)),
        tuple((one, counts[one]) for one in Verdict if counts[one]),
        bool(np.isfinite(summary.self_influence).any()),
    )


def _first_of_each(kinds: tuple[Rows, ...]) -> list[int]:
    """Returns how many rows of each kind are always seen: as many of each as there is room for."""
    first, left = [0] * len(kinds), _FIRST
    while left and any(seen < len(kind.targets) for seen, kind in zip(first, kinds, strict=True)):
        for i, kind in enumerate(kinds):
            if left and first[i] < len(kind.targets):
                first[i], left = first[i] + 1, left - 1
    return first
