"""Tokenizers of others, by folder or hub name: offline, without their code, in one clear line."""

import json
import shutil
import socket
import time
import types
from pathlib import Path

import huggingface_hub
import pytest

from influence_jax import hub
from influence_jax.data.text import tokenizer
from influence_jax.data.text.tokenizer import END, train_byte_bpe

TRAINED = train_byte_bpe(['the cat and the hat'], 300)


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    def refuse(*arguments, **options):
        raise socket.gaierror(-2, 'Name or service not known')

    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))


def test_gpt2_opens_offline():
    folder = Path(__file__).parents[2].parent / 'shared' / 'data' / 'gpt2_tokenizer'
    if not folder.is_dir():
        pytest.skip(f'no {folder}')
    gpt2 = tokenizer.from_pretrained(folder)
    assert (gpt2.vocab_size, gpt2.end, gpt2.token_text(50_256)) == (50_257, 50_256, END)
    assert gpt2.encode('Hello world') == [15_496, 995]
    text = '  A b , c.\né <|endoftext|>'
    assert gpt2.decode(gpt2.encode(text)) == text
    assert gpt2.end not in gpt2.encode(text)


def config(folder, **changes):
    path = folder / 'tokenizer_config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_tokenizer_without_a_padding_token(tmp_path):
    TRAINED.save(tmp_path)
    config(tmp_path, pad_token=None)
    assert tokenizer.from_pretrained(tmp_path).fingerprint == TRAINED.fingerprint


def test_a_tokenizer_without_an_end(tmp_path):
    TRAINED.save(tmp_path)
    config(tmp_path, eos_token=None)
    with pytest.raises(ValueError, match='has no end of text; name one as "eos_token"'):
        tokenizer.from_pretrained(tmp_path)


def test_code_that_comes_with_a_tokenizer_is_not_run(tmp_path):
    TRAINED.save(tmp_path)
    trap = tmp_path / 'trap_of_a_tokenizer.py'
    trap.write_text(f'open({str(tmp_path / "ran")!r}, "w")\nclass Trap: pass\n')
    theirs = [None, 'trap_of_a_tokenizer.Trap']
    config(tmp_path, tokenizer_class='Trap', auto_map={'AutoTokenizer': theirs})
    try:
        opened = tokenizer.from_pretrained(tmp_path)
    except ValueError as error:
        assert '\n' not in str(error)
    else:
        assert opened.fingerprint == TRAINED.fingerprint
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('content', ['', '{}', '[', '{"model": 3}'])
def test_damaged_files_of_others(tmp_path, content):
    (tmp_path / 'tokenizer.json').write_text(content)
    with pytest.raises(ValueError, match='its files are incomplete or damaged') as caught:
        tokenizer.from_pretrained(tmp_path)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('name', ['/no/such/folder', './none', '~/none', 'a/b/c', 'a b', ''])
def test_folders_that_are_not_there(name):
    with pytest.raises(FileNotFoundError, match='no such folder; give a folder'):
        tokenizer.from_pretrained(name)


def test_a_folder_without_a_tokenizer(tmp_path):
    (tmp_path / 'config.json').write_text('{"model_type": "gpt_neo"}')
    with pytest.raises(FileNotFoundError, match=r'no tokenizer is there; it needs tokenizer\.json'):
        tokenizer.from_pretrained(tmp_path)


def test_a_vocabulary_alone(tmp_path):
    (tmp_path / 'vocab.json').write_text('{"a": 0}')
    with pytest.raises(ValueError, match=r'tokenizer .*: ') as caught:
        tokenizer.from_pretrained(tmp_path)
    assert '\n' not in str(caught.value)


def test_a_tokenizer_in_python(tmp_path):
    (tmp_path / 'vocab.json').write_text('{"<unk>": 0, "a</w>": 1}')
    (tmp_path / 'merges.txt').write_text('#version: 0.2\n')
    (tmp_path / 'tokenizer_config.json').write_text('{"tokenizer_class": "CTRLTokenizer"}')
    with pytest.raises(ValueError, match=r'is written in Python \(CTRLTokenizer\), but a fast'):
        tokenizer.from_pretrained(tmp_path)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(FileNotFoundError, match='no such folder'):
        tokenizer.from_pretrained(tmp_path / 'file')


def test_a_hub_name_without_a_network():
    start = time.monotonic()
    with pytest.raises(
        OSError, match=r"'some/model': neither a folder here, nor in .*Name or se"
    ) as caught:
        tokenizer.from_pretrained('some/model')
    assert time.monotonic() - start < 10
    assert '\n' not in str(caught.value)


def test_a_network_that_never_answers(monkeypatch):
    with socket.create_server(('127.0.0.1', 0)) as silent:
        address = [(socket.AF_INET, socket.SOCK_STREAM, 6, '', silent.getsockname())]
        monkeypatch.setattr(socket, 'getaddrinfo', lambda *arguments, **options: address)
        monkeypatch.setattr(hub, '_SECONDS', 0.2)
        start = time.monotonic()
        with pytest.raises(OSError, match='timed out'):
            tokenizer.from_pretrained('some/model')
    assert time.monotonic() - start < 10


@pytest.fixture
def cached(tmp_path):
    """The folder of 'some/model' in the cache, with its configuration alone."""
    repository = tmp_path / 'hub' / 'models--some--model'
    commit = '0123456789abcdef0123456789abcdef01234567'
    (repository / 'refs').mkdir(parents=True)
    (repository / 'refs' / 'main').write_text(commit)
    folder = repository / 'snapshots' / commit
    folder.mkdir(parents=True)
    (folder / 'config.json').write_text('{"model_type": "gpt_neo"}')
    return folder


def test_a_hub_name_in_the_cache(cached):
    TRAINED.save(cached)
    assert tokenizer.from_pretrained('some/model').fingerprint == TRAINED.fingerprint


def test_a_cache_without_the_tokenizer(cached):
    with pytest.raises(OSError, match='nor to be had from the hub'):
        tokenizer.from_pretrained('some/model')


def test_what_the_hub_has_is_downloaded(tmp_path, monkeypatch):
    TRAINED.save(tmp_path / 'there')
    asked = []

    def download(name, *, local_files_only=False, allow_patterns, etag_timeout=None):
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError('not cached')
        asked.append((name, allow_patterns, etag_timeout))
        return shutil.copytree(tmp_path / 'there', tmp_path / 'here')

    monkeypatch.setattr(huggingface_hub, 'snapshot_download', download)
    listing = types.SimpleNamespace(siblings=[])
    monkeypatch.setattr(huggingface_hub.HfApi, 'model_info', lambda *asked, timeout: listing)
    assert tokenizer.from_pretrained('some/model').fingerprint == TRAINED.fingerprint
    ((name, patterns, timeout),) = asked
    assert name == 'some/model'
    assert timeout is not None
    assert not any(pattern.endswith(('.bin', '.py', '.safetensors')) for pattern in patterns)
