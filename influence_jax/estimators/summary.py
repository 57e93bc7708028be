"""What a page and a table need of the influence matrix, without ever holding the matrix."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from influence_jax.estimators.difference import TILE, tiles
from influence_jax.estimators.ensemble import examples_of_targets, usable
from influence_jax.estimators.histogram import GrowingHistogram
from influence_jax.estimators.margin import margin_of_largest
from influence_jax.types import AnyArray, Influence, Masks, Measurement

QUANTILE_LEVELS = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)


class Summary(NamedTuple):
    """Each target's influence distribution in short; plain numpy arrays, float32 and int32.

    Values and standard errors have the unit of the measurement (nats for 'loss') and the sign of
    `types.Influence`: positive where including the example lowers the measurement.
    'Other' means: other than the target itself; where a target is no example, every example
    is other.

    self_influence: `[T]` influence of the target's own example on it; NaN where it is no example.
    self_standard_error: `[T]` its standard error; NaN likewise.
    margin: `[T]` the paper's Top-1 Influence Margin, largest over second largest influence of
        the column, self included; at least 1, inf where only the largest is positive, NaN where
        none is.
    top_examples: `[T K]` each target's strongest examples, largest influence first, self included;
        K = min(top_k, N).
    top_values: `[T K]` their influences.
    top_standard_errors: `[T K]` the standard errors of these.
    strongest_other: `[T]` the example of largest influence, other than the target itself.
    other_value: `[T]` its influence.
    other_standard_error: `[T]` the standard error of that.
    mean: `[T]` of the target's whole column, self included.
    standard_deviation: `[T]` of the same entries (over N, not N - 1).
    quantile_levels: `[Q]` in [0, 1].
    quantiles: `[T Q]` of the same entries, linearly interpolated.
    bin_edges: `[E]` ascending, evenly spaced, symmetric about zero; they enclose every entry.
    histogram: `[E - 1]` int64, how many off-diagonal entries of the whole matrix lie between them.
    members_used: how many members had finite measurements of every target.
    """

    self_influence: Float[np.ndarray, 'T']
    self_standard_error: Float[np.ndarray, 'T']
    margin: Float[np.ndarray, 'T']
    top_examples: Int[np.ndarray, 'T K']
    top_values: Float[np.ndarray, 'T K']
    top_standard_errors: Float[np.ndarray, 'T K']
    strongest_other: Int[np.ndarray, 'T']
    other_value: Float[np.ndarray, 'T']
    other_standard_error: Float[np.ndarray, 'T']
    mean: Float[np.ndarray, 'T']
    standard_deviation: Float[np.ndarray, 'T']
    quantile_levels: Float[np.ndarray, 'Q']
    quantiles: Float[np.ndarray, 'T Q']
    bin_edges: Float[np.ndarray, 'E']
    histogram: Int[np.ndarray, 'E-1']
    members_used: int


def summarize(
    masks: Masks,
    losses: Measurement,
    *,
    top_k: int = 16,
    tile: int = TILE,
    target_examples: Int[AnyArray, 'T'] | None = None,
    quantile_levels: tuple[float, ...] = QUANTILE_LEVELS,
    bins: int = 256,
) -> Summary:
    """Summarizes `difference_in_means` tile by tile; memory grows with N and T, not with N T.

    Args:
      masks: `[M N]` bool; row m is the subset on which member m was trained.
      losses: `[M T]` what was measured of member m on target t. Rows with anything non-finite,
        members missing or diverged, are left out.
      top_k: how many strongest examples to keep of each target; N at most.
      tile: how many targets at once.
      target_examples: `[T]` position of the example that each target is, -1 where it is none.
        By default target t is example t if T == N, and otherwise no target is an example.
      quantile_levels: in [0, 1].
      bins: of the histogram; a multiple of 4.

    Raises:
      ValueError: as in `difference_in_means`, fewer than two examples, or an argument outside of
        what is said above.
    """
    levels = np.asarray(quantile_levels, np.float64)
    if levels.ndim != 1 or not ((levels >= 0) & (levels <= 1)).all():
        raise ValueError(f'quantile_levels must lie in 0 .. 1, not {quantile_levels}')
    if top_k < 1:
        raise ValueError(f'{top_k=} must be at least 1')
    histogram = GrowingHistogram(bins)
    ensemble = usable(masks, losses)
    examples, targets = ensemble.masks.shape[1], ensemble.losses.shape[1]
    if examples < 2:
        raise ValueError('one example has no others to be compared with: give at least 2')
    own = examples_of_targets(target_examples, examples=examples, targets=targets)

    parts: list[dict[str, np.ndarray]] = []
    for columns, influence in tiles(*ensemble, tile=tile):
        part, rows = _strongest(influence, own[columns], max(2, min(top_k, examples)))
        rows.sort(axis=1)
        part['mean'] = rows.mean(axis=1, dtype=np.float64)
        part['standard_deviation'] = rows.std(axis=1, dtype=np.float64)
        part['quantiles'] = _quantiles_of_sorted(rows, levels)
        parts.append(part)
        # The histogram is of the off-diagonal entries: what the diagonal adds is taken out again.
        histogram.reach(max(np.abs(part['other_value']).max(), np.abs(rows[:, 0]).max()))
        histogram.count(rows)
        selves = part['self_influence'][own[columns] >= 0]
        histogram.count(np.sort(selves)[None, :], weight=-1)

    def joined(name: str) -> np.ndarray:
        whole = np.concatenate([part[name] for part in parts])
        return whole.astype(np.float32 if whole.dtype.kind == 'f' else np.int32)

    top = {name: joined(name) for name in ('top_examples', 'top_values', 'top_standard_errors')}
    return Summary(
        margin=margin_of_largest(top['top_values'][:, 0], top['top_values'][:, 1]),
        quantile_levels=levels.astype(np.float32),
        bin_edges=histogram.edges.astype(np.float32),
        histogram=histogram.counts,
        members_used=len(ensemble.masks),
        **{name: whole[:, :top_k] for name, whole in top.items()},
        **{name: joined(name) for name in parts[0] if name not in top},
    )


def _strongest(
    influence: Influence, own: Int[np.ndarray, 't'], k: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The largest entries and the own one of each target, and all values as writable `[t N]`."""
    values, top_values, top_examples, top_errors, own_value, own_error = (
        np.asarray(array) for array in _gather(*influence, jnp.asarray(np.maximum(own, 0)), k=k)
    )
    is_example = own >= 0
    # Either the largest or, where the target itself is that, the second.
    other = (np.arange(len(own)), (top_examples[:, 0] == own).astype(int))
    part = {
        'self_influence': np.where(is_example, own_value, np.nan),
        'self_standard_error': np.where(is_example, own_error, np.nan),
        'top_examples': top_examples,
        'top_values': top_values,
        'top_standard_errors': top_errors,
        'strongest_other': top_examples[other],
        'other_value': top_values[other],
        'other_standard_error': top_errors[other],
    }
    return part, values.copy()


@functools.partial(jax.jit, static_argnames='k')
def _gather(
    values: Float[Array, 'N t'],
    standard_error: Float[Array, 'N t'],
    own: Int[Array, 't'],
    *,
    k: int,
) -> tuple[Array, ...]:
    values, standard_error = values.T, standard_error.T
    top_values, top_examples = jax.lax.top_k(values, k)

    def pick(array: Array, at: Array) -> Array:
        return jnp.take_along_axis(array, at, axis=1)

    return (
        values,
        top_values,
        top_examples,
        pick(standard_error, top_examples),
        pick(values, own[:, None])[:, 0],
        pick(standard_error, own[:, None])[:, 0],
    )


def _quantiles_of_sorted(
    rows: Float[np.ndarray, 't N'], levels: Float[np.ndarray, 'Q']
) -> Float[np.ndarray, 't Q']:
    position = levels * (rows.shape[1] - 1)
    below = np.floor(position).astype(int)
    above = np.ceil(position).astype(int)
    return rows[:, below] + (rows[:, above] - rows[:, below]) * (position - below)
