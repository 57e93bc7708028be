"""Injects near-duplicates: chooses examples, varies some of them, and keeps the truth."""

import dataclasses
import hashlib
from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Int

from influence_jax.data.dataset import Dataset

# In a row without a new variant, until an example counts as having no more: one that is left of
# four possible is missed with probability 3e-13, one of ten with 3e-5.
_TRIES = 100


class Variant(NamedTuple):
    """A near-duplicate of an example.

    entries: by the name of an array, what takes the place of the example's entry there.
    change: a sentence that says what was changed. Positions in it count from 1.
    identity: equal for variants that count as equal; see `Change.identity`.
    """

    entries: Mapping[str, Any]
    change: str
    identity: Hashable


@runtime_checkable
class Change(Protocol):
    """A kind of change: makes near-duplicates of an example."""

    @property
    def name(self) -> str:
        """What it is called in messages and in the provenance."""

    def identity(self, dataset: Dataset, index: int) -> Hashable:
        """Returns what variants of an example must differ in from it, and from each other."""

    def vary(self, dataset: Dataset, index: int, rng: np.random.Generator) -> Variant | None:
        """Draws a variant of an example; None where the draw, or any draw, gives none.

        A pure function of the example and of the state of `rng`.
        """


def inject(
    dataset: Dataset, change: Change, *, unique: int, duplicated: int, copies: int, seed: int
) -> Dataset:
    """Chooses examples at random and writes some of them several times, each time changed.

    The records of the paper (arXiv 2506.20481) are `text_change(TextChange.REPLACE_TOKEN, ...)`
    with `unique=1000, duplicated=100, copies=5`. All variants are made from the original, keep
    its label, and differ from it and from each other. Examples that are equal or nearly so
    beforehand are not looked for: leave them out first, with `without_repeats` and
    `pixel_distance.without_near_duplicates`.

    An example for which the change is impossible (one word cannot be reordered) can be chosen to
    be unique but not to be duplicated. So where the change asks for long texts, duplicated
    records are longer than unique ones: compare the lengths before reading anything else into
    a difference.

    Args:
      dataset: originals only.
      change: how variants are made: `image_change(...)`, `text_change(...)` or one's own.
      unique: examples that are written once.
      duplicated: examples that are written `copies` times.
      copies: the original and `copies - 1` variants; at least 2.
      seed: 0 or more; the same seed gives the same examples and variants. Those of an example
        depend on the seed and its id alone, and fewer copies are the first of more.

    Returns:
      `unique + duplicated * copies` examples: the unique ones in the dataset's order, then the
      clusters. Variants have the ids 'X~1', 'X~2' ... of their original 'X'; `groups` and
      `changes` hold which belong together and what was changed.

    Raises:
      ValueError: a count is out of range, there are too few examples that can be changed, or the
        dataset has groups of several examples already.
    """
    what = f'dataset {dataset.name!r}, {change.name}'
    _check(what, len(dataset), unique=unique, duplicated=duplicated, copies=copies, seed=seed)
    if dataset.has_near_duplicate.any():
        raise ValueError(
            f'{what}: the dataset has groups of near-duplicates already; '
            'take one example of each group before injecting others (without_repeats)'
        )
    rng = np.random.default_rng(seed)
    clusters: dict[int, list[Variant]] = {}
    for i in rng.permutation(len(dataset)).tolist():
        if len(clusters) == duplicated:
            break
        variants = _distinct_variants(dataset, change, i, copies - 1, seed=seed)
        if variants is not None:
            clusters[i] = variants
    if len(clusters) < duplicated:
        raise ValueError(
            f'{what}: only {len(clusters)} of {len(dataset)} examples can be written in '
            f'{copies} different versions, but {duplicated} are to be duplicated; '
            'duplicate fewer, make fewer copies, or choose another change'
        )
    rest = np.setdiff1d(np.arange(len(dataset)), np.array(list(clusters), np.int64))
    alone = np.sort(rng.permutation(rest)[:unique])
    written = _written(dataset, alone, dict(sorted(clusters.items())))
    injected = (
        f'chosen at random (seed {seed}): {unique} unique examples and '
        f'{duplicated} in {copies} versions each by {change.name}'
    )
    return dataclasses.replace(
        written, provenance='; '.join(filter(None, (dataset.provenance, injected)))
    )


