"""What a page and a table need of the influence matrix, without ever holding the matrix."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.columns import Block, Columns, as_columns, blocks
from influence_jax.estimators.difference_of_means import difference_in_means
from influence_jax.estimators.ensemble import examples_of_targets, problem
from influence_jax.estimators.estimator import EstimatorLike, Method
from influence_jax.estimators.margin import floored_margin, margin_of_largest, z_margin
from influence_jax.estimators.pairs import (
    LEAST_ON_A_SIDE,
    Candidates,
    Discoveries,
    SignificantPairs,
)
from influence_jax.estimators.scan import EDGES, SummaryRequest
from influence_jax.estimators.tiling import tile_for
from influence_jax.estimators.uncertainty import largest_of_noise, z_scores
from influence_jax.formatting import count, number
from influence_jax.types import AnyArray, Masks, Measurement

QUANTILE_LEVELS = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)

_BINS_JOINED = 4
_STORED = {'f': np.float32, 'i': np.int32}


class Summary(NamedTuple):
    """Each target's influence distribution in short; plain numpy arrays, float32 and int32.

    Values and standard errors have the unit of the measurement (nats for 'loss') and the sign of
    `types.Influence`: positive where including the example lowers the measurement.
    'Other' means: other than the target itself; where a target is no example, every example
    is other.

    self_influence: `[T]` influence of the target's own example on it; NaN where it is no example.
    self_standard_error: `[T]` its standard error; NaN likewise.
    effective_members: `[T]` on how many members self-influence rests, see
        `standard_errors.Reliability`; below 20 neither it nor its error is to be relied upon. NaN
        likewise.
    margin: `[T]` the paper's Top-1 Influence Margin, largest over second largest influence of
        the column, self included; at least 1, inf where only the largest is positive, NaN where
        none is. Depends on M and N where the second is noise: see `docs/margins.md`.
    floored_margin: `[T]` the same with a floor under the second: as many of its standard errors as
        noise alone reaches once in the whole matrix.
    z_margin: `[T]` the difference of the two in standard errors; NaN for a constant target.
    top_examples: `[T K]` each target's strongest examples, largest influence first, self included;
        K = min(top_k, N).
    top_values: `[T K]` their influences.
    top_standard_errors: `[T K]` the standard errors of these.
    bottom_examples: `[T K]` the examples of least influence, most negative first.
    bottom_values: `[T K]` their influences.
    bottom_standard_errors: `[T K]` the standard errors of these.
    strongest_other: `[T]` the example of largest influence, other than the target itself.
    other_value: `[T]` its influence.
    other_standard_error: `[T]` the standard error of that.
    other_cross_fitted: `[T]` influence of the example that half of the members find strongest, by
        the other half: not exaggerated by the choice, see
        `difference_of_means.strongest_other`. NaN where a
        half finds none positive among the eight of largest absolute influence.
    other_stands_out: `[T]` whether `strongest_other` is more than noise, as in `top_stands_out`.
    top_stands_out: `[T K]` whether the entries of `top_examples` are more than noise: in a whole
        matrix without influence, one is expected to be so far above zero. Own ones by their error;
        never those of an example that is in, or out of, fewer than 10 members.
    mean: `[T]` of the target's whole column, self included.
    standard_deviation: `[T]` of the same entries (over N, not N - 1).
    skewness: `[T]` of the same entries; 0 for a symmetric column, NaN for a constant one.
    kurtosis: `[T]` of the same entries, in excess of a normal distribution's; NaN likewise.
    quantile_levels: `[Q]` in [0, 1].
    quantiles: `[T Q]` of the same entries, linearly interpolated.
    null_standard_error: `[T]` the standard error of an entry of the column without influence.
    z_edges: `[E]` ascending, evenly spaced.
    z_histogram: `[E - 1]` int64, how many off-diagonal entries of the whole matrix, divided by
        their column's `null_standard_error`, lie between the edges; the outermost bins hold all
        that is beyond. Without any influence it is a standard normal distribution.
    pairs: the off-diagonal entries that are not noise.
    estimator: the method by which influence was estimated; an `Estimator` where from masks and
        losses.
    members_used: how many members had finite measurements of every target; 0 where columns come
        from none.
    """

    self_influence: Float[np.ndarray, ' T']
    self_standard_error: Float[np.ndarray, ' T']
    effective_members: Float[np.ndarray, ' T']
    margin: Float[np.ndarray, ' T']
    floored_margin: Float[np.ndarray, ' T']
    z_margin: Float[np.ndarray, ' T']
    top_examples: Int[np.ndarray, 'T K']
    top_values: Float[np.ndarray, 'T K']
    top_standard_errors: Float[np.ndarray, 'T K']
    bottom_examples: Int[np.ndarray, 'T K']
    bottom_values: Float[np.ndarray, 'T K']
    bottom_standard_errors: Float[np.ndarray, 'T K']
    strongest_other: Int[np.ndarray, ' T']
    other_value: Float[np.ndarray, ' T']
    other_standard_error: Float[np.ndarray, ' T']
    other_cross_fitted: Float[np.ndarray, ' T']
    other_stands_out: Bool[np.ndarray, ' T']
    top_stands_out: Bool[np.ndarray, 'T K']
    mean: Float[np.ndarray, ' T']
    standard_deviation: Float[np.ndarray, ' T']
    skewness: Float[np.ndarray, ' T']
    kurtosis: Float[np.ndarray, ' T']
    quantile_levels: Float[np.ndarray, ' Q']
    quantiles: Float[np.ndarray, 'T Q']
    null_standard_error: Float[np.ndarray, ' T']
    z_edges: Float[np.ndarray, ' E']
    z_histogram: Int[np.ndarray, ' E-1']
    pairs: SignificantPairs
    estimator: Method
    members_used: int

    def __repr__(self) -> str:
        members = f', {count(self.members_used, "member")}' if self.members_used else ''
        medians = (
            f'median {what} {number(np.nanmedian(values))}'
            for what, values in (('self-influence', self.self_influence), ('margin', self.margin))
            if not np.isnan(values).all()
        )
        pairs = f'{"" if self.pairs.complete else "more than "}{len(self.pairs.examples):,}'
        return (
            f'Summary({count(len(self.margin), "target")} by {self.estimator.title}{members}: '
            f'{", ".join((*medians, f"{pairs} significant pairs"))})'
        )

    @property
    def top_z(self) -> Float[np.ndarray, 'T K']:
        """`top_values` in standard errors."""
        return z_scores(self.top_values, self.top_standard_errors)

    @property
    def bottom_z(self) -> Float[np.ndarray, 'T K']:
        """`bottom_values` in standard errors."""
        return z_scores(self.bottom_values, self.bottom_standard_errors)

    def stands_out(
        self, examples: Int[np.ndarray, ' n'], targets: Int[np.ndarray, ' n']
    ) -> Bool[np.ndarray, ' n']:
        """Returns which entries stand out of the noise: the one rule of page and explorer.

        An entry does where it is one of the significant `pairs` (at most `pairs.level` of which are
        false on average) or, own entries included, one of `top_stands_out` (which in a matrix
        without influence about one entry is).

        Args:
          examples: `[n]` positions of the entries' examples.
          targets: `[n]` positions of their targets.
        """
        beyond = np.nonzero(self.top_stands_out)
        found_examples = np.concatenate([self.pairs.examples, self.top_examples[beyond]])
        found_targets = np.concatenate([self.pairs.targets, beyond[0]])
        height = 1 + int(max(found_examples.max(initial=0), np.max(examples, initial=0)))
        return np.isin(
            np.asarray(targets, np.int64) * height + examples,
            found_targets.astype(np.int64) * height + found_examples,
        )


def summarize(
    source: Masks | Columns,
    losses: Measurement | None = None,
    *,
    estimator: EstimatorLike = difference_in_means,
    top_k: int = 16,
    tile: int | None = None,
    target_examples: Int[AnyArray, ' T'] | None = None,
    quantile_levels: tuple[float, ...] = QUANTILE_LEVELS,
    false_discoveries: float = 0.05,
) -> Summary:
    """Summarizes an estimate, or any columns, by blocks; memory grows with N and T, not with N T.

    `summarize(masks, losses, estimator=adjusted)`, or `summarize(Columns.of_matrix(scores))`. Of
    columns without standard errors, errors are NaN, nothing stands out, no pair is significant and
    the histogram of z is empty.

    Args:
      source: masks `[M N]` bool; row m is the subset on which member m was trained. Or `Columns`.
      losses: `[M T]` what was measured of member m on target t. Rows with anything non-finite,
        members missing or diverged, are left out. None for `Columns`.
      estimator: how influence is estimated; also a function, see `as_estimator`. Of no use for
        `Columns`.
      top_k: how many strongest examples of each sign to keep of each target; N at most.
      tile: how many targets a block has at most; by default 512, fewer of more than 131,072
        examples, for `shrunk` and `assisted` of more than 8,192. There is a block for each core
        at a time on CPUs, and up to four on accelerators.
      target_examples: `[T]` position of the example that each target is, -1 where it is none.
        By default target t is example t if T == N, and otherwise no target is an example.
      quantile_levels: in [0, 1].
      false_discoveries: how many in a hundred significant pairs may be false.

    Raises:
      ValueError: as in the estimator, fewer than two examples, `losses` missing or of no use, an
        influence that is not finite, or an argument out of range.
    """
    levels = np.asarray(quantile_levels, np.float64)
    if levels.ndim != 1 or not ((levels >= 0) & (levels <= 1)).all():
        raise ValueError(f'quantile_levels must lie in 0 .. 1, not {quantile_levels}')
    if top_k < 1:
        raise ValueError(f'{top_k=} must be at least 1')
    if tile is not None and tile < 1:
        raise ValueError(f'{tile=} must be at least 1')
    columns = as_columns(source, losses, estimator=estimator, target_examples=target_examples)
    examples, targets, members = columns.examples, columns.targets, columns.members
    of, testable = None, np.ones(examples, bool)
    if columns.masks is not None and columns.losses is not None:
        of = problem(columns.masks, columns.losses, target_examples)
        members, included = len(of.masks), of.masks.sum(axis=0)
        testable = np.minimum(included, members - included) >= LEAST_ON_A_SIDE
    self_index = examples_of_targets(target_examples, examples=examples, targets=targets)
    tile = tile or tile_for(examples)
    if examples < 2:
        raise ValueError('one example has no others to be compared with: give at least 2')
    discoveries = Discoveries(
        level=false_discoveries, tested=testable, members=members, self_index=self_index
    )
    noise = largest_of_noise(members=members, examples=examples, targets=targets)
    most_p = 2 / (examples * targets)
    quantiles = _Quantiles(levels, examples)
    request = SummaryRequest(max(2, min(top_k, examples)), quantiles.ranks)

    def read(block: Block) -> tuple[dict[str, np.ndarray], np.ndarray, Candidates]:
        index = self_index[block.columns]
        part = _named_entries(block, index) | _moments(block)
        part |= _stand_out(part, block, index, testable, noise=noise, most_p=most_p)
        part['quantiles'] = quantiles(block.scanned.ranked) * block.scale[:, None]
        candidates = discoveries.candidates(
            *_candidates(block, index), first_target=block.columns.start, p_values_of=block.p_values
        )
        return part, np.asarray(block.scanned.histogram), candidates

    parts: list[dict[str, np.ndarray]] = []
    histogram = np.zeros(len(EDGES) - 1, np.int64)
    for part, counts, candidates in blocks(
        columns, of, self_index, request=request, least_z=discoveries.least_z, tile=tile, read=read
    ):
        parts.append(part)
        histogram += counts
        discoveries.add(candidates)

    def joined(name: str) -> np.ndarray:
        whole = np.concatenate([part[name] for part in parts])
        return whole if whole.dtype == bool else whole.astype(_STORED[whole.dtype.kind])

    of_targets = {name: joined(name) for name in parts[0]}
    largest, second = of_targets['top_values'][:, :2].T
    errors = of_targets['top_standard_errors'][:, :2].T
    floor = np.maximum(noise * errors[1], np.finfo(np.float32).tiny)
    pairs, known = discoveries.found(), ~np.isnan(of_targets['null_standard_error'])
    several = {
        name: whole for name, whole in of_targets.items() if name.startswith(('top', 'bottom'))
    }
    return Summary(
        margin=margin_of_largest(largest, second),
        floored_margin=floored_margin(largest, second, floor),
        z_margin=z_margin(largest, second, *errors).astype(np.float32),
        quantile_levels=levels.astype(np.float32),
        z_edges=EDGES[::_BINS_JOINED].astype(np.float32),
        z_histogram=histogram.reshape(-1, _BINS_JOINED).sum(axis=1),
        pairs=pairs if known.any() else pairs._replace(tests=0),
        estimator=columns.method,
        members_used=members or 0,
        **{name: whole[:, :top_k] for name, whole in several.items()},
        **{name: whole for name, whole in of_targets.items() if name not in several},
    )


class _Quantiles:
    """Linear interpolation between the entries of the ranks next to each level."""

    def __init__(self, levels: Float[np.ndarray, ' Q'], examples: int) -> None:
        position = levels * (examples - 1)
        below, above = np.floor(position).astype(int), np.ceil(position).astype(int)
        ranks = np.unique(np.concatenate([below, above]))
        self.ranks = tuple(ranks.tolist())
        self._below, self._above = np.searchsorted(ranks, below), np.searchsorted(ranks, above)
        self._weight = position - below

    def __call__(self, ranked: Float[AnyArray, 't R']) -> Float[np.ndarray, 't Q']:
        below = ranked[:, self._below]
        return below + (ranked[:, self._above] - below) * self._weight


def _named_entries(block: Block, self_index: Int[np.ndarray, ' t']) -> dict[str, np.ndarray]:
    """The largest, the least and the own entry of each target, in the unit of the measurement."""
    top, bottom = block.scanned.top, block.scanned.bottom
    wanted = np.concatenate([top, bottom, np.maximum(self_index, 0)[:, None]], axis=1)
    values, errors = (
        entries.reshape(wanted.shape) * block.scale[:, None]
        for entries in block.entries(
            np.repeat(np.arange(len(wanted)), wanted.shape[1]), wanted.ravel()
        )
    )
    strongest = top.shape[1]
    part = {}
    for name, sign, which in (
        ('top', -1, slice(0, strongest)),
        ('bottom', 1, slice(strongest, 2 * strongest)),
    ):
        # A scan may round, and entries be nearer to one another than that.
        order = np.argsort(sign * values[:, which], axis=1, kind='stable')
        part[f'{name}_examples'] = np.take_along_axis(wanted[:, which], order, axis=1)
        part[f'{name}_values'] = np.take_along_axis(values[:, which], order, axis=1)
        part[f'{name}_standard_errors'] = np.take_along_axis(errors[:, which], order, axis=1)
    # Either the largest or, where the target itself is that, the second.
    other = (np.arange(len(self_index)), (part['top_examples'][:, 0] == self_index).astype(int))
    return part | {
        'self_influence': np.where(self_index >= 0, values[:, -1], np.nan),
        'self_standard_error': np.where(self_index >= 0, errors[:, -1], np.nan),
        'strongest_other': part['top_examples'][other],
        'other_value': part['top_values'][other],
        'other_standard_error': part['top_standard_errors'][other],
        'other_cross_fitted': np.asarray(block.other_cross_fitted),
        'effective_members': np.asarray(block.effective_members),
    }


def _stand_out(
    part: dict[str, np.ndarray],
    block: Block,
    self_index: Int[np.ndarray, ' t'],
    known: Bool[np.ndarray, ' N'],
    *,
    noise: float,
    most_p: float,
) -> dict[str, np.ndarray]:
    """Which of the largest entries one entry of a matrix of noise is not expected to reach."""
    examples = part['top_examples']
    z = z_scores(part['top_values'], part['top_standard_errors'])
    is_own = examples == self_index[:, None]
    beyond = (z > noise) & (is_own | known[examples])
    targets, places = np.nonzero(beyond & ~is_own)
    p = block.p_values(targets, examples[targets, places], z[targets, places], sure=most_p)
    beyond[targets, places] &= p <= most_p
    others = beyond & (examples == part['strongest_other'][:, None])
    return {'top_stands_out': beyond, 'other_stands_out': others.any(axis=1)}


def _moments(block: Block) -> dict[str, np.ndarray]:
    first, second, third, fourth = block.scanned.moments.T
    unit = block.moment_unit * block.scale
    variance = np.maximum(second - first**2, 0)
    with np.errstate(divide='ignore', invalid='ignore'):
        skewness = (third - 3 * first * second + 2 * first**3) / variance**1.5
        central = fourth - 4 * first * third + 6 * first**2 * second - 3 * first**4
        kurtosis = central / variance**2 - 3
    return {
        'mean': first * unit,
        'standard_deviation': np.sqrt(variance) * unit,
        'skewness': skewness,
        'kurtosis': kurtosis,
        'null_standard_error': block.null_error * block.scale,
    }


def _candidates(
    block: Block, self_index: Int[np.ndarray, ' t']
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Off-diagonal entries that may be significant, each once, in the unit of the measurement."""
    targets, examples = (
        np.asarray(of) for of in (block.scanned.candidate_targets, block.scanned.candidate_examples)
    )
    others = self_index[targets] != examples
    targets, examples = targets[others], examples[others]
    fitted, place = np.nonzero((block.fitted >= 0) & (block.fitted != self_index[:, None]))
    if fitted.size:
        height = 1 + int(max(examples.max(initial=0), block.fitted.max()))
        listed, more = targets * height + examples, fitted * height + block.fitted[fitted, place]
        more = more[np.isin(more, listed, invert=True)]
        targets = np.concatenate([targets, more // height])
        examples = np.concatenate([examples, more % height])
    values, errors = block.entries(targets, examples)
    scale = block.scale[targets]
    return examples, targets + block.columns.start, values * scale, errors * scale
