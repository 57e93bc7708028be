"""The two palettes of the report: its figures and its page are drawn in the same colours."""

import dataclasses

from matplotlib.colors import Colormap, LinearSegmentedColormap


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of figures and page, as CSS hex strings.

    `positive` (influence that lowers the loss) and `negative` are a blue and an orange that
    stay apart under every common kind of colour blindness.
    """

    page: str
    card: str
    text: str
    muted: str
    line: str
    positive: str
    negative: str
    neutral: str

    def diverging(self) -> Colormap:
        """Negative to positive through the card's own colour, so that zero is no ink."""
        return LinearSegmentedColormap.from_list(
            'influence', [self.negative, self.card, self.positive]
        )

    def css(self) -> str:
        """The palette as CSS custom properties."""
        fields = dataclasses.asdict(self).items()
        return ' '.join(f'--{name}: {colour};' for name, colour in fields)

    @classmethod
    def light(cls) -> 'Theme':
        """Dark ink on warm white."""
        return cls(
            page='#faf9f6',
            card='#ffffff',
            text='#1f2429',
            muted='#5d6670',
            line='#e5e2da',
            positive='#1565a9',
            negative='#b4481a',
            neutral='#a9b4bf',
        )

    @classmethod
    def dark(cls) -> 'Theme':
        """Light ink on near black."""
        return cls(
            page='#121518',
            card='#1a1e23',
            text='#e6e8ea',
            muted='#9ba5af',
            line='#2c333a',
            positive='#6bb5f5',
            negative='#f29a6b',
            neutral='#7b8996',
        )
