"""A text dataset with near-duplicates planted in it, the truth kept."""

import dataclasses
from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from influence_jax.data.near_duplicates import choose
from influence_jax.data.near_duplicates.text_changes import TextChange, changer
from influence_jax.data.near_duplicates.variant import Passage, TextVariant
from influence_jax.data.text.dataset import TextDataset
from influence_jax.data.text.tokenized import visible
from influence_jax.data.text.tokenizer import Tokenizer


def plant(
    dataset: TextDataset,
    change: TextChange,
    *,
    unique: int,
    duplicated: int,
    copies: int,
    seed: int,
    tokenizer: Tokenizer | None = None,
    count: int | None = None,
    max_length: int | None = None,
) -> TextDataset:
    """Chooses records at random and writes some of them several times, each time changed.

    The paper's records (arXiv 2506.20481) are `TextChange.REPLACE_TOKEN` with
    `unique=1000, duplicated=100, copies=5`. The prompt is kept and the completion changed (of a
    plain text that is all of it). All variants are made from the original, and differ from it and
    from each other. Of records that are equal letter by letter only the first can be chosen.

    A record that the change is impossible for (one word cannot be reordered) can be chosen to
    be unique but not to be duplicated. So where the change asks for long texts, duplicated
    records are longer than unique ones: compare the lengths before reading anything else into
    a difference.

    Args:
      dataset: originals only.
      change: the kind of change.
      unique: records that are written once.
      duplicated: records that are written `copies` times.
      copies: the original and `copies - 1` variants; at least 2.
      seed: 0 or more; the same seed gives the same records and variants.
      tokenizer: needed where tokens are replaced, and with `max_length`.
      count: see `changer`.
      max_length: how many tokens of a record are read; variants differ within these. By default
        in the text.

    Returns:
      `unique + duplicated * copies` records: the unique ones in the dataset's order, then the
      clusters. Variants have the ids 'X~1', 'X~2' ... of their original 'X'; `groups` and
      `changes` tell which belong together and what was changed.

    Raises:
      ValueError: a count is out of range, there are too few records that can be changed, or the
        dataset has groups of several records already.
    """
    make = changer(change, tokenizer=tokenizer, count=count)
    if dataset.has_near_duplicate.any():
        raise ValueError(
            f'dataset {dataset.name!r} has groups of near-duplicates already; '
            'take one record of each group before planting others'
        )
    dataset = dataset.take(_first_of_equals(dataset))

    def vary(record: int, rng: np.random.Generator) -> _Read | None:
        variant = make(_passage(dataset, record), rng=rng)
        return variant and _Read(variant, read(record, variant.text))

    def read(record: int, completion: str) -> Hashable:
        if max_length is None or tokenizer is None:
            return completion
        return visible(dataset.prompts[record], completion, tokenizer, max_length=max_length)

    within = '' if max_length is None else f' within {max_length} tokens'
    counts = choose.Counts(unique, duplicated, copies)
    choice = choose.choose(
        dataset.ids,
        counts,
        vary=vary,
        identity=lambda variant: variant.read,
        original=lambda record: read(record, dataset.completions[record]),
        seed=seed,
        what=f'dataset {dataset.name!r}, {change.value}{within}',
    )
    written = [TextVariant(dataset.completions[i], '') for i in choice.unique]
    for record, variants in choice.clusters.items():
        written += [TextVariant(dataset.completions[record], ''), *(v.variant for v in variants)]
    counted = f'{change.value} ({count})' if count is not None else change.value
    return dataclasses.replace(
        dataset,
        prompts=tuple(dataset.prompts[i] for i in choice.sources),
        completions=tuple(variant.text for variant in written),
        ids=choose.variant_ids(dataset.ids, choice),
        groups=choice.groups,
        changes=tuple(variant.change for variant in written),
        provenance=choose.provenance(dataset.provenance, counts, counted, seed),
    )


class _Read(NamedTuple):
    """A variant, and what a model sees of it."""

    variant: TextVariant
    read: Hashable


def unused(dataset: TextDataset, planted: TextDataset) -> Int[np.ndarray, ' K']:
    """Indices of the records of `dataset` whose text is not in `planted`, in order.

    What a base model can be pretrained on without having seen an example. May be empty.
    """
    used = set(planted.texts)
    return np.array([i for i, text in enumerate(dataset.texts) if text not in used], np.int64)


def _first_of_equals(dataset: TextDataset) -> Int[np.ndarray, ' K']:
    first: dict[str, int] = {}
    for i, text in enumerate(dataset.texts):
        first.setdefault(text, i)
    return np.array(list(first.values()), np.int64)


def _passage(dataset: TextDataset, record: int) -> Passage:
    return Passage(dataset.completions[record], 'answer' if dataset.prompts[record] else 'text')
