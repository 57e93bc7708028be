"""PNG files as a page holds them; knows nothing of who draws them."""

import base64
from typing import NamedTuple

from markupsafe import Markup


class Picture(NamedTuple):
    """One figure as the page and its folder hold it, drawn for light and for dark pages.

    name: of its file, without ending.
    light: PNG file.
    dark: PNG file.
    alt: words instead of it.
    """

    name: str
    light: bytes
    dark: bytes
    alt: str

    def markup(self) -> Markup:
        """Returns the figure for the page; follows the reader's choice of light or dark."""
        return Markup(
            '<picture><source media="(prefers-color-scheme: dark)" srcset="{}">'
            '<img class="figure" src="{}" alt="{}"></picture>'
        ).format(data_uri(self.dark), data_uri(self.light), self.alt)


def data_uri(file: bytes) -> str:
    """Returns a PNG file as a `data:` address."""
    return 'data:image/png;base64,' + base64.b64encode(file).decode('ascii')
