"""Pieces of the page as plain data, which templates lay out and escape.

A `Section` is a title, a sentence and some parts. A part names the template that shows it.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

from influence_jax.analysis.resampling import Interval
from influence_jax.formatting import MISSING
from influence_jax.report.pictures import Picture


class Cell(NamedTuple):
    """Of a table: a text, smaller lines below, and the interval of a probability, drawn."""

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
