"""Paraphrase by synonyms from WordNet."""

import gzip
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

import numpy as np

from influence_jax.data.near_duplicates.variant import Passage, TextVariant
from influence_jax.data.near_duplicates.word_changes import change_words

# A word with the punctuation around it.
_PARTS = re.compile(r"([\"'(\[]*)([A-Za-z]+)([^\w\s]*)")
_VOWELS = 'aeiou'


@cache
def synonyms() -> Mapping[str, tuple[str, ...]]:
    """The embedded table: 4,632 English words, each with the synonyms of its usual sense.

    From WordNet 3.0: single words, lower case, used mostly as one part of speech (noun, verb
    or adjective); the most frequent sense; synonyms tagged with that sense in the texts that
    WordNet's counts come from. The file's head tells more, and the licence.
    """
    file = importlib.resources.files('influence_jax.data') / 'embedded' / 'synonyms.txt.gz'
    lines = gzip.decompress(file.read_bytes()).decode('ascii').splitlines()
    pairs = (line.split('\t') for line in lines if not line.startswith('#'))
    return MappingProxyType({word: tuple(others.split(' ')) for word, others in pairs})


def paraphrase(passage: Passage, *, count: int, rng: np.random.Generator) -> TextVariant | None:
    """Replaces `count` random words by a synonym.

    Only words that the table has as they stand are replaced ('city', not 'cities'), so no
    inflection is ever made up.
    Capitalised words are left alone, for they are mostly names; only the first word of a
    passage that goes on in lower case is replaced too, and stays capitalised. After 'a' or 'an'
    only synonyms that keep the article right are taken, judged by their first letter.

    Returns:
      The variant; None where the passage has fewer than `count` replaceable words.
    """
    return change_words(passage, _synonym, said='synonym for', count=count, rng=rng)


def _synonym(words: Sequence[str], number: int, rng: np.random.Generator) -> str | None:
    parts = _PARTS.fullmatch(words[number])
    if parts is None:
        return None
    before, word, after = parts.groups()
    if not word.islower() and not _opens_a_sentence(words, number):
        return None
    possible = list(synonyms().get(word.lower(), ()))
    if number and words[number - 1].lower() in ('a', 'an'):
        possible = [s for s in possible if (s[0] in _VOWELS) == (word[0].lower() in _VOWELS)]
    if not possible:
        return None
    new = possible[rng.integers(len(possible))]
    return before + (new if word.islower() else new.capitalize()) + after


def _opens_a_sentence(words: Sequence[str], number: int) -> bool:
    return number == 0 and words[0].istitle() and len(words) > 1 and words[1].islower()
