"""How the report looks: two palettes, the style of its figures, and PNG files inside the page.

No pyplot and no global style, so that drawing leaves no trace in the caller's matplotlib.
"""

import dataclasses
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from PIL import Image

from influence_jax.report.pictures import Picture

DOTS_PER_INCH = 200
_LABEL = 10.5
_NARROW = 4.5


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colors of figures and page, as CSS hex strings, and the size of figures.

    `positive` (influence that lowers the loss) and `negative` are a blue and an orange that
    stay apart under every common kind of color blindness.

    Attributes:
      unique: of targets with the verdict 'unique': a purple, as in the explorer.
      near_duplicated: of those with near-duplicates: a teal. Neither is a color of a sign.
      width: of every figure, in inches; None draws each at its own.
      font: size of all text, beside that of the page.
      dots_per_inch: of PNG files.
    """

    page: str
    card: str
    text: str
    muted: str
    line: str
    positive: str
    negative: str
    neutral: str
    unique: str
    near_duplicated: str
    width: float | None = None
    font: float = 1.0
    dots_per_inch: float = DOTS_PER_INCH

    def points(self, size: float) -> float:
        """Returns a size of text, in points, of what it is on the page."""
        return self.font * size

    def diverging(self) -> Colormap:
        """Returns colors from negative to positive through the card's own: zero is no ink."""
        return LinearSegmentedColormap.from_list(
            'influence', [self.negative, self.card, self.positive]
        )

    def css(self) -> str:
        """Returns the palette as CSS custom properties."""
        fields = dataclasses.asdict(self).items()
        return ' '.join(f'--{name}: {color};' for name, color in fields if isinstance(color, str))

    @classmethod
    def light(cls) -> 'Theme':
        """Returns dark ink on warm white."""
        return cls(
            page='#faf9f6',
            card='#ffffff',
            text='#1f2429',
            muted='#5d6670',
            line='#e5e2da',
            positive='#1565a9',
            negative='#b4481a',
            neutral='#a9b4bf',
            unique='#7a4a9e',
            near_duplicated='#1f7d6a',
        )

    @classmethod
    def of_style(cls) -> 'Theme':
        """Returns the style that matplotlib is set to, with the two inks of every theme."""
        label = FontProperties(size=rcParams['axes.labelsize']).get_size_in_points()
        return dataclasses.replace(
            cls.light(),
            page=to_hex(rcParams['figure.facecolor']),
            card=to_hex(rcParams['axes.facecolor']),
            text=to_hex(rcParams['text.color']),
            muted=to_hex(rcParams['xtick.color']),
            line=to_hex(rcParams['grid.color']),
            width=float(rcParams['figure.figsize'][0]),
            font=label / _LABEL,
            dots_per_inch=float(rcParams['figure.dpi']),
        )

    @classmethod
    def dark(cls) -> 'Theme':
        """Returns light ink on near black."""
        return cls(
            page='#121518',
            card='#1a1e23',
            text='#e6e8ea',
            muted='#9ba5af',
            line='#2c333a',
            positive='#6bb5f5',
            negative='#f29a6b',
            neutral='#7b8996',
            unique='#bb95dd',
            near_duplicated='#5cc4a5',
        )


def picture(
    name: str, alt: str, figure: Callable[..., Figure], /, *arrays: Any, **settings: Any
) -> Picture:
    """Draws `figure(*arrays, theme=theme, **settings)` in both themes."""
    light, dark = (
        png(figure(*arrays, theme=theme, **settings)) for theme in (Theme.light(), Theme.dark())
    )
    return Picture(name, light, dark, alt)


def png(figure: Figure) -> bytes:
    """Returns the figure as a PNG file, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format='png', facecolor=figure.get_facecolor(), metadata={'Software': None}
    )
    return buffer.getvalue()


def image_png(pixels: UInt8[np.ndarray, 'H W *C']) -> bytes:
    """Returns pixels as a PNG file: RGB of three channels or more; of fewer the first, as gray."""
    if pixels.ndim == 3:
        pixels = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., 0]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, 'PNG')
    return buffer.getvalue()


def empty_axes(theme: Theme, *, width: float, height: float) -> tuple[Figure, Axes]:
    """Returns an empty figure in the report's style; sizes in inches, 100 CSS pixels each."""
    figure = empty_figure(theme, width=width, height=height)
    return figure, style(figure.add_subplot(), theme)


def empty_figure(theme: Theme, *, width: float, height: float) -> Figure:
    """Returns a figure without axes, laid out by itself; sizes as in `empty_axes`."""
    scale = 1.0 if theme.width is None else theme.width / width
    figure = Figure(
        figsize=(scale * width, scale * height),
        dpi=theme.dots_per_inch,
        facecolor=theme.card,
        layout='constrained',
    )
    FigureCanvasAgg(figure)
    return figure


def style(axes: Axes, theme: Theme) -> Axes:
    """Puts axes into the report's style and returns them."""
    axes.set_facecolor(theme.card)
    axes.set_axisbelow(True)
    axes.grid(color=theme.line, linewidth=0.8)
    size = theme.points(9.5)
    axes.tick_params(which='both', length=0, labelsize=size, labelcolor=theme.muted)
    for text in (axes.xaxis.label, axes.yaxis.label):
        text.set(color=theme.text, fontsize=theme.points(_LABEL))
    for name, spine in axes.spines.items():
        spine.set(visible=name == 'bottom', color=theme.muted, linewidth=0.8)
    return axes


def legend(theme: Theme) -> dict[str, Any]:
    """Returns arguments of a legend in a line above the axes, where it hides nothing."""
    return {
        'loc': 'lower left',
        'bbox_to_anchor': (-0.02, 1.0),
        'ncols': 3 if theme.width is None or theme.width > _NARROW else 2,
        'columnspacing': 1.3,
        'fontsize': theme.points(9.5),
        'frameon': False,
        'labelcolor': theme.text,
    }


def plain_number(value: float | np.number, _: int) -> str:
    """Formats tick labels such as '0.5' and '100', for `FuncFormatter`."""
    return f'{value:g}'
