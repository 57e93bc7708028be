"""A row a target: what is known of each, column by column; and what the columns mean."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.analysis.verdicts import Verdict
from influence_jax.explorer import encoding
from influence_jax.report.results import Results


class Quantity(NamedTuple):
    """A number a target.

    name: of the column.
    title: for people.
    unit: of the values; '' for none.
    help: what it is, in a sentence.
    values: `[T]`, NaN where there is none.
    errors: `[T]` standard errors, or None.
    """

    name: str
    title: str
    unit: str
    help: str
    values: Float[np.ndarray, ' T']
    errors: Float[np.ndarray, ' T'] | None = None


def quantities(results: Results) -> tuple[Quantity, ...]:
    """Returns the columns of the table, most important first, without those that have no value."""
    summary, unit = results.summary, results.unit
    counts = np.bincount(summary.pairs.targets, minlength=results.num_targets)
    found = [
        Quantity(
            'self_influence',
            'Self-influence',
            unit,
            'How much lower the loss is where the target itself was trained on: its memorization.',
            summary.self_influence,
            summary.self_standard_error,
        ),
        Quantity(
            'margin',
            'Margin',
            '',
            'Largest over second largest influence of the column; low where there are '
            'near-duplicates.',
            summary.margin,
        ),
        Quantity(
            'z_margin',
            'Margin in standard errors',
            '',
            'The difference of the two largest influences in standard errors.',
            summary.z_margin,
        ),
        Quantity(
            'floored_margin',
            'Floored margin',
            '',
            'The margin, with a floor of noise under the second influence.',
            summary.floored_margin,
        ),
        Quantity(
            'other_value',
            'Strongest other',
            unit,
            'The largest influence of an example other than the target itself.',
            summary.other_value,
            summary.other_standard_error,
        ),
        Quantity(
            'effective_members',
            'Effective members',
            '',
            'On how many members self-influence rests; below 20 it is not to be relied upon.',
            summary.effective_members,
        ),
        Quantity(
            'significant',
            'Significant influences',
            '',
            f'How many other examples influence it beyond noise '
            f'(false discovery rate {summary.pairs.level:.0%}).',
            counts.astype(np.float32),
        ),
        *_of_loss(results),
        Quantity('mean', 'Mean influence', unit, 'Of the whole column.', summary.mean),
        Quantity(
            'standard_deviation',
            'Standard deviation',
            unit,
            'Of the influences of the whole column.',
            summary.standard_deviation,
        ),
        Quantity(
            'skewness',
            'Skewness',
            '',
            'Of the column: positive with a tail of helpful examples.',
            summary.skewness,
        ),
        Quantity(
            'kurtosis',
            'Excess kurtosis',
            '',
            'Of the column: 0 of a normal distribution, high with a few strong influences.',
            summary.kurtosis,
        ),
        Quantity(
            'null_standard_error',
            'Noise',
            unit,
            'Standard error of an entry without influence.',
            summary.null_standard_error,
        ),
        *_of_membership(results),
        *_of_methods(results),
    ]
    return tuple(one for one in found if not np.isnan(one.values).all())


def _of_loss(results: Results) -> list[Quantity]:
    if results.mean_loss is None:
        return []
    text = 'Mean of what was measured over all members, with the target or without.'
    return [Quantity('mean_loss', 'Mean loss', results.unit, text, results.mean_loss)]


def _of_membership(results: Results) -> list[Quantity]:
    found = results.membership
    if found is None:
        return []
    return [
        Quantity(
            'vulnerability',
            'Vulnerability',
            '',
            'Share of the members that trained on it that the first attack finds, at '
            f'{found.false_positive_rate:g} false positives.',
            found.vulnerability,
            found.vulnerability_standard_error,
        ),
        Quantity(
            'membership_auroc',
            'Membership AUROC',
            '',
            'How well the first attack tells members that trained on it: 0.5 is chance.',
            found.auroc,
            found.auroc_standard_error,
        ),
    ]


def _of_methods(results: Results) -> list[Quantity]:
    found = []
    for one in results.attributed:
        name, title = one.method.name, encoding.name(one.method.title)
        found += [
            Quantity(
                f'{name}.self_score',
                f'{title}: self',
                encoding.name(one.unit),
                f'The score of the target itself by {title}.',
                one.self_score,
            ),
            Quantity(
                f'{name}.margin',
                f'{title}: margin',
                '',
                f'Largest over second largest score by {title}.',
                one.margin,
            ),
        ]
    return found


def described(results: Results) -> list[dict[str, Any]]:
    """Returns the columns without their values, as `run.json` lists them."""
    return [
        {
            'name': one.name,
            'title': one.title,
            'unit': encoding.name(one.unit),
            'error': None if one.errors is None else _error_name(one),
            'help': one.help,
        }
        for one in quantities(results)
    ]


def targets_document(results: Results) -> dict[str, Any]:
    """Returns `targets.json`: names and columns of all targets."""
    columns = {}
    for one in quantities(results):
        columns[one.name] = encoding.floats(one.values)
        if one.errors is not None:
            columns[_error_name(one)] = encoding.floats(one.errors)
    self_index = results.overview.target_examples
    labels = label_codes(results)
    ids = [encoding.name(text) for text in results.target_ids]
    names = [encoding.name(text) for text in results.example_names]
    return {
        'ids': ids,
        'names': [
            names[example] if example >= 0 else ids[target]
            for target, example in enumerate(self_index.tolist())
        ],
        'labels': encoding.integers(np.where(self_index >= 0, labels[self_index], -1)),
        'example': encoding.integers(self_index),
        'strongest_other': encoding.integers(results.summary.strongest_other),
        'other_stands_out': encoding.integers(_others_stand_out(results)),
        'verdict': encoding.integers(results.verdicts),
        'columns': columns,
    }


def _others_stand_out(results: Results) -> Bool[np.ndarray, ' T']:
    """Whether the strongest other of each target stands out; False where there is none."""
    others = results.summary.strongest_other
    found = results.summary.stands_out(np.maximum(others, 0), np.arange(len(others)))
    return found & (others >= 0)


def examples_document(results: Results) -> dict[str, Any]:
    """Returns `examples.json`: ids, names, labels of examples, and the target each is, or -1."""
    return {
        'ids': [encoding.name(text) for text in results.example_ids],
        'names': [encoding.name(text) for text in results.example_names],
        'labels': encoding.integers(label_codes(results)),
        'target': encoding.integers(targets_of_examples(results)),
    }


def targets_of_examples(results: Results) -> Int[np.ndarray, ' N']:
    """Returns the target that each example is, -1 where it is none; the first of several."""
    found = np.full(results.num_examples, -1, np.int32)
    self_index = results.overview.target_examples
    targets = np.flatnonzero(self_index >= 0)[::-1]
    found[self_index[targets]] = targets
    return found


def classes(results: Results) -> list[str]:
    """Returns the distinct labels of examples, in order."""
    return sorted(set(results.example_labels) - {''})


def label_codes(results: Results) -> Int[np.ndarray, ' N']:
    """Returns the position of each example's label in `classes`, -1 for none."""
    code = {label: place for place, label in enumerate(classes(results))}
    return np.array([code.get(label, -1) for label in results.example_labels], np.int32)


def caveats(results: Results) -> list[str]:
    """Returns what to know before believing the table, a sentence each."""
    summary = results.summary
    found = []
    if results.stopped_early is None and len(results.missing):
        found.append(f'{len(results.missing):,} members are not trained yet.')
    if len(results.diverged):
        found.append(f'{len(results.diverged):,} members diverged and are left out.')
    if not summary.pairs.complete:
        found.append(
            f'More influences stand out than are stored: only the surest '
            f'{len(summary.pairs.values):,} are marked.'
        )
    if summary.pairs.untested_examples:
        found.append(
            f'{summary.pairs.untested_examples:,} examples are in, or out of, fewer than 10 '
            f'members: their influence on others is never marked as standing out.'
        )
    return found


def verdict_names() -> list[dict[str, str]]:
    """Returns the verdicts as `run.json` lists them."""
    return [{'name': one.name.lower(), 'title': one.title, 'help': one.help} for one in Verdict]


def _error_name(quantity: Quantity) -> str:
    return f'{quantity.name}_error'
