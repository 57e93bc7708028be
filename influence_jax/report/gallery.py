"""The rows of the galleries: targets with their strongest influencers."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from markupsafe import Markup

from influence_jax.estimators import cross_fitted_values, z_scores
from influence_jax.report.content import Content


class Entry(NamedTuple):
    """One influence with its standard error, in nats, and the record that exerts it.

    `cross_fitted` is the influence less what selecting it added, see `cross_fit.of_listed`; NaN
    for the target itself and for noise.
    """

    record: Markup
    name: str
    label: str
    value: float
    standard_error: float
    cross_fitted: float
    is_target: bool = False
    is_noise: bool = False

    @property
    def has_cross_fitted(self) -> bool:
        """Whether there is a value without the exaggeration of having been selected."""
        return not math.isnan(self.cross_fitted)


class TargetRow(NamedTuple):
    """A target of a gallery, and its strongest influencers, largest first."""

    record: Markup
    name: str
    label: str
    self_influence: float
    self_standard_error: float
    margin: float
    z_margin: float
    near_duplicate: bool
    influencers: tuple[Entry, ...]

    @property
    def has_self(self) -> bool:
        """Whether the target is an example, so that self-influence means something."""
        return not math.isnan(self.self_influence)


class PairRow(NamedTuple):
    """A significant influence of one record on another, in nats; see `SignificantPairs`."""

    example: Markup
    example_name: str
    target: Markup
    target_name: str
    value: float
    standard_error: float
    cross_fitted: float
    low: float
    high: float
    z: float


def pair_rows(content: Content, *, helpful: int, harmful: int) -> tuple[PairRow, ...]:
    """The surest positive influences, then the surest negative ones."""
    pairs = content.overview.summary.pairs
    z = z_scores(pairs.values, pairs.standard_errors)
    surest = np.argsort(-np.abs(z), kind='stable')
    positive, negative = surest[z[surest] > 0][:helpful], surest[z[surest] < 0][:harmful]
    return tuple(_pair_row(content, int(p), float(z[p])) for p in (*positive, *negative))


def _pair_row(content: Content, pair: int, z: float) -> PairRow:
    pairs = content.overview.summary.pairs
    example, target = int(pairs.examples[pair]), int(pairs.targets[pair])
    own = content.example_of(target)
    return PairRow(
        example=content.show(example),
        example_name=content.example_names[example],
        target=Markup() if own is None else content.show(own),
        target_name=content.target_name(target),
        value=float(pairs.values[pair]),
        standard_error=float(pairs.standard_errors[pair]),
        cross_fitted=float(pairs.cross_fitted[pair]),
        low=float(pairs.low[pair]),
        high=float(pairs.high[pair]),
        z=z,
    )


def target_rows(
    content: Content, targets: Int[np.ndarray, ' _'], *, influencers: int
) -> tuple[TargetRow, ...]:
    """Targets as they appear in a gallery, each with its strongest influencers."""
    return tuple(_target_row(content, int(target), influencers) for target in targets)


def _target_row(content: Content, target: int, influencers: int) -> TargetRow:
    summary = content.overview.summary
    example = content.example_of(target)
    return TargetRow(
        record=Markup() if example is None else content.show(example),
        name=content.target_name(target),
        label='' if example is None else content.example_labels[example],
        self_influence=float(summary.self_influence[target]),
        self_standard_error=float(summary.self_standard_error[target]),
        margin=float(summary.margin[target]),
        z_margin=float(summary.z_margin[target]),
        near_duplicate=content.is_near_duplicate(target),
        influencers=tuple(
            _entry(content, target, rank)
            for rank in range(min(influencers, summary.top_examples.shape[1]))
        ),
    )


def _entry(content: Content, target: int, rank: int) -> Entry:
    summary = content.overview.summary
    example = int(summary.top_examples[target, rank])
    value = float(summary.top_values[target, rank])
    standard_error = float(summary.top_standard_errors[target, rank])
    is_target = example == content.example_of(target)
    is_noise = not bool(summary.top_stands_out[target, rank])
    cross_fitted = float('nan')
    if not (is_target or is_noise or standard_error == 0):
        z = np.array(value / standard_error)
        cross_fitted = float(
            cross_fitted_values(np.array(value), z, least_z=content.overview.z_threshold)
        )
    return Entry(
        record=content.show(example),
        name=content.example_names[example],
        label=content.example_labels[example],
        value=value,
        standard_error=standard_error,
        cross_fitted=cross_fitted,
        is_target=is_target,
        is_noise=is_noise,
    )
