"""Documents of one target, of one example, and sheets of thumbnails."""

import io
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from influence_jax.analysis.verdicts import Verdict
from influence_jax.explorer import encoding
from influence_jax.explorer.columns import Column
from influence_jax.explorer.entries import Entries
from influence_jax.report.results import Results
from influence_jax.store import Shown

PER_SHEET = 256
"""Thumbnails of a sheet."""

ACROSS = 16
"""Thumbnails of a row of a sheet."""

MOST_INFLUENCERS = 48
"""Of each sign, in the document of a target."""

MOST_OUTGOING = 96
"""Of both signs together, in the document of an example."""


def target_document(
    results: Results,
    target: int,
    stored: Entries,
    column: Column | None,
    losses: dict[str, Any] | None,
    *,
    tokens: dict[str, Any] | None,
    verdict: Verdict,
    note: str | None,
) -> dict[str, Any]:
    """Returns the document of a target.

    Args:
        results: of all targets.
        target: which.
        stored: the entries of its column that are stored, its own among them or not.
        column: the whole column; None where it is not known.
        losses: document of the members' losses on it, likewise.
        tokens: document of its tokens, likewise.
        verdict: of the target.
        note: why column and losses are not known, where they should be.
    """
    summary, example = results.summary, results.example_of(target)
    null_error = float(summary.null_standard_error[target])
    entries = stored if column is None else column.entries(stored)
    others = Entries(*(part[entries.positions != example] for part in entries))
    return {
        'target': target,
        'id': encoding.name(results.target_ids[target]),
        'example': -1 if example is None else example,
        'self': _own(results, -1 if example is None else target),
        'margin': encoding.number(summary.margin[target]),
        'z_margin': encoding.number(summary.z_margin[target]),
        'effective_members': encoding.number(summary.effective_members[target]),
        'verdict': verdict.name.lower(),
        'null_error': encoding.number(null_error),
        'z_threshold': encoding.number(results.overview.z_threshold),
        'influencers': {
            'positive': others.strongest(MOST_INFLUENCERS, sign=1).rows(),
            'negative': others.strongest(MOST_INFLUENCERS, sign=-1).rows(),
        },
        'quantiles': [
            list(pair)
            for pair in zip(
                encoding.numbers(summary.quantile_levels),
                encoding.numbers(summary.quantiles[target]),
                strict=True,
            )
        ],
        'histogram': None if column is None else column.histogram(null_error),
        'losses': losses,
        'tokens': tokens,
        'note': note,
        'vulnerability': _vulnerability(results, target),
        'attribution': [
            {
                'method': encoding.name(one.method.title),
                'unit': encoding.name(one.unit),
                'self': encoding.number(one.self_score[target]),
                'margin': encoding.number(one.margin[target]),
                'influencers': [
                    list(pair)
                    for pair in zip(
                        encoding.positions(one.examples[target]),
                        encoding.numbers(one.scores[target]),
                        strict=True,
                    )
                ],
            }
            for one in results.attributed
        ],
    }


def _vulnerability(results: Results, target: int) -> dict[str, Any] | None:
    """Returns how well an attack tells members that trained on a target; None if not known."""
    found = results.membership
    if found is None or np.isnan(found.vulnerability[target]):
        return None
    return {
        'rate': encoding.number(found.vulnerability[target]),
        'low': encoding.number(found.vulnerability_low[target]),
        'high': encoding.number(found.vulnerability_high[target]),
        'false_alarms': encoding.number(found.false_alarms[target]),
        'false_positive_rate': encoding.number(found.false_positive_rate),
        'auroc': encoding.number(found.auroc[target]),
        'auroc_error': encoding.number(found.auroc_standard_error[target]),
        'at_risk': bool(found.at_risk[target]),
        'attack': encoding.name(found.attacks[0].title) if found.attacks else '',
    }


