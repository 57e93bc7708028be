"""Changes of words: deleted, swapped, reordered, in another case, with typos.

A word is what stands between white space, its punctuation included; all white space stays.
Every function draws from `rng` alone and returns None where the passage does not allow the change.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from influence_jax.data.near_duplicates.variant import Passage, TextVariant

_WORD = re.compile(r'\S+')
_KEYBOARD = ('1234567890', 'qwertyuiop', 'asdfghjkl', 'zxcvbnm')


def words(text: str) -> list[str]:
    """The words of a text, in order."""
    return _WORD.findall(text)


def with_words(text: str, changed: Mapping[int, str]) -> str:
    """The text with some of its words (counted from 0) written anew, its white space kept."""
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
    said: list[str] = []
    while free and len(said) < count:
        first = free.pop()
        second = next((i for i in free if all_words[i] != all_words[first]), None)
        if second is None:
            continue
        free.remove(second)
        changed |= {first: all_words[second], second: all_words[first]}
        pair = sorted((first, second))
        said.append(
            f'{_numbered(pair)} of the {passage.name} swapped: '
            f'{all_words[pair[0]]!r}, {all_words[pair[1]]!r}'
        )
    if len(said) < count:
        return None
    return TextVariant(with_words(passage.text, changed), '; '.join(said))


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
    """Writes `count` random words in another case: lower, UPPER or Capitalised."""
    return change_words(passage, _other_case, said='case of', count=count, rng=rng)


def add_typos(passage: Passage, *, count: int, rng: np.random.Generator) -> TextVariant | None:
    """Puts one typo each into `count` random words.

    A typo is a letter or digit left out, doubled, swapped with the next, or struck on the key
    beside it (QWERTY).
    """
    return change_words(passage, _typo, said='typo in', count=count, rng=rng)


def change_words(
    passage: Passage,
    change: Callable[[Sequence[str], int, np.random.Generator], str | None],
    *,
    said: str,
    count: int,
    rng: np.random.Generator,
) -> TextVariant | None:
    """Changes `count` random words, each by itself.

    Args:
      passage: what to change.
      change: from all the words and the number of one to that one changed, or None where that
        word allows no change.
      said: how the sentence begins, for example 'typo in'.
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
    sentence = '; '.join(
        f'{said} word {i + 1} of the {passage.name}: {all_words[i]!r} -> {changed[i]!r}'
        for i in sorted(changed)
    )
    return TextVariant(with_words(passage.text, changed), sentence)


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
