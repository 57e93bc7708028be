"""Documents of all targets together: pairs, convergence, membership, the judge's table."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from influence_jax import files
from influence_jax.estimators import Summary, benjamini_hochberg, p_values, z_scores
from influence_jax.estimators.uncertainty import z_of_p
from influence_jax.explorer import encoding
from influence_jax.report.results import Results

MOST_PAIRS = 2**16

_SIZES = (50, 100, 200, 500)
_PREDICTED = (1, 2, 5)
_MOST_BYTES = 2**22


def convergence_document(results: Results) -> dict[str, Any] | None:
    """Returns `convergence.json`: agreement of halves, and what more members would give.

    None where nothing of it is known.
    """
    found, summary = results.overview.convergence, results.summary
    members = summary.members_used
    if found is None or not members:
        return None
    sizes = sorted({*_SIZES, *(factor * members for factor in _PREDICTED)})
    errors = results.off_diagonal_standard_error(), results.self_standard_error()
    return {
        'members': encoding.positions(found.members),
        'agreement': {
            name: encoding.numbers(getattr(found, name))
            for name in ('self_influence', 'off_diagonal', 'margin', 'significant')
        },
        'predicted': [
            {
                'members': size,
                'reliability': {
                    name: encoding.number(value)
                    for name, value in found.reliability(size)._asdict().items()
                    if name != 'members'
                },
                # Standard errors fall as one over the root of the number of members.
                'standard_error': encoding.number(errors[0] * np.sqrt(members / size)),
                'self_standard_error': encoding.number(errors[1] * np.sqrt(members / size)),
                **_pairs_at(summary, size, error=errors[0]),
            }
            for size in sizes
        ],
        'current': members,
        'pairs': len(summary.pairs.values),
    }


def _pairs_at(summary: Summary, size: int, *, error: float) -> dict[str, Any]:
    """Returns what significant pairs an ensemble of another size would list, as far as is known.

    Values stay and errors fall as one over the root of the number of members: so do today's pairs
    gain or lose in z, and Benjamini and Hochberg's rule is applied anew. Of pairs that only a
    larger ensemble lists nothing is known: there, all of today's are.

    Args:
        summary: of today's ensemble.
        size: members of the other.
        error: of an entry today.
    """
    pairs, members = summary.pairs, summary.members_used
    ratio, kept = np.sqrt(size / members), len(pairs.values)
    if size < members:
        z = z_scores(pairs.values, pairs.standard_errors) * ratio
        p = p_values(z, members=size)
        kept = int(benjamini_hochberg(p, level=pairs.level, tests=pairs.tests).sum())
    least_p = pairs.level * max(kept, 1) / max(pairs.tests, 1)
    least = z_of_p(min(least_p, 1), members=size) * error / ratio
    return {'still_listed': kept, 'least_listed': encoding.number(least)}


def pairs_document(results: Results) -> dict[str, Any]:
    """Returns `pairs.json`: the significant pairs, surest first, at most 65,536."""
    pairs = results.summary.pairs
    shown = slice(0, MOST_PAIRS)
    with np.errstate(divide='ignore'):
        log_p = np.log10(pairs.p_values[shown])
    columns = {
        'value': pairs.values,
        'error': pairs.standard_errors,
        'low': pairs.low,
        'high': pairs.high,
        'cross_fitted': pairs.cross_fitted,
    }
    return {
        'examples': encoding.integers(pairs.examples[shown]),
        'targets': encoding.integers(pairs.targets[shown]),
        'columns': {name: encoding.floats(column[shown]) for name, column in columns.items()}
        | {'log10_p': encoding.floats(log_p)},
        'total': len(pairs.values),
        'complete': pairs.complete,
        'level': pairs.level,
        'tests': pairs.tests,
    }


def membership_document(results: Results) -> dict[str, Any] | None:
    """Returns `membership.json`: what attacks find; None where there are none."""
    found = results.membership
    if found is None:
        return None
    return {
        'attacks': [
            {
                'name': encoding.name(one.name),
                'title': encoding.name(one.title),
                'fpr': encoding.floats(one.false_positive_rates),
                'tpr': encoding.floats(one.true_positive_rates),
                'auc': encoding.number(one.auroc_over_members.value),
                'auc_over_members': encoding.numbers(one.auroc_over_members[1:]),
                'auc_over_records': encoding.numbers(one.auroc_over_records[1:]),
                'tpr_at': [
                    [
                        encoding.number(rate.false_positive_rate),
                        *encoding.numbers(rate.over_members),
                    ]
                    for rate in one.at
                ],
                'tpr_at_over_records': [
                    [
                        encoding.number(rate.false_positive_rate),
                        *encoding.numbers(rate.over_records),
                    ]
                    for rate in one.at
                ],
            }
            for one in found.attacks
        ],
        'false_positive_rate': encoding.number(found.false_positive_rate),
        'at_risk': int(found.at_risk.sum()),
        'notes': [encoding.prose(text) for text in found.notes],
    }


def leaderboard_file(directory: Path | None) -> Path | None:
    """Returns the table of the judge beside a run, None where it is not there."""
    if directory is None:
        return None
    for path in (directory / 'judge' / 'leaderboard.csv', directory / 'leaderboard.csv'):
        if path.is_file():
            return path
    return None


def leaderboard_document(path: Path) -> dict[str, Any]:
    """Returns `leaderboard.json`: the header and the rows of the judge's table, as texts.

    Raises:
        ValueError, OSError: the file cannot be read.
    """
    text = files.read_bytes(path, most_bytes=_MOST_BYTES).decode('utf-8', errors='replace')
    rows = [[encoding.name(cell) for cell in row] for row in csv.reader(io.StringIO(text))]
    if not rows:
        raise ValueError(f'{path} is empty: judge the run again')
    return {'header': rows[0], 'rows': rows[1:]}
