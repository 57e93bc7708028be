"""NQ-open as TFDS prepares it: written by TFDS's own builder, read back without network."""

import json
import os
import shutil
import socket
import sys

import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.datasets.natural_questions_open import (
    natural_questions_open_dataset_builder as theirs,
)

from influence_jax.data.sources import nq_open, tfds_records

NAME = 'natural_questions_open'
RECORDS = [
    {'question': f'where is numéro {i // 2}', 'answer': [f'at ünit {i}', 'elsewhere'][: 1 + i % 2]}
    for i in range(60)
]


def prepare(data_dir):
    """Runs TFDS's builder on our records; only its download is replaced."""
    with tfds.core.registered.skip_registration():

        class Builder(theirs.Builder):
            name = NAME
            pkg_dir_path = data_dir

            def _split_generators(self, dl_manager):
                return {
                    'train': self._generate_examples(RECORDS),
                    'validation': self._generate_examples(RECORDS[:3]),
                }

            def _generate_examples(self, records):
                yield from enumerate(records)

    Builder(data_dir=data_dir, file_format='array_record').download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp('tfds')
    prepare(data_dir)
    return data_dir


@pytest.fixture
def copy(prepared, tmp_path):
    """A prepared folder to be damaged: the version's own."""
    return shutil.copytree(prepared / NAME / '1.0.0', tmp_path / NAME / '1.0.0')


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError('the network was tried')

    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    monkeypatch.setattr(socket.socket, 'connect', refuse)


def shard(folder):
    return next(folder.glob(f'{NAME}-train.array_record-*'))


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_the_fixture_is_shuffled_as_tfds_does(prepared):
    source = tfds.builder_from_directory(prepared / NAME / '1.0.0').as_data_source('train')
    questions = [source[i]['question'].decode() for i in range(len(RECORDS))]
    assert questions != [record['question'] for record in RECORDS]


def test_the_records_equal_those_of_the_datasets_own_file(prepared, tmp_path, capfd):
    path = tmp_path / 'NQ-open.train.jsonl'
    path.write_text(''.join(json.dumps(record) + '\n' for record in RECORDS))
    from_file, dataset = nq_open.load(path), nq_open.load(prepared)
    assert (dataset.ids, dataset.texts) == (from_file.ids, from_file.texts)
    assert dataset.fingerprint == from_file.fingerprint
    assert dataset.num_examples == 60
    assert 'tensorflow' not in sys.modules
    assert ''.join(capfd.readouterr()) == ''


def test_the_versions_folder_itself_will_do(prepared):
    assert nq_open.load(prepared / NAME / '1.0.0').num_examples == 60


def test_the_newest_version_is_read(copy, tmp_path):
    damaged = shutil.copytree(copy, tmp_path / NAME / '1.0.10')
    shutil.copytree(copy, tmp_path / NAME / '1.0.9')
    shard(damaged).unlink()
    with pytest.raises(FileNotFoundError, match=r'1\.0\.10: no training split'):
        nq_open.load(tmp_path)


def test_tfds_default_folder(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'tensorflow_datasets').symlink_to(prepared)
    assert nq_open.load().num_examples == 60


def test_another_file_format_says_how_to_prepare(copy):
    path = shard(copy)
    path.rename(path.with_name(path.name.replace('array_record', 'tfrecord')))
    message = f'tfds build {NAME} --file_format=array_record'
    with pytest.raises(FileNotFoundError, match=message):
        nq_open.load(copy)


@pytest.mark.parametrize('keep', [0, 1_000, 65_536])
def test_truncated_shards(copy, keep):
    path = shard(copy)
    assert path.stat().st_size > keep
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match='damaged or incomplete') as caught:
        nq_open.load(copy)
    assert '\n' not in str(caught.value)


def test_flipped_bits(copy):
    content = bytearray(shard(copy).read_bytes())
    at = content.index(b'where is')
    content[at] ^= 0xFF
    shard(copy).write_bytes(content)
    with pytest.raises(ValueError, match='damaged or incomplete'):
        nq_open.load(copy)


@pytest.mark.parametrize('name', ['features.json', 'dataset_info.json'])
@pytest.mark.parametrize('content', ['', '{}', '[]', '{"featuresDict": []}'])
def test_damaged_descriptions(copy, name, content):
    (copy / name).write_text(content)
    with pytest.raises(ValueError, match='missing or damaged'):
        nq_open.load(copy)


def test_more_records_promised_than_stored(copy):
    def change(info):
        train = next(split for split in info['splits'] if split['name'] == 'train')
        train['shardLengths'] = [str(len(RECORDS) + 1)]

    edit(copy / 'dataset_info.json', change)
    with pytest.raises(ValueError, match='damaged or incomplete'):
        nq_open.load(copy)