def example_document(
    results: Results,
    shown: Shown | None,
    example: int,
    row: Entries,
    *,
    target: int,
    group: Int[np.ndarray, ' g'],
) -> dict[str, Any]:
    """Returns the document of an example.

    Args:
        results: of all examples.
        shown: what the run keeps of all examples; None for what the report keeps of some.
        example: which.
        row: the entries of its row that are known.
        target: that it is, or -1.
        group: the other examples of its known group, or cluster.
    """
    others = Entries(*(part[row.positions != target] for part in row))
    return {
        'example': example,
        'id': encoding.name(results.example_ids[example]),
        'name': encoding.name(results.example_names[example]),
        'label': encoding.name(results.example_labels[example]),
        'change': encoding.prose(results.example_changes[example]),
        **_texts(results, shown, example, target),
        'target': target,
        'self': _own(results, target),
        'outgoing': others.strongest(MOST_OUTGOING).rows(),
        'group': encoding.positions(group),
    }


def _own(results: Results, target: int) -> list[float | None] | None:
    """The influence on a target of its own example, and its error; None of no target."""
    summary = results.summary
    if target < 0:
        return None
    return encoding.numbers([summary.self_influence[target], summary.self_standard_error[target]])


def _texts(results: Results, shown: Shown | None, example: int, target: int) -> dict[str, Any]:
    """Text, prompt, completion and row of an example; None where there is none, or not here."""
    found: dict[str, Any] = dict.fromkeys(('text', 'prompt', 'completion', 'row'))
    if shown is not None:
        texts = {'text': shown.texts, 'prompt': shown.prompts, 'completion': shown.completions}
        found |= {name: all_of[example] for name, all_of in texts.items() if all_of is not None}
        rows, change = shown.rows, shown.changes[example]
    else:
        place = int(np.searchsorted(results.shown.examples, example))
        rows, change = None, ''
        if place < len(results.shown.examples) and results.shown.examples[place] == example:
            if results.shown.texts is not None:
                found['text'] = results.shown.texts[place]
            rows, example = results.shown.rows, place
        if results.text is not None and target >= 0:
            found['prompt'] = results.text.prompts[target]
            found['completion'] = results.text.completions[target]
            change = results.text.changes[target]
    found = {name: text and encoding.prose(text) for name, text in found.items()}
    if rows is not None:
        found['row'] = [encoding.name(cell) for cell in rows[example]]
    return found | ({'change': encoding.prose(change)} if change else {})


def thumbnails(shape: tuple[int, ...] | None) -> dict[str, int] | None:
    """Returns how sheets of images `[_ H W C]` are laid out, as `run.json` has it."""
    if shape is None:
        return None
    return {'side': max(shape[1:3]), 'per_sheet': PER_SHEET, 'columns': ACROSS}


def sheet(results: Results, shown: Shown | None, number: int) -> bytes:
    """Returns the PNG of examples `256 number ..`, 16 a row; transparent where none is kept.

    Raises:
        ValueError: there are no images.
    """
    images = results.shown.images if shown is None else shown.images
    layout = thumbnails(None if images is None else images.shape)
    if layout is None:
        raise ValueError('the examples are no images')
    side, first = layout['side'], number * PER_SHEET
    last = min(first + PER_SHEET, results.num_examples)
    rows = -(-(last - first) // ACROSS)
    whole = np.zeros((rows * side, ACROSS * side, 4), np.uint8)
    for example in range(first, last):
        image = _image(results, shown, example)
        if image is None:
            continue
        height, width, _ = image.shape
        at = divmod(example - first, ACROSS)
        top, left = at[0] * side + (side - height) // 2, at[1] * side + (side - width) // 2
        place = whole[top : top + height, left : left + width]
        place[..., :3], place[..., 3] = image, 255
    mode = 'RGBA' if (whole[..., 3] == 0).any() else 'RGB'
    file = io.BytesIO()
    Image.fromarray(whole).convert(mode).save(file, 'PNG')
    return file.getvalue()


def _image(
    results: Results, shown: Shown | None, example: int
) -> UInt8[np.ndarray, 'H W C'] | None:
    if shown is not None:
        return None if shown.images is None else shown.images[example]
    place = int(np.searchsorted(results.shown.examples, example))
    kept = results.shown.examples
    if results.shown.images is None or place == len(kept) or kept[place] != example:
        return None
    return results.shown.images[place]
