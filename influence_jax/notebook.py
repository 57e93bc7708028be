"""Runs and columns as notebooks show them: a little HTML, made of what takes seconds at most."""

import contextlib
import html
import math
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators import Estimator, difference_in_means
from influence_jax.formatting import count, measured, number
from influence_jax.text import LONGEST_NAME, clean

ROWS = 5
"""Of a table."""

_FEWEST_MEMBERS = 4
_TILE = 1024


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table; every text is escaped, and nothing in it is invisible or endless."""

    def cells(tag: str, texts: Sequence[str]) -> str:
        side = ('left', *['right'] * (len(texts) - 1))
        return ''.join(
            f'<{tag} style="text-align: {where}">{escaped(text)}</{tag}>'
            for where, text in zip(side, texts, strict=True)
        )

    lines = ''.join(f'<tr>{cells("td", row)}</tr>' for row in rows)
    top = f'<caption style="text-align: left">{escaped(caption)}</caption>'
    return (
        f'<table>{top}<thead><tr>{cells("th", header)}</tr></thead><tbody>{lines}</tbody></table>'
    )


def escaped(text: str) -> str:
    """Returns text from data for HTML."""
    return html.escape(clean(text, most=LONGEST_NAME))


def status_line(*, members: int, complete: int, diverged: int, examples: int, targets: int) -> str:
    """Returns '128 of 512 members, 1 diverged; 1,567 examples, 1,567 targets'."""
    left_out = f', {diverged:,} diverged' if diverged else ''
    sizes = f'{count(examples, "example")}, {count(targets, "target")}'
    return f'{complete:,} of {count(members, "member")}{left_out}; {sizes}'


def memorized(
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    self_index: Int[np.ndarray, ' T'],
    ids: Sequence[str],
    *,
    unit: str,
    estimator: Estimator,
) -> str:
    """Returns a table of the targets that members with them predict best beside the others.

    The plain difference of means, which takes members times targets operations, chooses a few; of
    these the numbers are the estimator's, as in a report. Where it refuses, as while members are
    too few, they are those of the difference of means, and the table says so. Nothing where no
    target is an example, or where members are fewer than four.

    Args:
      masks: of the complete members.
      losses: of the same.
      self_index: `[T]` the example that each target is, -1 where it is none.
      ids: `[T]`.
      unit: of the losses.
      estimator: of self-influence.
    """
    known = np.flatnonzero(self_index >= 0)
    tiles = [known[start : start + _TILE] for start in range(0, len(known), _TILE)]
    if not tiles or len(masks) < _FEWEST_MEMBERS:
        return ''
    parts = [_by_membership(masks[:, self_index[one]], losses[:, one]) for one in tiles]
    held, left_out, error = (np.concatenate(part) for part in zip(*parts, strict=True))
    own = left_out - held
    rated = np.flatnonzero(np.isfinite(own) & np.isfinite(error))
    if not rated.size:
        return ''
    chosen = rated[np.argsort(-own[rated], kind='stable')][: 2 * ROWS]
    by, values, errors = difference_in_means.title, own[chosen], error[chosen]
    with contextlib.suppress(ValueError):
        columns = estimator.of_targets(masks, losses, known[chosen], target_examples=self_index)
        own_entries = self_index[known[chosen]], np.arange(len(chosen))
        values, errors = (np.asarray(part)[own_entries] for part in columns)
        by = estimator.title
    strongest = np.argsort(-values, kind='stable')[:ROWS].tolist()
    rows = [
        (
            ids[known[chosen[i]]],
            measured(values[i], errors[i]),
            number(held[chosen[i]]),
            number(left_out[chosen[i]]),
        )
        for i in strongest
    ]
    header = ('target', 'self-influence', 'mean with it', 'without')
    median = number(np.median(own[rated]))
    of_all = 'median' if by == difference_in_means.title else 'median, by difference of means,'
    return table(f'Most memorized, by {by} ({unit}); the {of_all} is {median}', header, rows)


def _by_membership(
    held: Bool[np.ndarray, 'M t'], losses: Float[np.ndarray, 'M t']
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns mean losses `[t]` of members with each target and without, and Welch's error."""
    center = losses.mean(axis=0, dtype=np.float64)
    centered = losses - center
    squares = centered * centered
    count_held = held.sum(axis=0)
    sums, sums_of_squares = (np.einsum('mt,mt->t', one, held) for one in (centered, squares))
    with np.errstate(divide='ignore', invalid='ignore'):
        means, variances = [], []
        for number_of, total, total_of_squares in (
            (count_held, sums, sums_of_squares),
            (len(held) - count_held, -sums, squares.sum(axis=0) - sums_of_squares),
        ):
            mean = total / number_of
            scatter = np.maximum(total_of_squares - number_of * mean**2, 0)
            means.append(center + mean)
            variances.append(scatter / (number_of - 1) / number_of)
        return means[0], means[1], np.sqrt(variances[0] + variances[1])


def strongest(
    title: str,
    ids: Sequence[str],
    values: Float[np.ndarray, ' N'],
    errors: Float[np.ndarray, ' N'],
    self_index: int | None,
    *,
    z_threshold: float = math.nan,
) -> str:
    """Returns a table of the largest influences on a target, and of the most negative one.

    Marked are those within `z_threshold` standard errors of zero, see `run.Column`.
    """
    order = np.argsort(-values, kind='stable')
    chosen = [*order[:ROWS], *(order[-1:] if len(order) > ROWS and values[order[-1]] < 0 else ())]
    rows = []
    for i in map(int, chosen):
        name = f'{ids[i]} (itself)' if i == self_index else ids[i]
        noise = 'may be noise' if abs(values[i]) <= z_threshold * errors[i] else ''
        rows.append((name, measured(values[i], errors[i]), noise))
    if not math.isnan(z_threshold):
        title += (
            f'; noise alone reaches {number(z_threshold, 1)} standard errors in such a column: '
            f'what stands out of the whole matrix is in run.summary().pairs'
        )
    return table(title, ('example', 'influence', ''), rows)
