"""How much of a record can be extracted from a model that is prompted with its beginning."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.data.text.similarity import (
    Extraction,
    check_count,
    check_truths,
    edit_distance,
    longest_common_substring,
    normalized,
    scores,
    scores_of_members,
    sentence_bleu,
)
from influence_jax.estimators.ensemble import examples_of_targets
from influence_jax.types import AnyArray, Masks

__all__ = [
    'Average',
    'ByMembership',
    'Extraction',
    'Siblings',
    'by_membership',
    'longest_common_substring',
    'nearest_siblings',
    'scores',
    'scores_of_members',
]


class Average(NamedTuple):
    """Mean over some members, of each target.

    mean: `[T]`; NaN without members.
    standard_error: `[T]` of the mean, from the scatter of the members; NaN with fewer than 2.
    members: `[T]` how many there are.
    """

    mean: Float[np.ndarray, ' T']
    standard_error: Float[np.ndarray, ' T']
    members: Int[np.ndarray, ' T']


class ByMembership(NamedTuple):
    """A score of each target, averaged over two kinds of members.

    held: those that trained on the target's record.
    left_out: those that did not; all members where the target is no example.
    """

    held: Average
    left_out: Average


class Siblings(NamedTuple):
    """How near what was decoded for each record is to the record's near-duplicates.

    Siblings are the targets of the record's group whose text is another than the record's own. The
    nearest has the highest BLEU, of several the smallest edit distance (characters, white space
    around them left out).

    nearest: `[T]` position of the nearest sibling; -1 without siblings.
    bleu: `[T]` of what was decoded against the nearest sibling's text; NaN without siblings.
    exact_match: `[T]` whether these two are the same after `normalized`.
    nearer: `[T]` whether what was decoded is nearer to that sibling than to the record itself.
    as_near: `[T]` whether it is as near to that sibling as to the record itself.
    """

    nearest: Int[np.ndarray, ' T']
    bleu: Float[np.ndarray, ' T']
    exact_match: Bool[np.ndarray, ' T']
    nearer: Bool[np.ndarray, ' T']
    as_near: Bool[np.ndarray, ' T']


def nearest_siblings(
    decoded: Sequence[str], truths: Sequence[str], groups: Int[AnyArray, ' T']
) -> Siblings:
    """Compares what one model decoded with the near-duplicates of each record.

    Near-duplicates share most of their text, so that a model which writes one of them has a high
    BLEU against all: `scores` alone do not show which of them it writes.

    Args:
      decoded: `[T]` what the model wrote after each prompt; may be empty.
      truths: `[T]` what it should have written, without the prompt.
      groups: `[T]` the same number for the near-duplicates of one record.

    Raises:
      ValueError: as in `scores`, or groups are not one integer for each target.
    """
    groups = np.asarray(groups)
    if groups.shape != (len(truths),) or groups.dtype.kind not in 'iu':
        raise ValueError(
            f'groups must be {len(truths)} integers, one for each target, '
            f'not {groups.dtype} {list(groups.shape)}'
        )
    check_truths(truths)
    check_count(decoded, truths)
    texts, bleu = [truth.strip() for truth in truths], sentence_bleu()

    @functools.cache  # near-duplicates share prompts, and so what was decoded
    def remoteness(written: str, text: str) -> tuple[float, int]:
        return -bleu(written, text), edit_distance(written, text)

    found = Siblings(
        nearest=np.full(len(truths), -1, np.int32),
        bleu=np.full(len(truths), np.nan),
        exact_match=np.zeros(len(truths), bool),
        nearer=np.zeros(len(truths), bool),
        as_near=np.zeros(len(truths), bool),
    )
    for group in _groups_of_several(groups):
        for target in group:
            written = decoded[target].strip()
            siblings = {
                other: remoteness(written, texts[other])
                for other in group
                if texts[other] != texts[target]
            }
            if not siblings:
                continue
            self_index = remoteness(written, texts[target])
            nearest = min(siblings, key=siblings.__getitem__)
            found.nearest[target] = nearest
            found.bleu[target] = -siblings[nearest][0]
            found.exact_match[target] = normalized(written) == normalized(texts[nearest])
            found.nearer[target] = siblings[nearest] < self_index
            found.as_near[target] = siblings[nearest] == self_index
    return found


def by_membership(
    masks: Masks,
    scores: Float[AnyArray, 'M T'] | Bool[AnyArray, 'M T'],
    target_examples: Int[AnyArray, ' T'] | None = None,
) -> ByMembership:
    """Averages a score over the members that held each target's record, and over the others.

    Args:
      masks: `[M N]` bool; row m is the subset on which member m was trained.
      scores: `[M T]` of what member m decoded for target t; NaN where it is missing, which leaves
        it out.
      target_examples: `[T]` position of the example that each target is, -1 where it is none. By
        default target t is example t if T == N, and otherwise no target is an example.

    Raises:
      ValueError: masks are not bool `[M N]`, or scores not `[M T]` of the same M.
    """
    masks, values = np.asarray(masks), np.asarray(scores)
    if masks.ndim != 2 or masks.dtype != bool:
        raise ValueError(
            f'masks must be bool [members examples], not {masks.dtype} {list(masks.shape)}'
        )
    if values.ndim != 2 or len(values) != len(masks) or values.dtype.kind not in 'bfiu':
        raise ValueError(
            f'scores must be real numbers [{len(masks)} members, targets], one row a mask, '
            f'not {values.dtype} {list(values.shape)}'
        )
    values = values.astype(np.float64)
    self_index = examples_of_targets(
        target_examples, examples=masks.shape[1], targets=values.shape[1]
    )
    held = masks[:, self_index] & (self_index >= 0)[None]
    known = ~np.isnan(values)
    return ByMembership(_average(values, held & known), _average(values, ~held & known))


def _groups_of_several(groups: Int[np.ndarray, ' T']) -> list[list[int]]:
    members: dict[int, list[int]] = {}
    for target, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(target)
    return [group for group in members.values() if len(group) > 1]


def _average(values: Float[np.ndarray, 'M T'], used: Bool[np.ndarray, 'M T']) -> Average:
    members = used.sum(axis=0)
    with np.errstate(divide='ignore', invalid='ignore'):
        mean = values.sum(axis=0, where=used) / members
        squares = np.square(values - mean[None]).sum(axis=0, where=used)
        error = np.sqrt(squares / (members - 1) / members)
    return Average(mean, np.where(members > 1, error, np.nan), members)
