"""The numbers of a report as files: `targets.csv`, `pairs.csv` and, of texts, `records.csv`.

Their columns are explained in docs/tables.md.
"""

import csv
import hashlib
import io
import math
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from influence_jax.analysis.extraction import Siblings
from influence_jax.estimators import selected_intervals, z_scores
from influence_jax.report.results import Results
from influence_jax.text import clean, shortened

_CALCULATED = frozenset('=+-@\t\r\n')
_LONGEST_ID = 1000
_LONGEST_TEXT = 32_000  # what a cell of a spreadsheet holds


def targets_csv(results: Results) -> str:
    """Returns one line a target, in the targets' own order; empty cells where undefined."""
    summary = results.summary
    low, high = selected_intervals(
        summary.other_value,
        summary.other_standard_error,
        members=summary.members_used or None,
        selected=results.num_targets,
        candidates=results.num_targets * results.num_examples,
    )
    numbers = {
        'self_influence': summary.self_influence,
        'self_influence_standard_error': summary.self_standard_error,
        'self_influence_effective_members': summary.effective_members,
        'margin': summary.margin,
        'floored_margin': summary.floored_margin,
        'z_margin': summary.z_margin,
        'strongest_other_influence': summary.other_value,
        'strongest_other_standard_error': summary.other_standard_error,
        'strongest_other_low': low,
        'strongest_other_high': high,
        'strongest_other_stands_out': summary.other_stands_out,
        'strongest_other_cross_fitted': summary.other_cross_fitted,
        'column_mean': summary.mean,
        'column_standard_deviation': summary.standard_deviation,
        'column_skewness': summary.skewness,
        'column_kurtosis': summary.kurtosis,
        'column_noise': summary.null_standard_error,
    }
    numbers |= {
        f'column_quantile_{level:g}': summary.quantiles[:, place]
        for place, level in enumerate(summary.quantile_levels)
    }
    for name, known in (
        ('near_duplicate', results.near_duplicates),
        ('mean_loss', results.mean_loss),
    ):
        if known is not None:
            numbers[name] = known
    texts = ('id', 'name', 'label', 'strongest_other', 'strongest_other_name')

    def row(target: int) -> Iterable[str]:
        example, other = results.example_of(target), int(summary.strongest_other[target])
        yield _id(results.target_ids[target])
        yield _text(results.target_name(target))
        yield '' if example is None else _text(results.example_labels[example])
        yield _id(results.example_ids[other])
        yield _text(results.full_name(other))
        for column in numbers.values():
            yield _number(column[target])

    return _file((*texts, *numbers), map(row, range(results.num_targets)))


def pairs_csv(results: Results) -> str:
    """Returns one line a significant pair, smallest p-value first."""
    pairs = results.summary.pairs
    numbers = {
        'influence': pairs.values,
        'standard_error': pairs.standard_errors,
        'interval_low': pairs.low,
        'interval_high': pairs.high,
        'influence_cross_fitted': pairs.cross_fitted,
        'z': z_scores(pairs.values, pairs.standard_errors),
        'p_value': pairs.p_values,
    }
    texts = ('example', 'example_name', 'target', 'target_name')

    def row(pair: int) -> Iterable[str]:
        example, target = int(pairs.examples[pair]), int(pairs.targets[pair])
        yield _id(results.example_ids[example])
        yield _text(results.full_name(example))
        yield _id(results.target_ids[target])
        yield _text(results.target_name(target))
        for column in numbers.values():
            yield _number(column[pair])

    return _file((*texts, *numbers), map(row, range(len(pairs.examples))))


def records_csv(results: Results) -> str:
    """Returns one line a record of a run on texts: what was injected, and what was extracted."""
    text, comparison, ids = results.text, results.comparison, results.target_ids
    assert text is not None and comparison is not None and comparison.extractable is not None
    siblings = text.siblings
    numbers = {
        'bleu': text.bleu,
        'exact_match': text.exact_match,
        'longest_common_share': text.longest_common_share,
        'sibling_bleu': siblings.bleu,
        'sibling_exact_match': np.where(siblings.nearest < 0, np.nan, siblings.exact_match),
        'extractable': comparison.extractable,
    }
    for name, of in text.by_members.items():
        column = name.lower().replace(' ', '_')
        numbers |= {f'{column}_held': of.held.mean, f'{column}_left_out': of.left_out.mean}
    texts = (text.changes, text.prompts, text.completions, text.decoded)

    def row(record: int) -> Iterable[str]:
        yield _id(ids[record])
        yield str(int(comparison.groups[record]))
        yield from (_text(of[record], most=_LONGEST_TEXT) for of in texts)
        nearest = int(siblings.nearest[record])
        yield _text(ids[nearest]) if nearest >= 0 else ''
        yield _nearest_to(siblings, record)
        yield from (_number(values[record]) for values in numbers.values())

    of_texts = ('id', 'group', 'change', 'prompt', 'completion', 'decoded')
    header = (*of_texts, 'nearest_sibling', 'nearest_to', *numbers)
    return _file(header, map(row, range(len(ids))))


def _nearest_to(siblings: Siblings, record: int) -> str:
    if siblings.nearest[record] < 0:
        return ''
    if siblings.as_near[record]:
        return 'both'
    return 'sibling' if siblings.nearer[record] else 'record'


def _id(text: str) -> str:
    """Returns an id, by which lines are joined: different ones stay different when shortened."""
    if len(text) <= _LONGEST_ID:
        return _text(text)
    digest = hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()
    return f'{_text(shortened(text, _LONGEST_ID))} sha256 {digest[:16]}'


def _text(text: str, *, most: int = _LONGEST_ID) -> str:
    """Returns text from data without what cannot be seen, and an apostrophe before a formula.

    Spreadsheets read signs of full width, and others that stand for the plain ones, as these, and
    may pass over white space before them.
    """
    text = clean(shortened(text, most), most=None, keep='\t\r\n')
    first = unicodedata.normalize('NFKC', text.lstrip(' ')[:1])
    return f"'{text}" if _CALCULATED & {text[:1], first} else text


def _number(value: float | np.number | np.bool) -> str:
    return '' if math.isnan(value) else f'{float(value):.6g}'


def _file(header: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    lines = []
    for cells in (header, *rows):
        line = io.StringIO()
        # Quotes what holds a part of the line's end: either kind of line break must be quoted.
        csv.writer(line, lineterminator='\r\n').writerow(cells)
        lines.append(line.getvalue().removesuffix('\r\n') + '\n')
    return ''.join(lines)
