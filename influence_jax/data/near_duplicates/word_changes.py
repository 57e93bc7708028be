"""Changes of words: deleted, swapped, reordered, replaced by synonyms, in another case, with typos.

A word is what stands between white space, its punctuation included; all white space stays.
Every function draws from `rng` alone and returns None where the passage does not allow the change.
"""

import gzip
import importlib.resources
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

# A word with the punctuation around it.
_PARTS = re.compile(r"([\"'(\[]*)([A-Za-z]+)([^\w\s]*)")
_VOWELS = 'aeiou'
_WORD = re.compile(r'\S+')
_KEYBOARD = ('1234567890', 'qwertyuiop', 'asdfghjkl', 'zxcvbnm')


class Passage(NamedTuple):
    """The part of a record that a change may touch.

    text: for example ' Bobby Scott'; the space that joins it to its prompt belongs to it.
    name: what sentences call it, 'answer' or 'text'.
    """

    text: str
    name: str


class TextVariant(NamedTuple):
    """A near-duplicate of a passage.

    text: the whole changed passage.
    change: a sentence that says what was changed. Positions in it count from 1.
    """

    text: str
    change: str


def words(text: str) -> list[str]:
    """Returns the words of a text, in order."""
    return _WORD.findall(text)


def with_words(text: str, changed: Mapping[int, str]) -> str:
    """Replaces some words (counted from 0) of a text and keeps its white space."""
    numbers = iter(range(len(text)))
    return _WORD.sub(lambda word: changed.get(next(numbers), word.group()), text)


def delete_words(passage: Passage, *, count: int, rng: np.random.Generator) -> TextVariant | None:
    """Deletes `count` random words; at least one must remain."""
    found = list(_WORD.finditer(passage.text))
    if len(found) <= count:
        return None
    gone = _some(len(found), count, rng)
    # A word takes the space before it along; the new first word takes the old one's place.
    spaces = [
        passage.text[before.end() if before else 0 : word.start()]
        for before, word in zip([None, *found], found, strict=False)
    ]
    kept = [i for i in range(len(found)) if i not in gone]
    text = ''.join((spaces[0] if i == kept[0] else spaces[i]) + found[i].group() for i in kept)
    text += passage.text[found[-1].end() :]
    listed = ', '.join(repr(found[i].group()) for i in gone)
    return TextVariant(text, f'{_numbered(gone)} of the {passage.name} deleted: {listed}')


def swap_words(passage: Passage, *, count: int, rng: np.random.Generator) -> TextVariant | None:
    """Swaps `count` random pairs of different words, no word in two pairs."""
    all_words = words(passage.text)
    free = rng.permutation(len(all_words)).tolist()
    changed: dict[int, str] = {}
    swaps: list[str] = []
    while free and len(swaps) < count:
        first = free.pop()
        second = next((i for i in free if all_words[i] != all_words[first]), None)
        if second is None:
            continue
        free.remove(second)
        changed |= {first: all_words[second], second: all_words[first]}
        pair = sorted((first, second))
        swaps.append(
            f'{_numbered(pair)} of the {passage.name} swapped: '
            f'{all_words[pair[0]]!r}, {all_words[pair[1]]!r}'
        )
    if len(swaps) < count:
        return None
    return TextVariant(with_words(passage.text, changed), '; '.join(swaps))


def reorder_words(passage: Passage, *, rng: np.random.Generator) -> TextVariant | None:
    """Puts all the words into a random other order."""
    all_words = words(passage.text)
    if len(set(all_words)) < 2:
        return None
    order = rng.permutation(len(all_words)).tolist()
    while [all_words[i] for i in order] == all_words:
        order = rng.permutation(len(all_words)).tolist()
    text = with_words(passage.text, dict(enumerate(all_words[i] for i in order)))
    listed = ', '.join(str(i + 1) for i in order)
    return TextVariant(text, f'words of the {passage.name} in the order {listed}')


def change_case(passage: Passage, *, count: int, rng: np.random.Generator) -> TextVariant | None:
    """Writes `count` random words in another case: lower, UPPER or Capitalized."""
    return _change_words(passage, _other_case, sentence='case of', count=count, rng=rng)


