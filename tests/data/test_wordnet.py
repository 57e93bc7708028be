"""The embedded WordNet records, and the script that made them."""

import gzip
import importlib.resources
import re

import build_wordnet

from influence_jax.data import Dataset
from influence_jax.data.sources import jsonl

DATASET = Dataset.wordnet()
EMBEDDED = importlib.resources.files('influence_jax.data') / 'embedded'

DATA = """\
00000001 03 n 01 dog 0 000 | a kind of animal that barks; or growls; "the dog barked"; "a dog"
00000002 03 n 01 hound 0 000 | a kind of animal that hunts; or growls
00000003 03 n 01 cat 0 000 | too short
00000004 03 n 01 elf 0 000 | a creature called "elf" in old tales of the north
00000005 03 n 01 gnome 0 000 | a creature of old tales (who lives underground
00000006 03 n 01 city_hall 0 000 | a house from which a city is governed
00000007 03 n 01 big_dog 0 000 | something else altogether, of seven words here
"""
INDEX = """\
dog n 2 0 2 1 00000001 00000007
hound n 1 0 1 1 00000002
cat n 1 0 1 1 00000003
elf n 1 0 1 1 00000004
gnome n 1 0 1 1 00000005
city_hall n 1 0 1 1 00000006
rare n 1 0 1 1 00000007
"""
COUNTS = """\
city_hall%1:06:00:: 1 8
dog%1:05:00:: 1 5
dog%1:05:01:: 2 50
dog%2:05:01:: 1 70
hound%1:05:00:: 1 4
cat%1:05:00:: 1 9
elf%1:05:00:: 1 9
gnome%1:05:00:: 1 9
"""


def test_the_records():
    assert DATASET.num_examples == 4_000
    assert DATASET.texts[0] == (
        'Q: what is group? A: any number of entities (members) considered as a unit'
    )
    assert 'wordnet-end_point' in DATASET.ids
    assert 'Princeton' in DATASET.provenance
    assert not DATASET.has_near_duplicate.any()


def test_every_record_has_the_form():
    for example_id, prompt, completion in zip(
        DATASET.ids, DATASET.arrays['prompt'], DATASET.arrays['completion'], strict=True
    ):
        lemma = example_id.removeprefix('wordnet-')
        assert re.fullmatch(r"[a-z][a-z_'.-]*", lemma)
        assert prompt == f'Q: what is {lemma.replace("_", " ")}? A:'
        assert completion == ' ' + completion.strip()
        assert 5 <= len(completion.split()) <= 25
        assert '"' not in completion


def test_no_record_is_a_near_duplicate_by_one_word():
    patterns = set()
    for completion in DATASET.arrays['completion']:
        words = completion.split()
        own = {(*words[:i], None, *words[i + 1 :]) for i in range(len(words))}
        assert not own & patterns
        patterns |= own


def test_unpacked_it_is_anyones_jsonl(tmp_path):
    path = tmp_path / 'wordnet.jsonl'
    path.write_bytes(gzip.decompress((EMBEDDED / 'wordnet.jsonl.gz').read_bytes()))
    assert jsonl.load(path).fingerprint == DATASET.fingerprint


def test_the_package_stays_small_and_keeps_the_licences_notice():
    assert len((EMBEDDED / 'wordnet.jsonl.gz').read_bytes()) < 150_000
    readme = (EMBEDDED / 'README.md').read_text(encoding='utf-8')
    assert 'WordNet 3.0 Copyright 2006 by Princeton University.' in readme
    assert 'agrees to preserve same' in readme


def test_how_it_was_made(tmp_path):
    for name, content in (('data.noun', DATA), ('index.noun', INDEX), ('cntlist.rev', COUNTS)):
        (tmp_path / name).write_text('  1 This software and database\n' + content)
    glosses = build_wordnet.select(
        build_wordnet.definitions(build_wordnet.lines(tmp_path / 'data.noun')),
        build_wordnet.first_senses(build_wordnet.lines(tmp_path / 'index.noun')),
        build_wordnet.frequencies(build_wordnet.lines(tmp_path / 'cntlist.rev')),
    )
    assert glosses == [
        ('city_hall', 'a house from which a city is governed'),
        ('dog', 'a kind of animal that barks; or growls'),
    ]
    dataset = jsonl.parse(build_wordnet.as_jsonl(glosses), where='', name='', provenance='')
    assert dataset.ids == ('wordnet-city_hall', 'wordnet-dog')
    assert dataset.texts[0] == 'Q: what is city hall? A: a house from which a city is governed'
