"""How much of a record can be extracted from a model that is prompted with its beginning."""

import functools
import re
import string
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.ensemble import examples_of_targets
from influence_jax.types import AnyArray, Masks

_ARTICLES = re.compile(r'\b(?:a|an|the)\b')
_WITHOUT_PUNCTUATION = str.maketrans('', '', string.punctuation)


class Extraction(NamedTuple):
    """How well what was decoded agrees with the truth; one number a pair of texts.

    Either `[T]`, of one model, or `[M T]`, of many.

    bleu: sacrebleu's sentence BLEU in [0, 1], see `scores`.
    exact_match: whether both are the same after `normalized`.
    longest_common: characters of the longest string that both contain, white space around each
        left out; case matters.
    longest_common_share: the same as a share of the truth's characters, in [0, 1].
    """

    bleu: Float[np.ndarray, '...']
    exact_match: Bool[np.ndarray, '...']
    longest_common: Int[np.ndarray, '...']
    longest_common_share: Float[np.ndarray, '...']


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


def scores(decoded: Sequence[str], truths: Sequence[str]) -> Extraction:
    """Scores what one model decoded for each target against the truth.

    BLEU is `sacrebleu.metrics.BLEU(tokenize='13a', smooth_method='exp', effective_order=True)
    .sentence_score` with one reference, case mattering, divided by 100 (signature
    `nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp`). Many answers are one or two words long and
    have no 4-grams: without `effective_order`, which stops at the longest n-grams that the decoded
    text has, a right answer of fewer than four words scores 0. Tokenizer and smoothing are
    sacrebleu's own defaults. The paper (arXiv 2506.20481) reports BLEU without naming them.

    Args:
      decoded: `[T]` what the model wrote after each prompt; may be empty.
      truths: `[T]` what it should have written, without the prompt.

    Raises:
      ValueError: not as many texts as truths, or a truth of white space alone.
    """
    _check(truths)
    _check_count(decoded, truths)
    return _scored(zip(decoded, truths, strict=True), (len(truths),))


def scores_of_members(decoded: Sequence[Sequence[str]], truths: Sequence[str]) -> Extraction:
    """`scores` of many members, `[M T]`; a pair of texts that returns is scored once.

    Raises:
      ValueError: as in `scores`, for any member.
    """
    _check(truths)
    for texts in decoded:
        _check_count(texts, truths)
    pairs = (pair for texts in decoded for pair in zip(texts, truths, strict=True))
    return _scored(pairs, (len(decoded), len(truths)))


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
    _check(truths)
    _check_count(decoded, truths)
    texts, bleu = [truth.strip() for truth in truths], _sentence_bleu()

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


def normalized(text: str) -> str:
    """An answer as SQuAD and NQ-open compare it (Rajpurkar et al. 2016).

    Lower case, without ASCII punctuation, without 'a', 'an' and 'the', white space collapsed. An
    answer of which that leaves nothing is only put into lower case and stripped.
    """
    bare = _ARTICLES.sub(' ', text.lower().translate(_WITHOUT_PUNCTUATION))
    return ' '.join(bare.split()) or text.lower().strip()


def longest_common_substring(decoded: str, truth: str) -> str:
    """The longest string that both contain; the first in `decoded` of several."""
    start = longest = 0
    # No place can be better by less than one character: grow the best, never shrink it.
    for place in range(len(decoded)):
        while place + longest < len(decoded) and decoded[place : place + longest + 1] in truth:
            start, longest = place, longest + 1
    return decoded[start : start + longest]


def edit_distance(one: str, other: str) -> int:
    """How many characters must be inserted, left out or replaced to make one of the other."""
    while one and other and one[0] == other[0]:
        one, other = one[1:], other[1:]
    while one and other and one[-1] == other[-1]:
        one, other = one[:-1], other[:-1]
    letters, steps = np.array([*map(ord, other)], np.int64), np.arange(len(other) + 1)
    row = steps
    for place, letter in enumerate(map(ord, one), start=1):
        changed = np.minimum(row[:-1] + (letters != letter), row[1:] + 1)
        # Insertions run along the row: each entry is at most one more than that before it.
        row = np.minimum.accumulate(np.concatenate([[place], changed]) - steps) + steps
    return int(row[-1])


def _scored(pairs: Iterable[tuple[str, str]], shape: tuple[int, ...]) -> Extraction:
    places: dict[tuple[str, str], int] = {}
    where = np.array([places.setdefault(pair, len(places)) for pair in pairs], int).reshape(shape)
    bleu, normal = _sentence_bleu(), functools.cache(normalized)
    distinct = [
        (
            bleu(text, truth),
            normal(text) == normal(truth),
            len(longest_common_substring(text.strip(), truth.strip())),
            len(truth.strip()),
        )
        for text, truth in places
    ]
    values = np.array(distinct, np.float64).reshape(-1, 4)[where]
    common = values[..., 2].astype(np.int32)
    return Extraction(values[..., 0], values[..., 1] > 0, common, common / values[..., 3])


def _groups_of_several(groups: Int[np.ndarray, ' T']) -> list[list[int]]:
    members: dict[int, list[int]] = {}
    for target, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(target)
    return [group for group in members.values() if len(group) > 1]


def _sentence_bleu() -> Callable[[str, str], float]:
    from sacrebleu.metrics import BLEU

    metric = BLEU(tokenize='13a', smooth_method='exp', effective_order=True)
    # Rounding can lift a perfect score above 1.
    return lambda text, truth: min(metric.sentence_score(text, [truth]).score / 100, 1.0)


def _average(values: Float[np.ndarray, 'M T'], used: Bool[np.ndarray, 'M T']) -> Average:
    members = used.sum(axis=0)
    with np.errstate(divide='ignore', invalid='ignore'):
        mean = values.sum(axis=0, where=used) / members
        squares = np.square(values - mean[None]).sum(axis=0, where=used)
        error = np.sqrt(squares / (members - 1) / members)
    return Average(mean, np.where(members > 1, error, np.nan), members)


def _check(truths: Sequence[str]) -> None:
    empty = [place for place, truth in enumerate(truths) if not truth.strip()]
    if empty:
        raise ValueError(
            f'{len(empty)} of {len(truths)} truths are empty, the first is target {empty[0]}: '
            'there is nothing to extract; leave these targets out'
        )


def _check_count(decoded: Sequence[str], truths: Sequence[str]) -> None:
    if len(decoded) != len(truths):
        raise ValueError(
            f'{len(decoded)} decoded texts for {len(truths)} truths: give one for each target'
        )
