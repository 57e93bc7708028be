"""What the documentation's figures share: the run they are of, and how they look."""

import dataclasses
import functools
import io
from collections.abc import Callable
from typing import Self

import numpy as np
import scipy.stats
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from PIL import Image

from influence_jax import data, estimators, store
from influence_jax.data.pixel_distance import has_near_duplicate, near_duplicates
from influence_jax.report.theme import Theme, empty_figure, style
from influence_jax.report.theme import png as full_png
from influence_jax.types import Influence

LIGHT = Theme.light()
Drawing = Callable[['Study'], tuple[str, bytes]]


@dataclasses.dataclass(frozen=True, eq=False)
class Study:
    """A run of the clip art: members that are complete, and what is known of the images."""

    masks: Bool[np.ndarray, 'M N']
    losses: Float[np.ndarray, 'M N']
    dataset: data.Dataset
    duplicated: Bool[np.ndarray, ' N']

    @classmethod
    def of(cls, directory: str) -> Self:
        run, dataset = store.open_run(directory), data.load('clipart')
        if run.example_ids != dataset.ids or run.target_ids != dataset.ids:
            raise SystemExit(f'{directory} is not a run of the whole embedded clip art')
        duplicated = has_near_duplicate(near_duplicates(dataset), dataset.num_examples)
        complete = run.complete
        losses = run.measurement('loss')[complete]
        print(f'{len(complete):,} members, {dataset.num_examples:,} examples and targets\n')
        return cls(run.masks[complete], losses, dataset, duplicated)

    @property
    def examples(self) -> int:
        return self.dataset.num_examples

    @functools.cached_property
    def difference(self) -> Influence:
        return estimators.difference_in_means(self.masks, self.losses)

    @functools.cached_property
    def adjusted(self) -> Influence:
        return estimators.adjusted(self.masks, self.losses)

    def position(self, example_id: str) -> int:
        return self.dataset.ids.index(example_id)


def panels(
    columns: int, *, height: float, rows: int = 1, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """Axes side by side, as wide as a page of text."""
    figure = empty_figure(LIGHT, width=8.0, height=height)
    axes = figure.subplots(rows, columns, sharey=share_y, squeeze=False)
    return figure, [style(one, LIGHT) for one in axes.ravel()]


def heading(axes: Axes, text: str) -> None:
    axes.set_title(text, loc='left', fontsize=10.5, color=LIGHT.text, pad=8)


def thumbnail(
    axes: Axes,
    image: np.ndarray,
    at: tuple[float, float],
    *,
    colour: str = LIGHT.line,
    zoom: float = 0.6,
    coordinates: str | tuple[str, str] = 'data',
    align: tuple[float, float] = (0.5, 0.5),
) -> None:
    """An image with a frame; pixels stay pixels."""
    axes.add_artist(
        AnnotationBbox(
            OffsetImage(image, zoom=zoom, interpolation='nearest'),
            at,
            xycoords=coordinates,
            box_alignment=align,
            pad=0.15,
            bboxprops={'edgecolor': colour, 'linewidth': 1.2, 'facecolor': LIGHT.card},
            annotation_clip=False,
            zorder=5,
        )
    )


def extreme(entries: int) -> float:
    """Expected largest of so many standard normal draws; sqrt(2 ln N) is its limit for huge N."""
    points = np.linspace(-8, 8, 16001)
    return float(np.trapezoid(1 - scipy.stats.norm.cdf(points) ** entries, points) - 8)


def small_png(figure: Figure) -> bytes:
    """A PNG of 256 colours, a third of the size."""
    image = Image.open(io.BytesIO(full_png(figure))).convert('RGB')
    buffer = io.BytesIO()
    image.quantize(256, dither=Image.Dither.NONE).save(buffer, 'PNG', optimize=True)
    return buffer.getvalue()