def test_another_dataset(copy):
    edit(copy / 'dataset_info.json', lambda info: info.update(name='trivia_qa'))
    with pytest.raises(ValueError, match="holds the dataset 'trivia_qa'"):
        nq_open.load(copy)


def test_other_features(copy):
    edit(copy / 'features.json', lambda content: content['featuresDict']['features'].pop('answer'))
    with pytest.raises(ValueError, match=rf"features \['question'\], not TFDS {NAME}"):
        nq_open.load(copy)


@pytest.mark.parametrize('where', ['question', 'answer', 'one answer', 'record'])
def test_feature_classes_of_others_are_never_imported(copy, tmp_path, monkeypatch, where):
    (tmp_path / 'trap_for_tfds_text.py').write_text('raise SystemExit')
    monkeypatch.syspath_prepend(tmp_path)

    def change(content):
        fields = content['featuresDict']['features']
        places = {
            'question': fields['question'],
            'answer': fields['answer'],
            'one answer': fields['answer']['sequence']['feature'],
            'record': content,
        }
        places[where]['pythonClassName'] = 'trap_for_tfds_text.Text'

    edit(copy / 'features.json', change)
    with pytest.raises(ValueError, match=f'not TFDS {NAME}'):
        nq_open.load(copy)
    assert 'trap_for_tfds_text' not in sys.modules


@pytest.mark.parametrize(
    'record',
    [
        {'question': None, 'answer': []},
        {'question': b'who', 'answer': []},
        {'question': b' ', 'answer': [b'me']},
        {'question': b'who', 'answer': [b'\n']},
    ],
)
def test_records_without_content(prepared, monkeypatch, record):
    records = [{'question': b'who', 'answer': [b'me']}, record]
    monkeypatch.setattr(tfds_records, 'read', lambda *arguments: records)
    with pytest.raises(ValueError, match=r'damaged .*record 1 has no question or no answer'):
        nq_open.load(prepared)


def test_a_missing_reader_is_not_taken_for_damage(prepared, monkeypatch):
    monkeypatch.setitem(sys.modules, 'array_record.python.array_record_data_source', None)
    with pytest.raises(ValueError, match='pip install array_record'):
        nq_open.load(prepared)


@pytest.mark.parametrize('form', ['type', 'python_class_name', 'pythonClassName'])
@pytest.mark.parametrize('where', ['record', 'question', 'answer'])
@pytest.mark.parametrize('beside', [False, True])
def test_modules_of_the_working_directory_are_never_imported(
    copy, tmp_path, monkeypatch, form, where, beside
):
    """In the old form of features.json, in the new, or in both at once."""
    working = tmp_path / 'working'
    working.mkdir()
    module = f'trap_nq_{form.lower()}_{where}_{beside}'
    (working / f'{module}.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")')
    monkeypatch.chdir(working)
    monkeypatch.setattr(sys, 'path', ['', *sys.path])

    def change(content):
        named = content if where == 'record' else content['featuresDict']['features'][where]
        if not beside:
            del named['pythonClassName']
        named[form] = f'{module}.Trap'
        named['content'] = '{}'

    edit(copy / 'features.json', change)
    with pytest.raises(ValueError, match=r'features'):
        nq_open.load(copy)
    assert module not in sys.modules
    assert not (tmp_path / 'ran').exists()


def test_features_are_never_made_of_what_a_folder_says(prepared, monkeypatch):
    connector = tfds.features.FeatureConnector
    for name in ('from_json', 'from_config', 'cls_from_name'):
        monkeypatch.setattr(connector, name, lambda *arguments, **options: pytest.fail('followed'))
    assert nq_open.load(prepared).num_examples == 60


@pytest.mark.parametrize('name', ['features.json', 'dataset_info.json', 'shard'])
@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir], ids=['a pipe', 'a directory'])
def test_what_is_no_regular_file_is_refused(copy, name, make):
    path = shard(copy) if name == 'shard' else copy / name
    path.unlink()
    make(path)
    with pytest.raises(
        (ValueError, FileNotFoundError), match=f'{path.name}|no training split|nothing'
    ):
        nq_open.load(copy)


@pytest.mark.parametrize('count', ['9' * 30, '-1', 10**9])
def test_more_records_than_the_dataset_has(copy, count):
    def change(info):
        train = next(split for split in info['splits'] if split['name'] == 'train')
        train['shardLengths'] = [count]

    edit(copy / 'dataset_info.json', change)
    with pytest.raises(ValueError, match='make sense'):
        nq_open.load(copy)


def test_deep_nesting_of_a_description(copy):
    (copy / 'features.json').write_text('[' * 100_000)
    with pytest.raises(ValueError, match='nested'):
        nq_open.load(copy)