def unused(dataset: Dataset, injected: Dataset) -> Int[np.ndarray, ' K']:
    """Returns the indices of the records of `dataset` whose text is not in `injected`, in order.

    What a base model can be pretrained on without having seen an example. May be empty.
    """
    used = set(injected.texts)
    return np.array([i for i, text in enumerate(dataset.texts) if text not in used], np.int64)


def without_repeats(dataset: Dataset) -> Dataset:
    """Leaves out what a dataset holds twice by itself, and adds a note of how much that is.

    The first example of each group is kept, in the order of the groups; of texts that are equal
    letter by letter, the first.
    """
    kept = np.arange(len(dataset))
    if dataset.groups is not None:
        # In the order of the groups, also where none has a second one: it decides what is drawn.
        kept = np.unique(dataset.groups, return_index=True)[1]
    if dataset.has_texts:
        texts = dataset.texts
        first: dict[str, int] = {}
        for i in kept.tolist():
            first.setdefault(texts[i], i)
        kept = np.array(list(first.values()))
    repeated = len(dataset) - len(kept)
    if not repeated:
        return dataset.take(kept)
    note = (
        f'{repeated:,} of {len(dataset):,} records repeat an earlier one (the same text, question '
        'or group) and are left out: the first of each is kept.'
    )
    return dataclasses.replace(dataset.take(kept), notes=(*dataset.notes, note))


def _check(
    what: str, examples: int, *, unique: int, duplicated: int, copies: int, seed: int
) -> None:
    if seed < 0:
        raise ValueError(f'{what}: {seed=} must be 0 or more')
    if duplicated and copies < 2:
        raise ValueError(f'{what}: {copies=} must be at least 2: an original and a variant')
    if unique < 0 or duplicated < 0 or not unique + duplicated:
        raise ValueError(
            f'{what}: {unique=} and {duplicated=} must be 0 or more, and not both of them 0'
        )
    if unique + duplicated > examples:
        raise ValueError(
            f'{what}: {unique=} and {duplicated=} take {unique + duplicated} different examples, '
            f'but there are only {examples} without near-duplicates of their own; ask for fewer'
        )


def _distinct_variants(
    dataset: Dataset, change: Change, index: int, number: int, *, seed: int
) -> list[Variant] | None:
    """The first `number` different variants; None where there do not seem to be so many."""
    hashed = hashlib.sha256(dataset.ids[index].encode()).digest()[:16]
    rng = np.random.default_rng([seed, int.from_bytes(hashed, 'little')])
    seen = {change.identity(dataset, index)}
    found: list[Variant] = []
    tries = 0
    while len(found) < number and tries < _TRIES:
        tries += 1
        variant = change.vary(dataset, index, rng)
        if variant is None or variant.identity in seen:
            continue
        seen.add(variant.identity)
        found.append(variant)
        tries = 0
    return found if len(found) == number else None


def _written(
    dataset: Dataset, alone: Int[np.ndarray, ' unique'], clusters: dict[int, list[Variant]]
) -> Dataset:
    """The examples that stay alone, then each original with its variants."""
    sizes = [1] * len(alone) + [1 + len(variants) for variants in clusters.values()]
    sources = np.repeat([*alone.tolist(), *clusters], sizes)
    rows = dataset.rows(sources)
    arrays = jax.tree.map(np.array, rows['arrays'])
    ids, changes = list(rows['ids']), list(rows['changes'])
    row = len(alone)
    for variants in clusters.values():
        for number, variant in enumerate(variants, start=1):
            for name, entry in variant.entries.items():
                arrays[name][row + number] = entry
            ids[row + number] += f'~{number}'
            changes[row + number] = variant.change
        row += 1 + len(variants)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    fields = {**rows, 'arrays': arrays, 'ids': ids, 'changes': changes, 'groups': groups}
    return dataclasses.replace(dataset, **fields)