def add_typos(passage: Passage, *, count: int, rng: np.random.Generator) -> TextVariant | None:
    """Puts one typo each into `count` random words.

    A typo is a letter or digit left out, doubled, swapped with the next, or struck on the key
    beside it (QWERTY).
    """
    return _change_words(passage, _typo, sentence='typo in', count=count, rng=rng)


@cache
def synonyms() -> Mapping[str, tuple[str, ...]]:
    """Returns the embedded table: 4,632 English words, each with the synonyms of its usual sense.

    From WordNet 3.0: single words, lower case, used mostly as one part of speech (noun, verb
    or adjective); the most frequent sense; synonyms tagged with that sense in the texts that
    WordNet's counts come from. More, and the license, is at the head of the file.
    """
    file = importlib.resources.files('influence_jax.data') / 'embedded' / 'synonyms.txt.gz'
    lines = gzip.decompress(file.read_bytes()).decode('ascii').splitlines()
    pairs = (line.split('\t') for line in lines if not line.startswith('#'))
    return MappingProxyType({word: tuple(others.split(' ')) for word, others in pairs})


def paraphrase(passage: Passage, *, count: int, rng: np.random.Generator) -> TextVariant | None:
    """Replaces `count` random words by a synonym.

    Only words that the table has as they stand are replaced ('city', not 'cities'), so no
    inflection is ever made up. Capitalized words are left alone, for they are mostly names; only
    the first word of a passage that goes on in lower case is replaced too, and stays capitalized.
    After 'a' or 'an'
    only synonyms that keep the article right are taken, judged by their first letter.

    Returns:
      The variant; None where the passage has fewer than `count` replaceable words.
    """
    return _change_words(passage, _synonym, sentence='synonym for', count=count, rng=rng)


def _change_words(
    passage: Passage,
    change: Callable[[Sequence[str], int, np.random.Generator], str | None],
    *,
    sentence: str,
    count: int,
    rng: np.random.Generator,
) -> TextVariant | None:
    """Changes `count` random words, each by itself.

    Args:
      passage: what to change.
      change: from all the words and the number of one to that one changed, or None where that
        word allows no change.
      sentence: how the sentence begins, for example 'typo in'.
      count: how many words.
      rng: source of the choices.
    """
    all_words = words(passage.text)
    changed: dict[int, str] = {}
    for number in rng.permutation(len(all_words)).tolist():
        if len(changed) == count:
            break
        new = change(all_words, number, rng)
        if new is not None:
            changed[number] = new
    if len(changed) < count:
        return None
    whole = '; '.join(
        f'{sentence} word {i + 1} of the {passage.name}: {all_words[i]!r} -> {changed[i]!r}'
        for i in sorted(changed)
    )
    return TextVariant(with_words(passage.text, changed), whole)


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


def _other_case(all_words: Sequence[str], number: int, rng: np.random.Generator) -> str | None:
    word = all_words[number]
    others = sorted({word.lower(), word.upper(), word.capitalize()} - {word})
    return others[rng.integers(len(others))] if others else None


def _typo(all_words: Sequence[str], number: int, rng: np.random.Generator) -> str | None:
    word = all_words[number]
    places = [i for i, character in enumerate(word) if character.isalnum()]
    if not places:
        return None
    i = places[rng.integers(len(places))]
    head, character, tail = word[:i], word[i], word[i + 1 :]
    possible = [head + character + character + tail]
    if len(places) > 1:
        possible.append(head + tail)
    if tail[:1].isalnum():
        possible.append(head + tail[0] + character + tail[1:])
    keys = _keys_beside(character)
    if keys:
        possible.append(head + keys[rng.integers(len(keys))] + tail)
    possible = [typo for typo in possible if typo != word]
    return possible[rng.integers(len(possible))]


def _keys_beside(character: str) -> list[str]:
    row = next((row for row in _KEYBOARD if character.lower() in row), '')
    place = row.find(character.lower())
    beside = [row[i] for i in (place - 1, place + 1) if 0 <= i < len(row)]
    return [key.upper() for key in beside] if character.isupper() else beside


def _some(total: int, count: int, rng: np.random.Generator) -> list[int]:
    """`count` different random numbers below `total`, in order."""
    return sorted(rng.permutation(total)[:count].tolist())


def _numbered(numbers: Sequence[int]) -> str:
    listed = ' and '.join(str(i + 1) for i in numbers)
    return f'word {listed}' if len(numbers) == 1 else f'words {listed}'
