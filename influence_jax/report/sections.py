"""Pieces of the page as plain data, which templates lay out and escape, and numbers as text.

A `Section` is a title, a sentence and some parts. A part names the template that shows it.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Int

from influence_jax.analysis.resampling import Interval
from influence_jax.report.pictures import Picture

PLUS_MINUS = '\N{PLUS-MINUS SIGN}'
MINUS = '\N{MINUS SIGN}'
MISSING = '\N{EN DASH}'

_MOST_DIGITS = 5
"""Behind the point; beyond, and of `_LARGE` numbers, powers of ten are written."""

_LARGE = 1e7


class Cell(NamedTuple):
    """Of a table: a text, a smaller one below, and the interval of a probability, drawn."""

    text: str
    note: str = ''
    interval: Interval | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """Numbers in rows; the first cell of each names it.

    Attributes:
      caption: what is shown.
      header: names of the columns.
      rows: as many cells each as the header has names.
      groups: names above several columns, each with how many it spans.
    """

    template: ClassVar[str] = 'section_table.html.j2'
    pictures: ClassVar[tuple[Picture, ...]] = ()
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    groups: Sequence[tuple[str, int]] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(
                    f'a row of {len(row)} cells under {len(self.header)} columns: {row[:1]}'
                )


def filled(table: Table) -> Table:
    """Returns a table without the rows and columns that hold nothing beside their name.

    Raises:
        ValueError: it has groups of columns, of which none may be left out.
    """
    if table.groups:
        raise ValueError(f'{len(table.groups)} groups of columns: fill all of them')
    rows = [row for row in table.rows if any(map(_is_known, row[1:]))]
    columns = [0, *(i for i in range(1, len(table.header)) if any(_is_known(r[i]) for r in rows))]
    return Table(
        table.caption,
        [table.header[i] for i in columns],
        [[row[i] for i in columns] for row in rows],
    )


def _is_known(cell: Cell) -> bool:
    return cell.text not in ('', MISSING)


class Plate(NamedTuple):
    """A picture with a heading and a text.

    title: heading; may be empty.
    text: of a record, or what to look at; may be empty.
    picture: drawn.
    """

    title: str
    text: str
    picture: Picture


@dataclasses.dataclass(frozen=True)
class Plates:
    """Pictures side by side."""

    template: ClassVar[str] = 'section_plates.html.j2'
    plates: Sequence[Plate]

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Returns all of them."""
        return tuple(plate.picture for plate in self.plates)


@dataclasses.dataclass(frozen=True)
class Matrix:
    """A square block of the influence matrix with the text of a record at each row.

    Attributes:
      pixels: one pixel an entry, for the page.
      drawn: the same with axes, for the folder of figures.
      rows: text of each row.
      outlines: `(start, end)` of the blocks on the diagonal to be outlined.
      limit: influence at which colors saturate, as it is written.
    """

    template: ClassVar[str] = 'section_matrix.html.j2'
    pixels: Picture
    drawn: Picture
    rows: Sequence[str]
    outlines: Sequence[tuple[int, int]]
    limit: str

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Returns the one with axes."""
        return (self.drawn,)


class Record(NamedTuple):
    """A record and what a model wrote when it was given the prompt.

    prompt: what the model was given.
    truth: what it should have written.
    change: how the record differs from the one it was made of; '' for an original.
    decoded: what it wrote.
    common: `(start, end)` of the part of `decoded` that is also in `truth`, to be marked.
    numbers: names and values.
    """

    prompt: str
    truth: str
    change: str
    decoded: str
    common: tuple[int, int]
    numbers: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Records:
    """Records that belong together, one below another."""

    template: ClassVar[str] = 'section_records.html.j2'
    pictures: ClassVar[tuple[Picture, ...]] = ()
    title: str
    records: Sequence[Record]


class GalleryRow(NamedTuple):
    """Examples that influence one target, strongest first, by several methods.

    example: that the target is; None where it is none.
    name: of the target.
    strips: of each method its name, and examples with their scores as text.
    """

    example: int | None
    name: str
    strips: Sequence[tuple[str, Sequence[tuple[int, str]]]]


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Targets and their strongest examples, one below another."""

    template: ClassVar[str] = 'section_gallery.html.j2'
    pictures: ClassVar[tuple[Picture, ...]] = ()
    rows: Sequence[GalleryRow]


