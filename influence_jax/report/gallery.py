"""The rows of the galleries: targets with their strongest influencers, and how examples look."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from markupsafe import Markup

from influence_jax.estimators import cross_fitted_values, z_scores
from influence_jax.report.results import Results, surest_pairs
from influence_jax.report.theme import data_uri, image_png
from influence_jax.text import LONGEST_NAME, clean

MOST_FIELDS = 8
"""Columns of a table that are shown of each row."""

Show = Callable[[int], Markup]
"""Markup of the example of an index, in which everything from data is escaped."""


def shower(results: Results) -> Show:
    """Returns how examples look: small images, paragraphs, rows of a table, or names."""
    shown = results.shown
    place = {example: i for i, example in enumerate(shown.examples.tolist())}

    @functools.cache
    def show(example: int) -> Markup:
        i, name = place.get(example), clean(results.example_names[example], most=LONGEST_NAME)
        if i is not None and shown.images is not None:
            pixels = shown.images[i]
            return Markup(
                '<img class="thumbnail" src="{}" alt="{}" width="{}" height="{}">'
            ).format(data_uri(image_png(pixels)), name, pixels.shape[1], pixels.shape[0])
        if i is not None and shown.rows is not None:
            cells = [*zip(shown.columns, shown.rows[i], strict=True)]
            if (more := len(cells) - MOST_FIELDS) > 0:
                cells[MOST_FIELDS:] = [(f'and {more} more', '')]
            fields = (
                Markup('<div><dt>{}</dt><dd>{}</dd></div>').format(
                    clean(column, most=LONGEST_NAME), clean(value, most=LONGEST_NAME)
                )
                for column, value in cells
            )
            return Markup('<dl class="fields">{}</dl>').format(Markup().join(fields))
        text = name if i is None or shown.texts is None else clean(shown.texts[i])
        return Markup('<p>{}</p>').format(text)

    return show


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


def pair_rows(results: Results, example: Show) -> tuple[PairRow, ...]:
    """Returns the surest positive influences, then the surest negative ones."""
    pairs = results.summary.pairs
    z = z_scores(pairs.values, pairs.standard_errors)
    return tuple(
        _pair_row(results, example, pair, float(z[pair])) for pair in surest_pairs(pairs).tolist()
    )


def _pair_row(results: Results, example: Show, pair: int, z: float) -> PairRow:
    pairs = results.summary.pairs
    influencer, target = int(pairs.examples[pair]), int(pairs.targets[pair])
    own = results.example_of(target)
    return PairRow(
        example=example(influencer),
        example_name=results.example_names[influencer],
        target=Markup() if own is None else example(own),
        target_name=results.target_name(target),
        value=float(pairs.values[pair]),
        standard_error=float(pairs.standard_errors[pair]),
        cross_fitted=float(pairs.cross_fitted[pair]),
        low=float(pairs.low[pair]),
        high=float(pairs.high[pair]),
        z=z,
    )


def target_rows(
    results: Results, example: Show, targets: Int[np.ndarray, ' _'], *, influencers: int
) -> tuple[TargetRow, ...]:
    """Returns targets as they appear in a gallery, each with its strongest influencers."""
    return tuple(_target_row(results, example, int(target), influencers) for target in targets)


def _target_row(results: Results, example: Show, target: int, influencers: int) -> TargetRow:
    summary = results.summary
    own = results.example_of(target)
    return TargetRow(
        record=Markup() if own is None else example(own),
        name=results.target_name(target),
        label='' if own is None else results.example_labels[own],
        self_influence=float(summary.self_influence[target]),
        self_standard_error=float(summary.self_standard_error[target]),
        margin=float(summary.margin[target]),
        z_margin=float(summary.z_margin[target]),
        near_duplicate=results.has_near_duplicate(target),
        influencers=tuple(
            _entry(results, example, target, rank)
            for rank in range(min(influencers, summary.top_examples.shape[1]))
        ),
    )


def _entry(results: Results, example: Show, target: int, rank: int) -> Entry:
    summary = results.summary
    influencer = int(summary.top_examples[target, rank])
    value = float(summary.top_values[target, rank])
    standard_error = float(summary.top_standard_errors[target, rank])
    is_target = influencer == results.example_of(target)
    stands_out = bool(summary.top_stands_out[target, rank])
    cross_fitted = math.nan
    if stands_out and not is_target and standard_error > 0:
        z = np.array([value / standard_error])
        found = cross_fitted_values(np.array([value]), z, least_z=results.overview.z_threshold)
        cross_fitted = float(found[0])
    return Entry(
        record=example(influencer),
        name=results.example_names[influencer],
        label=results.example_labels[influencer],
        value=value,
        standard_error=standard_error,
        cross_fitted=cross_fitted,
        is_target=is_target,
        is_noise=not (stands_out or math.isnan(standard_error)),
    )
