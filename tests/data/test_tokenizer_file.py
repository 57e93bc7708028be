"""What a tokenizer.json may ask for: hostile ones are refused at once, in a line, and never run."""

import json
import os
import time
from pathlib import Path

import pytest
import tokenizers

from influence_jax.data.text import Tokenizer, tokenizer, tokenizer_file
from influence_jax.data.text.tokenizer import train_byte_bpe

TRAINED = train_byte_bpe(['the cat and the hat'], 300)
FIELDS = json.loads(TRAINED.backend.to_str())


def replace(pattern, content, form='String'):
    return {'type': 'Replace', 'pattern': {form: pattern}, 'content': content}


def sequence(kind, steps):
    return {'type': 'Sequence', kind: steps}


def split(regex):
    return {
        'type': 'Split',
        'pattern': {'Regex': regex},
        'behavior': 'Isolated',
        'invert': False,
    }


def nested(depth):
    step = {'type': 'NFC'}
    for _ in range(depth):
        step = sequence('normalizers', [step])
    return step


def model(**changes):
    return {'model': FIELDS['model'] | changes}


BYTES = {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': False}
HOSTILE = {
    'a pattern of nothing': ({'normalizer': replace('', 'x')}, 'is empty'),
    'a regex of nothing': ({'normalizer': replace('', 'x', 'Regex')}, 'is empty'),
    'a regex that may match nothing': ({'normalizer': replace('z*', 'x', 'Regex')}, 'failed'),
    'a decoder of nothing': ({'decoder': replace('', 'x')}, 'is empty'),
    'text that doubles': (
        {'normalizer': sequence('normalizers', [replace('a', 'aa')] * 40)},
        '64 times',
    ),
    'text that doubles, nested': (
        {
            'normalizer': sequence(
                'normalizers', [sequence('normalizers', [replace('a', 'aa')] * 5)] * 3
            )
        },
        '64 times',
    ),
    'text that doubles in decoding': (
        {'decoder': sequence('decoders', [replace('a', 'aa')] * 40)},
        '64 times',
    ),
    'bytes of bytes': (
        {'pre_tokenizer': sequence('pretokenizers', [BYTES] * 40)},
        '64 times',
    ),
    'a long replacement': ({'normalizer': replace('a', 'b' * 10**6)}, '64 times'),
    'many steps': ({'normalizer': sequence('normalizers', [{'type': 'NFC'}] * 1_000)}, '64 steps'),
    'deep steps': ({'normalizer': nested(200)}, '32 levels'),
    'repeated repetition': ({'pre_tokenizer': split('(a+)+$')}, 'repeats what repeats'),
    'counted repetition': ({'pre_tokenizer': split('(a{1000}){1000}')}, 'repeats what repeats'),
    'no length': ({'pre_tokenizer': {'type': 'FixedLength', 'length': 0}}, 'FixedLength is 0'),
    'an unknown step': ({'normalizer': {'type': 'Exec'}}, "'Exec' is unknown"),
    'no step': ({'normalizer': 3}, 'no object'),
    'a damaged table': (
        {'normalizer': {'type': 'Precompiled', 'precompiled_charsmap': 'AAAA'}},
        'damaged|failed',
    ),
    'a huge padding': (
        {
            'padding': {
                'strategy': {'Fixed': 10**10},
                'direction': 'Right',
                'pad_to_multiple_of': None,
                'pad_id': 0,
                'pad_type_id': 0,
                'pad_token': 'x',
            }
        },
        'padding is 10000000000',
    ),
    'chance': (model(dropout=0.5), r'dropout=0\.5'),
    'a huge id': (model(vocab=FIELDS['model']['vocab'] | {'a': 4 * 10**9}), '4000000000'),
    'a negative id': (model(vocab=FIELDS['model']['vocab'] | {'a': -1}), 'token id is -1'),
    'a long prefix': (model(continuing_subword_prefix='x' * 30), 'failed|damaged'),
    'an unknown model': (model(type='Exec'), "'Exec' is unknown"),
    'no model': ({'model': None}, 'no model'),
    'an empty token': ({'added_tokens': [{'id': 0, 'content': ''}]}, "added token is ''"),
    'a huge added id': ({'added_tokens': [{'id': 2**32 - 1, 'content': 'z'}]}, '4294967295'),
}


@pytest.mark.parametrize(('changes', 'message'), HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize('opener', [tokenizer.load, tokenizer.from_pretrained])
def test_hostile_files_are_refused_in_a_line_and_at_once(tmp_path, opener, changes, message):
    TRAINED.save(tmp_path)
    (tmp_path / 'tokenizer.json').write_text(json.dumps(FIELDS | changes))
    start = time.monotonic()
    with pytest.raises(ValueError, match=message) as refused:
        opener(tmp_path)
    assert time.monotonic() - start < 5
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1_000


FILES = ('tokenizer.json', 'tokenizer_config.json')


@pytest.mark.parametrize('name', [*FILES, 'merges.txt', 'config.json', 'special_tokens_map.json'])
@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir, lambda path: path.symlink_to('/dev/zero')])
def test_what_is_no_regular_file_is_refused_by_name(tmp_path, name, make):
    TRAINED.save(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    make(tmp_path / name)
    for opener in (tokenizer.load, tokenizer.from_pretrained)[name not in FILES :]:
        with pytest.raises(ValueError, match=f'{name} is a '):
            opener(tmp_path)


@pytest.mark.parametrize('name', [*FILES, 'config.json', 'added_tokens.json'])
def test_deep_nesting(tmp_path, name):
    TRAINED.save(tmp_path)
    (tmp_path / name).write_text('[' * 100_000)
    with pytest.raises(ValueError, match='nested'):
        tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    'changes',
    [
        {},
        {'normalizer': sequence('normalizers', [{'type': 'NFD'}, {'type': 'Lowercase'}])},
        {'normalizer': replace(' ', '\N{LOWER ONE EIGHTH BLOCK}')},
        {
            'pre_tokenizer': sequence(
                'pretokenizers',
                [
                    split(
                        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
                        r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
                    ),
                    BYTES,
                ],
            )
        },
        {
            'pre_tokenizer': sequence(
                'pretokenizers',
                [{'type': 'Digits', 'individual_digits': True}, {'type': 'Metaspace',
                 'replacement': '\N{LOWER ONE EIGHTH BLOCK}', 'prepend_scheme': 'first',
                 'split': True}],
            )
        },
    ],
)  # fmt: skip
def test_what_tokenizers_in_use_ask_for_is_allowed(tmp_path, changes):
    TRAINED.save(tmp_path)
    (tmp_path / 'tokenizer.json').write_text(json.dumps(FIELDS | changes))
    assert tokenizer.load(tmp_path).vocab_size == 300