Part = Table | Plates | Matrix | Records | Gallery
"""What a section is made of: `template` shows it, `pictures` go to the folder of figures."""


@dataclasses.dataclass(frozen=True)
class Section:
    """A piece of the page. No text in it is trusted: all is escaped and made visible.

    Attributes:
      title: heading, and the link to it.
      lead: what is shown and how to read it.
      parts: one below another.
    """

    title: str
    lead: str
    parts: Sequence[Part]

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """Returns those of all parts."""
        return tuple(picture for part in self.parts for picture in part.pictures)


def check_names(pictures: Iterable[Picture]) -> None:
    """Raises ValueError for a picture whose name is no plain file name, or is used twice."""
    seen: set[str] = set()
    for picture in pictures:
        if not re.fullmatch('[a-z0-9-]+', picture.name) or picture.name in seen:
            raise ValueError(
                f'{picture.name!r} cannot name a picture: use small letters, digits and hyphens, '
                'and no name twice'
            )
        seen.add(picture.name)


def decimals(scale: float | np.floating, *, least: int = 2, most: int = 4) -> int:
    """Returns how many digits behind the point show a number of this scale.

    Two, or fewer where that would show more than `most` significant digits, or more where that
    would show fewer than `least`: a table of squared errors of 1e-4 must not read 0.00.
    """
    if not (scale and math.isfinite(scale)):
        return 2
    exponent = math.floor(math.log10(abs(scale)))
    return max(0, min(2, most - 1 - exponent), least - 1 - exponent)


def number(value: float | np.floating, digits: int | None = None) -> str:
    """Returns '1.25', '0.00031', '5,230', '3.1e-07', an infinity sign, or a dash for NaN.

    Args:
      value: any.
      digits: behind the point, as for shares and for a column of one scale; by default as many as
        the value's own scale asks for.
    """
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return '\N{INFINITY}' if value > 0 else MINUS + '\N{INFINITY}'
    if digits is None:
        digits = decimals(value)
    if digits > _MOST_DIGITS or abs(value) >= _LARGE:
        return _power(value)
    text = f'{abs(value):,.{digits}f}'
    return MINUS + text if value < 0 and text.strip('0.') else text


def measured(value: float | np.floating, standard_error: float | np.floating) -> str:
    """Returns '1.25 +- 0.06', with digits enough to show the error; a dash for NaN."""
    return ' '.join(filter(None, measured_parts(value, standard_error)))


def measured_parts(
    value: float | np.floating, standard_error: float | np.floating
) -> tuple[str, str]:
    """Returns value and '+- error' apart, to be set in two lines; in powers of ten if tiny.

    The error has one digit that is not zero at least, and the value as many behind the point;
    where the error is not known, the value alone says how many.
    """
    if math.isnan(value):
        return MISSING, ''
    if math.isnan(standard_error):
        return number(value), f'{PLUS_MINUS} {MISSING}'
    digits = decimals(standard_error, least=1, most=2) if standard_error else decimals(value)
    if digits > _MOST_DIGITS or max(abs(value), standard_error) >= _LARGE:
        return _power(value), f'{PLUS_MINUS} {_power(standard_error)}'
    return number(value, digits), f'{PLUS_MINUS} {number(standard_error, digits)}'


def _power(value: float | np.floating) -> str:
    return f'{value:.1e}'.replace('-', MINUS) if value else '0'


def plus_minus(mean: float | np.floating, deviation: float | np.floating, digits: int) -> str:
    """Returns '1.410 +- 0.568': a mean and a standard deviation, both with so many digits."""
    return f'{number(mean, digits)} {PLUS_MINUS} {number(deviation, digits)}'


def count(amount: int, noun: str) -> str:
    """Returns '1 member', '1,567 members'."""
    return f'{amount:,} {noun}' if amount == 1 else f'{amount:,} {noun}s'


def listing(indices: Iterable[int] | Int[np.ndarray, ' K'], longest: int = 12) -> str:
    """Returns '3, 7, 12 and 40 more'."""
    listed = list(indices)
    shown = ', '.join(str(int(index)) for index in listed[:longest])
    rest = len(listed) - longest
    return f'{shown} and {rest} more' if rest > 0 else shown
