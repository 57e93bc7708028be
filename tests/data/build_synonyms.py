"""Builds the embedded table of synonyms from WordNet 3.0's own files.

    apt-get download wordnet-base && dpkg -x wordnet-base_*.deb wordnet
    python tests/data/build_synonyms.py wordnet/usr/share/wordnet \
        influence_jax/data/embedded/synonyms.txt.gz
"""

import argparse
import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HEAD = """\
Synonyms of common English words: word, tab, its synonyms.
Made from WordNet 3.0 as packaged by Debian (wordnet-base 1:3.0-37: data.*, index.*, cntlist.rev):
of each single word that occurs in the sense-tagged texts, three quarters of its occurrences as
one part of speech (noun, verb, adjective), the single-word synonyms of its most frequent sense
that are themselves tagged with it. Auxiliaries, abbreviations, insults and plurals of a singular
are left out.
"""
PARTS = ('noun', 'verb', 'adj')
# As a sense key numbers them; satellites are adjectives.
PART_OF_NUMBER = {'1': 'noun', '2': 'verb', '3': 'adj', '5': 'adj', '4': 'adv'}
LEAST_SHARE = 0.75
WORD = re.compile('[a-z]{3,}')
AUXILIARIES = {'have', 'let', 'like', 'get', 'said', 'done'}
ABBREVIATIONS = {'des', 'cps', 'tsh', 'diam', 'atm', 'min', 'sec', 'fig', 'plat'}
INSULTS = {
    *('nigger', 'nigra', 'spic', 'whore', 'prick', 'ass'),
    *('bastard', 'bitch', 'tit', 'pimp', 'nooky', 'cuss', 'shit'),
}
LEFT_OUT = AUXILIARIES | ABBREVIATIONS | INSULTS


class Sense(NamedTuple):
    """How often a word was tagged with a synset of a part of speech, and which sense that is."""

    times: int
    number: int
    part: str
    synset: str | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('wordnet', type=Path, help='folder with data.noun and the others')
    parser.add_argument('output', type=Path, help='the .txt.gz file to write')
    arguments = parser.parse_args()
    table = synonyms(tagged(arguments.wordnet), synsets(arguments.wordnet))
    head = HEAD + '\n' + notice(arguments.wordnet / 'data.noun')
    lines = [f'# {line}'.rstrip() for line in head.splitlines()]
    lines += [f'{word}\t{" ".join(others)}' for word, others in sorted(table.items())]
    # Without a time stamp, so that the same table gives the same file.
    content = ('\n'.join(lines) + '\n').encode('ascii')
    arguments.output.write_bytes(gzip.compress(content, compresslevel=9, mtime=0))
    print(f'{len(table)} words')


def synonyms(
    senses: dict[str, list[Sense]], words_of: dict[tuple[str, str], list[str]]
) -> dict[str, list[str]]:
    """Word -> the synonyms of its most frequent sense, where it mostly is one part of speech."""
    has_sense = {(word, s.part, s.synset) for word, found in senses.items() for s in found}
    table = {}
    for word, found in senses.items():
        _, _, part, synset = max(found, key=lambda sense: (sense.times, -sense.number))
        share = sum(s.times for s in found if s.part == part) / sum(s.times for s in found)
        if not wanted(word) or synset is None or share < LEAST_SHARE:
            continue
        others = [
            other
            for other in dict.fromkeys(words_of[part, synset])
            if wanted(other)
            and other != word
            and (other, part, synset) in has_sense
            and (not is_plural(other) or is_plural(word))
        ]
        if others:
            table[word] = others
    return table


def wanted(word: str) -> bool:
    return bool(WORD.fullmatch(word)) and word not in LEFT_OUT


def is_plural(word: str) -> bool:
    return word.endswith('s') and not word.endswith(('ss', 'us', 'is'))


def tagged(folder: Path) -> dict[str, list[Sense]]:
    """Word -> its senses that occur in the tagged texts; of adverbs without a synset."""
    synset_of = {
        (fields[0], part): fields[-int(fields[2]) :]
        for part in PARTS
        for fields in map(str.split, lines(folder / f'index.{part}'))
    }
    senses: dict[str, list[Sense]] = {}
    for line in lines(folder / 'cntlist.rev'):
        key, number, times = line.split()
        word, rest = key.split('%')
        part = PART_OF_NUMBER[rest[0]]
        found = synset_of.get((word, part), [])[int(number) - 1 : int(number)]
        senses.setdefault(word, []).append(
            Sense(int(times), int(number), part, found[0] if found else None)
        )
    return senses


def synsets(folder: Path) -> dict[tuple[str, str], list[str]]:
    """Part of speech and synset -> its words, without the syntactic marker of adjectives."""
    return {
        (part, fields[0]): [
            re.sub(r'\(\w+\)$', '', word) for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]
        ]
        for part in PARTS
        for fields in map(str.split, lines(folder / f'data.{part}'))
    }


def lines(path: Path) -> Iterator[str]:
    """Those below the licence, which is indented by two spaces."""
    with path.open(encoding='ascii') as file:
        yield from (line.rstrip() for line in file if not line.startswith('  '))


def notice(path: Path) -> str:
    """The licence at the head of a file, without its line numbers."""
    with path.open(encoding='ascii') as file:
        head = [line for line in file if line.startswith('  ')]
    return '\n'.join(re.sub(r'^ +\d+ ', '', line).rstrip() for line in head)


if __name__ == '__main__':
    main()
