"""Which records stay unique, which are duplicated, and the variants of these."""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int

Variant = TypeVar('Variant')

# In a row without a new variant, until a record counts as having no more: one that is left of
# four possible is missed with probability 3e-13, one of ten with 3e-5.
_TRIES = 100


class Counts(NamedTuple):
    """What to choose: `unique` records as they are, `duplicated` ones in `copies` versions each.

    The original is one of the `copies`.
    """

    unique: int
    duplicated: int
    copies: int


class Choice(NamedTuple, Generic[Variant]):
    """The chosen records, in the dataset's order.

    unique: indices of those that stay alone.
    clusters: index of each of the others, with its `copies - 1` variants.
    """

    unique: Int[np.ndarray, ' unique']
    clusters: dict[int, tuple[Variant, ...]]

    @property
    def sources(self) -> list[int]:
        """Of every record to be written the index it comes from: unique ones, then clusters."""
        repeated = [i for i, variants in self.clusters.items() for _ in (i, *variants)]
        return self.unique.tolist() + repeated

    @property
    def groups(self) -> Int[np.ndarray, ' written']:
        """Of every record to be written its group: unique ones from 0 on, then clusters."""
        sizes = [1] * len(self.unique) + [1 + len(v) for v in self.clusters.values()]
        return np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)


def choose(
    ids: Sequence[str],
    counts: Counts,
    *,
    vary: Callable[[int, np.random.Generator], Variant | None],
    identity: Callable[[Variant], Hashable],
    original: Callable[[int], Hashable],
    seed: int,
    what: str,
) -> Choice[Variant]:
    """Draws distinct records at random and makes the variants.

    Those to be duplicated are drawn among the records that have `copies - 1` variants different
    from each other and from their original; the unique ones among all the rest. A record's
    variants depend on the seed and its id alone, and fewer copies are the first of more.

    Args:
      ids: of all records.
      counts: how many to choose.
      vary: a random variant of record i, None where it is impossible.
      identity: what tells variants apart.
      original: the same of record i itself.
      seed: 0 or more.
      what: the dataset and the change in words, for errors.

    Raises:
      ValueError: a count or the seed is out of range, or there are too few records, or too few
        that can be varied.
    """
    _check(counts, len(ids), seed, what)
    rng = np.random.default_rng(seed)
    clusters: dict[int, tuple[Variant, ...]] = {}
    for i in rng.permutation(len(ids)).tolist():
        if len(clusters) == counts.duplicated:
            break
        record_rng = np.random.default_rng([seed, _number(ids[i])])
        variants = _distinct(
            partial(vary, i, record_rng), counts.copies - 1, identity=identity, unlike=original(i)
        )
        if variants is not None:
            clusters[i] = variants
    if len(clusters) < counts.duplicated:
        raise ValueError(
            f'{what}: only {len(clusters)} of {len(ids)} records can be written in '
            f'{counts.copies} different versions, but {counts.duplicated} are to be duplicated; '
            'duplicate fewer, make fewer copies, or choose another change'
        )
    rest = np.setdiff1d(np.arange(len(ids)), np.array(list(clusters), np.int64))
    unique = np.sort(rng.permutation(rest)[: counts.unique])
    return Choice(unique, dict(sorted(clusters.items())))


def variant_ids(ids: Sequence[str], choice: Choice[Variant]) -> tuple[str, ...]:
    """'X' for an original, 'X~1', 'X~2' ... for its variants, in the order of `sources`."""
    repeated = [
        f'{ids[i]}~{number}' if number else ids[i]
        for i, variants in choice.clusters.items()
        for number in range(1 + len(variants))
    ]
    return (*(ids[i] for i in choice.unique), *repeated)


def provenance(source: str, counts: Counts, change: str, seed: int) -> str:
    """Where chosen and planted records come from, added to where their originals do."""
    planted = (
        f'chosen at random (seed {seed}): {counts.unique} unique records and '
        f'{counts.duplicated} in {counts.copies} versions each by {change}'
    )
    return f'{source}; {planted}' if source else planted


def _check(counts: Counts, records: int, seed: int, what: str) -> None:
    unique, duplicated, copies = counts
    if seed < 0:
        raise ValueError(f'{what}: {seed=} must be 0 or more')
    if duplicated and copies < 2:
        raise ValueError(f'{what}: {copies=} must be at least 2: an original and a variant')
    if unique < 0 or duplicated < 0 or not unique + duplicated:
        raise ValueError(
            f'{what}: {unique=} and {duplicated=} must be 0 or more, and not both of them 0'
        )
    if unique + duplicated > records:
        raise ValueError(
            f'{what}: {unique} unique and {duplicated} duplicated are {unique + duplicated} '
            f'different records, but there are only {records}'
        )


def _distinct(
    draw: Callable[[], Variant | None],
    number: int,
    *,
    identity: Callable[[Variant], Hashable],
    unlike: Hashable,
) -> tuple[Variant, ...] | None:
    """The first `number` different draws, None where there do not seem to be so many."""
    found: dict[Hashable, Variant] = {}
    tries = 0
    while len(found) < number and tries < _TRIES:
        tries += 1
        variant = draw()
        if variant is None or identity(variant) in {unlike, *found}:
            continue
        found[identity(variant)] = variant
        tries = 0
    return tuple(found.values()) if len(found) == number else None


def _number(example_id: str) -> int:
    return int.from_bytes(hashlib.sha256(example_id.encode()).digest()[:16], 'little')