def test_every_model_that_is_known_is_allowed():
    words = {'type': 'WordLevel', 'vocab': {'a': 0, '?': 1}, 'unk_token': '?'}
    pieces = {'type': 'WordPiece', 'vocab': {'a': 0, '?': 1}, 'unk_token': '?',
              'continuing_subword_prefix': '##', 'max_input_chars_per_word': 100}  # fmt: skip
    unigram = {'type': 'Unigram', 'vocab': [['a', -1.0], ['?', -2.0]], 'unk_id': 1}
    legacy = {name: value for name, value in FIELDS['model'].items() if name != 'type'}
    for one in (words, pieces, unigram, legacy, FIELDS['model']):
        tokenizer_file.check(FIELDS | {'model': one, 'added_tokens': []})


def test_the_tokenizer_of_gpt2_passes(tmp_path):
    folder = Path(__file__).parents[2].parent / 'shared' / 'data' / 'gpt2_tokenizer'
    if not folder.is_dir():
        pytest.skip(f'no {folder}')
    tokenizer.from_pretrained(folder).save(tmp_path)
    assert tokenizer.load(tmp_path).vocab_size == 50_257


def test_a_tokenizer_that_fails_on_a_text_says_so():
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({'a': 0, 'end': 1}, '?'))
    with pytest.raises(ValueError, match=r'fails on a text: .*UNK'):
        Tokenizer(backend, 1).encode('b')
