"""How much of a text another one gives again: BLEU, exact match, common substrings, edits."""

import functools
import re
import string
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

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
    check_truths(truths)
    check_count(decoded, truths)
    return _scored(zip(decoded, truths, strict=True), (len(truths),))


def scores_of_members(decoded: Sequence[Sequence[str]], truths: Sequence[str]) -> Extraction:
    """`scores` of many members, `[M T]`; a pair of texts that returns is scored once.

    Raises:
      ValueError: as in `scores`, for any member.
    """
    check_truths(truths)
    for texts in decoded:
        check_count(texts, truths)
    pairs = (pair for texts in decoded for pair in zip(texts, truths, strict=True))
    return _scored(pairs, (len(decoded), len(truths)))


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


def sentence_bleu() -> Callable[[str, str], float]:
    """Returns the BLEU in [0, 1] of a text against one reference; see `scores`."""
    from sacrebleu.metrics import BLEU  # slow to import

    metric = BLEU(tokenize='13a', smooth_method='exp', effective_order=True)
    # Rounding can lift a perfect score above 1.
    return lambda text, truth: min(metric.sentence_score(text, [truth]).score / 100, 1.0)


def check_truths(truths: Sequence[str]) -> None:
    """Raises ValueError where a truth is white space alone: no text could give it again."""
    empty = [place for place, truth in enumerate(truths) if not truth.strip()]
    if empty:
        raise ValueError(
            f'{len(empty)} of {len(truths)} truths are empty, the first is target {empty[0]}: '
            'there is nothing to extract; leave these targets out'
        )


def check_count(decoded: Sequence[str], truths: Sequence[str]) -> None:
    """Raises ValueError unless there is one decoded text for each truth."""
    if len(decoded) != len(truths):
        raise ValueError(
            f'{len(decoded)} decoded texts for {len(truths)} truths: give one for each target'
        )


def _scored(pairs: Iterable[tuple[str, str]], shape: tuple[int, ...]) -> Extraction:
    places: dict[tuple[str, str], int] = {}
    where = np.array([places.setdefault(pair, len(places)) for pair in pairs], int).reshape(shape)
    bleu, normal = sentence_bleu(), functools.cache(normalized)
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
