"""CSV files that spreadsheets open without running what is in them: texts, then numbers."""

import csv
import hashlib
import io
import math
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from influence_jax.text import clean, shortened

_CALCULATED = frozenset('=+-@\t\r\n')
_LONGEST_ID = 1000


def id_cell(text: str) -> str:
    """Returns an id, by which lines are joined: different ones stay different when shortened."""
    if len(text) <= _LONGEST_ID:
        return text_cell(text)
    digest = hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()
    return f'{text_cell(shortened(text, _LONGEST_ID))} sha256 {digest[:16]}'


def text_cell(text: str, *, most: int = _LONGEST_ID) -> str:
    """Returns text from data without what cannot be seen, and an apostrophe before a formula.

    Spreadsheets read signs of full width, and others that stand for the plain ones, as these, and
    may pass over white space before them.
    """
    text = clean(shortened(text, most), most=None, keep='\t\r\n')
    first = unicodedata.normalize('NFKC', text.lstrip(' ')[:1])
    return f"'{text}" if _CALCULATED & {text[:1], first} else text


def _number(value: float | np.number | np.bool) -> str:
    return '' if math.isnan(value) else f'{float(value):.6g}'


def csv_file(
    header: Sequence[str],
    texts: Callable[[int], Iterable[str]],
    numbers: Mapping[str, np.ndarray | None],
    *,
    rows: int,
) -> str:
    """Returns a file of texts, then numbers; a column that is None is left out."""
    columns = {name: values for name, values in numbers.items() if values is not None}
    lines = []
    for cells in (
        (*header, *columns),
        *((*texts(row), *(_number(of[row]) for of in columns.values())) for row in range(rows)),
    ):
        line = io.StringIO()
        # Quotes what holds a part of the line's end: either kind of line break must be quoted.
        csv.writer(line, lineterminator='\r\n').writerow(cells)
        lines.append(line.getvalue().removesuffix('\r\n') + '\n')
    return ''.join(lines)
