"""Tokenizers: bytes without loss, an end that no text holds, what is saved and loaded."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from influence_jax.data.text import Tokenizer, tokenizer
from influence_jax.data.text.tokenizer import END, train_byte_bpe

CORPUS = ('the cat and the hat', 'the bat and the rat', 'ünïcödé, twice: ünïcödé', '')
TRAINED = train_byte_bpe(CORPUS, 300)
SPECIAL = st.sampled_from([END, '<|unused299|>', ' the', '\n'])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.text(), SPECIAL)).map(''.join))
def test_no_text_is_lost_and_none_holds_the_end(text):
    tokens = TRAINED.encode(text)
    assert TRAINED.decode(tokens) == text
    assert TRAINED.end not in tokens
    assert all(0 <= token < TRAINED.vocab_size for token in tokens)
    assert TRAINED.decode([*tokens, TRAINED.end, TRAINED.end]) == text


@settings(max_examples=50, deadline=None)
@given(st.text(), st.text())
def test_texts_tokenized_apart_read_as_joined(first, second):
    assert TRAINED.decode(TRAINED.encode(first) + TRAINED.encode(second)) == first + second


def test_frequent_words_become_tokens():
    assert len(TRAINED.encode(' the')) == 1
    assert len(TRAINED.encode('ünïcödé')) < len('ünïcödé'.encode()) == 11


@settings(max_examples=50, deadline=None)
@given(st.lists(st.one_of(st.text(), SPECIAL)).map(''.join))
def test_pieces_are_the_text_with_bytes_that_are_none_named(text):
    pieces = [TRAINED.piece(token) for token in TRAINED.encode(text)]
    for token, piece in zip(TRAINED.encode(text), pieces, strict=True):
        alone = TRAINED.decode([token])
        assert piece == alone or ('\ufffd' in alone and '<0x' in piece)
    if text.isascii():
        assert ''.join(pieces) == text


def test_pieces_of_halves_of_characters_and_of_what_is_no_text():
    euro = [TRAINED.piece(token) for token in TRAINED.encode('\u20ac')]
    assert euro == ['<0xE2>', '<0x82>', '<0xAC>']
    assert TRAINED.piece(TRAINED.end) == END
    assert TRAINED.piece(TRAINED.encode(' the')[0]) == ' the'
    assert TRAINED.piece(10**6) == ''


def test_pieces_of_words_have_their_spaces():
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({'\u2581who': 0, 'is': 1, '[END]': 2}, unk_token='[END]')
    )
    words.decoder = tokenizers.decoders.Metaspace()
    of_words = Tokenizer(words, end=2)
    assert [of_words.piece(token) for token in range(3)] == [' who', 'is', '[END]']


def test_tokens_of_all_bytes_are_there_without_a_corpus_of_them():
    smallest = train_byte_bpe(['a'], 257)
    assert smallest.decode(smallest.encode('a\0\U0010ffff')) == 'a\0\U0010ffff'


@pytest.mark.parametrize('vocab_size', [257, 262, 5_000])
def test_the_vocabulary_has_the_size_asked_for(vocab_size):
    trained = train_byte_bpe(CORPUS, vocab_size)
    assert trained.vocab_size == vocab_size
    used = {token for text in CORPUS for token in trained.encode(text)}
    assert max(used) < vocab_size
    assert all(trained.token_text(i) != '' for i in range(vocab_size))


@pytest.mark.parametrize(
    ('texts', 'vocab_size', 'message'),
    [
        (CORPUS, 256, 'vocab_size=256 is too small: .* need 257'),
        (['', ''], 300, 'no text to train'),
    ],
)
def test_bad_training(texts, vocab_size, message):
    with pytest.raises(ValueError, match=message):
        train_byte_bpe(texts, vocab_size)


def test_training_is_the_same_in_another_process():
    texts = [f'{a} and {b} of {a}{b}' for a in 'abcdef' for b in 'uvwxyz']
    code = (
        'import sys, json; from influence_jax.data.text.tokenizer import train_byte_bpe;'
        'print(train_byte_bpe(json.loads(sys.argv[1]), 400).fingerprint)'
    )
    result = subprocess.run(
        [sys.executable, '-c', code, json.dumps(texts)], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == train_byte_bpe(texts, 400).fingerprint


def test_fingerprints_tell_tokenizers_apart():
    assert train_byte_bpe(CORPUS, 300).fingerprint == TRAINED.fingerprint
    assert train_byte_bpe(CORPUS[:1], 300).fingerprint != TRAINED.fingerprint
    assert Tokenizer(TRAINED.backend, 1).fingerprint != TRAINED.fingerprint


def test_token_texts():
    assert TRAINED.token_text(TRAINED.end) == END
    assert TRAINED.token_text(np.int32(TRAINED.encode(' the')[0])) == ' the'
    assert TRAINED.token_text(TRAINED.encode('\U0010ffff')[0]) == '\N{REPLACEMENT CHARACTER}'


def test_what_a_file_asks_for_beside_is_switched_off():
    backend = tokenizers.Tokenizer.from_str(TRAINED.backend.to_str())
    backend.enable_truncation(2)
    backend.enable_padding(length=9)
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single=f'{END} $A', special_tokens=[(END, 0)]
    )
    ours = Tokenizer(backend, 0)
    assert ours.encode('the cat!') == TRAINED.encode('the cat!')
    assert ours.fingerprint == TRAINED.fingerprint
    # The caller's own is left as it was.
    assert backend.truncation is not None


def test_a_tokenizer_that_takes_its_end_for_a_word():
    words = tokenizers.models.WordLevel({'the': 0, 'end': 1, '?': 2}, unk_token='?')
    backend = tokenizers.Tokenizer(words)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    assert Tokenizer(backend, 1).encode('the') == [0]
    with pytest.raises(ValueError, match="the text 'the end' holds the end token 'end' as a word"):
        Tokenizer(backend, 1).encode('the end')
    with pytest.raises(ValueError, match='no token of the id 3 to end a text with'):
        Tokenizer(backend, 3)


def test_saved_ones_come_back(tmp_path):
    folder = tmp_path / 'made' / 'here'
    TRAINED.save(folder)
    train_byte_bpe(CORPUS, 400).save(folder)
    TRAINED.save(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        'tokenizer.json',
        'tokenizer_config.json',
    ]
    for opened in (tokenizer.load(folder), tokenizer.from_pretrained(folder)):
        assert opened.fingerprint == TRAINED.fingerprint
        assert (opened.end, opened.vocab_size) == (TRAINED.end, 300)
        assert opened.encode(END) == TRAINED.encode(END)


def test_others_read_what_is_saved(tmp_path):
    TRAINED.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert theirs.encode('the cat and ünï') == TRAINED.encode('the cat and ünï')
    assert theirs.eos_token == theirs.pad_token == END


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    TRAINED.save(tmp_path)

    def fail(self, target):
        raise OSError('no space left')

    monkeypatch.setattr(Path, 'replace', fail)
    with pytest.raises(OSError, match='no space left'):
        train_byte_bpe(CORPUS, 400).save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert tokenizer.load(tmp_path).fingerprint == TRAINED.fingerprint


@pytest.mark.parametrize('name', ['tokenizer.json', 'tokenizer_config.json'])
def test_missing_files_of_a_saved_one(tmp_path, name):
    TRAINED.save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=f'no {name}; give the folder of a saved'):
        tokenizer.load(tmp_path)


@pytest.mark.parametrize('name', ['tokenizer.json', 'tokenizer_config.json'])
@pytest.mark.parametrize('content', [b'', b'{}', b'[]', b'\xff', b'{"eos_token": "<none>"}'])
def test_damaged_files_of_a_saved_one(tmp_path, name, content):
    TRAINED.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match='no saved tokenizer, or a damaged one') as caught:
        tokenizer.load(tmp_path)
    assert '\n' not in str(caught.value)


def test_transformers_is_imported_only_where_it_is_used():
    code = 'import sys, influence_jax.data.text; print(*sys.modules)'
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True
    )
    heavy = {'transformers', 'huggingface_hub', 'tensorflow_datasets', 'torch'}
    assert not heavy & set(result.stdout.split())
