"""Builds the embedded WordNet records from WordNet 3.0's own files.

    apt-get download wordnet-base && dpkg -x wordnet-base_*.deb wordnet
    python tests/data/build_wordnet.py wordnet/usr/share/wordnet \
        influence_jax/data/embedded/wordnet.jsonl.gz
"""

import argparse
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

RECORDS = 4_000
WORDS = range(5, 26)

# No digits: the numerals' glosses are near-duplicates of each other.
LEMMA = re.compile(r"[a-z][a-z_'.-]*")
# 'definition; another part; "an example"; "another"'
EXAMPLES = re.compile(r'(?:^|; ?)".*"$')
INSULT = re.compile(r'offensive|disparag|slur|derogat|obscene terms|dark skin', re.IGNORECASE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('wordnet', type=Path, help='folder with data.noun')
    parser.add_argument('output', type=Path, help='the .jsonl.gz file to write')
    arguments = parser.parse_args()
    glosses = select(
        definitions(lines(arguments.wordnet / 'data.noun')),
        first_senses(lines(arguments.wordnet / 'index.noun')),
        frequencies(lines(arguments.wordnet / 'cntlist.rev')),
    )
    content = as_jsonl(glosses[:RECORDS])
    # Without a time stamp, so that the same records give the same file.
    arguments.output.write_bytes(gzip.compress(content, compresslevel=9, mtime=0))
    print(f'{len(glosses)} records, the first {RECORDS} written')


def lines(path: Path) -> Iterator[str]:
    """Those below the licence, which is indented by two spaces."""
    with path.open(encoding='ascii') as file:
        yield from (line.rstrip() for line in file if not line.startswith('  '))


def definitions(data: Iterable[str]) -> dict[str, str]:
    """Synset -> its gloss without the examples; without those that hold quotations."""
    found = {}
    for line in data:
        fields, gloss = line.split(' | ', 1)
        definition = EXAMPLES.sub('', gloss.strip().rstrip(';')).strip().rstrip(';')
        if '"' not in definition and definition.count('(') == definition.count(')'):
            found[fields.split(' ', 1)[0]] = definition
    return found


def first_senses(index: Iterable[str]) -> dict[str, str]:
    """Lemma -> the synset of its first sense; synsets end the line, the most frequent first."""
    parts = (line.split() for line in index)
    return {fields[0]: fields[-int(fields[2])] for fields in parts}


def frequencies(counts: Iterable[str]) -> dict[str, int]:
    """Noun -> how often its first sense was met in WordNet's tagged texts."""
    found = {}
    for line in counts:
        key, sense, count = line.split()
        lemma, _, place = key.partition('%')
        if place.startswith('1:') and sense == '1':
            found[lemma] = int(count)
    return found


def select(
    definitions: dict[str, str], senses: dict[str, str], frequencies: dict[str, int]
) -> list[tuple[str, str]]:
    """Lemmas with their glosses, the most frequent first.

    A gloss that equals an earlier one up to a word is left out: the records are to be unique, so
    that near-duplicates are those that an experiment plants.
    """
    seen: set[tuple[str, ...]] = set()
    chosen = []
    for lemma in sorted(frequencies, key=lambda lemma: (-frequencies[lemma], lemma)):
        gloss = definitions.get(senses.get(lemma, ''), '')
        words = gloss.split()
        if len(words) not in WORDS or not LEMMA.fullmatch(lemma) or INSULT.search(gloss):
            continue
        but_one = {(*words[:i], '', *words[i + 1 :]) for i in range(len(words))}
        if not but_one & seen:
            seen |= but_one
            chosen.append((lemma, gloss))
    return chosen


def as_jsonl(glosses: Iterable[tuple[str, str]]) -> bytes:
    records = (
        {
            'id': f'wordnet-{lemma}',
            'prompt': f'Q: what is {lemma.replace("_", " ")}? A:',
            'completion': f' {gloss}',
        }
        for lemma, gloss in glosses
    )
    return ''.join(json.dumps(record) + '\n' for record in records).encode()


if __name__ == '__main__':
    main()
