"""Checkpoints by hub name: what is asked of the cache and of the hub, which is not there."""

import shutil
import types

import huggingface_hub
import pytest

from influence_jax import hub
from influence_jax.models.gpt_neo import hugging_face
from tests.models.gpt_neo_cases import SMALL, params

NAME = 'someone/model'
ADVICE = r'pickle.*save_pretrained\(.*safe_serialization=True\)'


class Hub:
    """A cache and a hub with one repository; what is fetched goes from one to the other.

    Attributes:
        there: the repository on the hub.
        here: its cached copy.
        asked: what was asked of the hub: 'files', or patterns to fetch.
    """

    def __init__(self, folder):
        self.there, self.here, self.asked = folder / 'there', folder / 'here', []
        self.there.mkdir()

    def download(self, name, *, allow_patterns, local_files_only=False, etag_timeout=None):
        assert name == NAME
        if local_files_only:
            if not self.here.is_dir():
                raise huggingface_hub.errors.LocalEntryNotFoundError('not cached')
            return str(self.here)
        assert etag_timeout is not None
        self.asked.append(tuple(allow_patterns))
        self.here.mkdir(exist_ok=True)
        for pattern in allow_patterns:
            for file in self.there.glob(pattern):
                shutil.copy(file, self.here)
        return str(self.here)

    def model_info(self, name, *, timeout):
        assert name == NAME
        self.asked.append('files')
        names = [file.name for file in self.there.iterdir()]
        return types.SimpleNamespace(
            siblings=[types.SimpleNamespace(rfilename=file) for file in names]
        )


@pytest.fixture
def repository(tmp_path, monkeypatch):
    made = Hub(tmp_path)
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', made.download)
    monkeypatch.setattr(huggingface_hub, 'HfApi', lambda: made)
    return made


@pytest.fixture
def unreachable(repository, monkeypatch):
    def fail(name, *, timeout):
        raise ConnectionError('no connection\nsecond line')

    monkeypatch.setattr(repository, 'model_info', fail)
    return repository


def _save(folder, **how):
    hugging_face.save(folder, SMALL, params(), **how)


def test_a_hub_name_is_fetched_and_then_cached(repository):
    _save(repository.there)
    (repository.there / 'code.py').touch()
    (repository.there / 'pytorch_model.bin').touch()
    assert hugging_face.load(NAME)[0] == SMALL
    assert {file.name for file in repository.here.iterdir()} == {'config.json', 'model.safetensors'}
    assert repository.asked[0] == 'files'
    del repository.asked[:]
    assert hugging_face.load(NAME)[0] == SMALL
    assert hugging_face.load_config(NAME) == SMALL
    assert repository.asked == []


def test_for_the_shape_alone_no_weights_are_fetched(repository):
    _save(repository.there)
    assert hugging_face.load_config(NAME) == SMALL
    assert repository.asked == ['files', ('config.json',)]


@pytest.mark.parametrize('kept', ['config.json', 'model-0000[1-3]*'])
def test_a_cache_with_a_part_is_completed(repository, kept):
    """Such as the configuration that was planned with, or a download that was cut off."""
    _save(repository.there, max_shard_bytes=4000)
    repository.here.mkdir()
    for file in (*repository.there.glob(kept), repository.there / 'model.safetensors.index.json'):
        shutil.copy(file, repository.here)
    assert hugging_face.load(NAME)[0] == SMALL
    assert len(repository.asked) == 2


def test_pickles_on_the_hub_are_refused_before_they_are_fetched(repository):
    for file in ('config.json', 'pytorch_model.bin'):
        (repository.there / file).touch()
    with pytest.raises(ValueError, match=f'^{NAME}: the weights are a {ADVICE}'):
        hugging_face.load(NAME)
    assert repository.asked == ['files']


def test_a_repository_without_weights(repository):
    (repository.there / 'config.json').touch()
    with pytest.raises(FileNotFoundError, match=rf'^{NAME}: neither model\.safetensors nor'):
        hugging_face.load(NAME)


def test_what_is_cached_needs_no_network(unreachable):
    _save(unreachable.here)
    assert hugging_face.load(NAME)[0] == SMALL


@pytest.mark.parametrize('read', [hugging_face.load, hugging_face.load_config])
def test_a_hub_name_without_network_is_one_line(unreachable, read):
    with pytest.raises(hub.NotFetched, match=rf"'{NAME}': .*no connection\); check") as error:
        read(NAME)
    assert '\n' not in str(error.value)
    assert unreachable.asked == []


@pytest.mark.parametrize('name', ['./nowhere', '/nowhere/at/all', '~/nowhere', 'a/b/c', 'a/'])
def test_a_path_is_not_looked_for_on_the_hub(repository, name):
    with pytest.raises(FileNotFoundError, match='no such folder'):
        hugging_face.load(name)
    assert repository.asked == []
