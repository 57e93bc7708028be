"""One figure as the page and its folder hold it: drawn for light and for dark pages."""

from collections.abc import Callable
from typing import NamedTuple

from markupsafe import Markup
from matplotlib.figure import Figure

from influence_jax.report.figure_style import png
from influence_jax.report.theme import Theme
from influence_jax.report.thumbnails import data_uri


class Picture(NamedTuple):
    """One figure: its file name without ending, two PNG files, and words instead of it."""

    name: str
    light: bytes
    dark: bytes
    alt: str

    def markup(self) -> Markup:
        """The figure for the page; follows the reader's choice of light or dark."""
        return Markup(
            '<picture><source media="(prefers-color-scheme: dark)" srcset="{}">'
            '<img class="figure" src="{}" alt="{}"></picture>'
        ).format(data_uri(self.dark), data_uri(self.light), self.alt)


def picture(name: str, alt: str, figure: Callable[[Theme], Figure]) -> Picture:
    """Draws a figure in both themes."""
    light, dark = (png(figure(theme)) for theme in (Theme.light(), Theme.dark()))
    return Picture(name, light, dark, alt)
