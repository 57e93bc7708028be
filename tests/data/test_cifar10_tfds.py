"""CIFAR-10 as TFDS prepares it: written by TFDS's own builder, read back without network."""

import io
import json
import os
import shutil
import socket
import struct
import sys
import zlib

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from influence_jax.data.sources import cifar10, tfds_records

EXAMPLES = 60
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (EXAMPLES, 32, 32, 3), np.uint8)
LABELS = RNG.integers(0, 10, EXAMPLES)


def prepare(data_dir):
    """Runs TFDS's cifar10 builder on our images; only its download is replaced."""
    with tfds.core.registered.skip_registration():

        class Cifar10(tfds.image_classification.Cifar10):
            pkg_dir_path = data_dir

            def _split_generators(self, dl_manager):
                self.info.features['label'].names = list(cifar10.CLASS_NAMES)
                return {'train': self._generate_examples(), 'test': self._generate_examples()}

            def _generate_examples(self):
                for i in range(EXAMPLES):
                    # As an array the image would be encoded by TensorFlow.
                    image = PIL.Image.fromarray(IMAGES[i])
                    yield i, {'id': f'train_{i:05d}', 'image': image, 'label': int(LABELS[i])}

    Cifar10(data_dir=data_dir, file_format='array_record').download_and_prepare(
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
    return shutil.copytree(prepared / 'cifar10' / '3.0.2', tmp_path / 'cifar10' / '3.0.2')


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError('the network was tried')

    monkeypatch.setattr(socket, 'getaddrinfo', refuse)
    monkeypatch.setattr(socket.socket, 'connect', refuse)


def shard(folder):
    return next(folder.glob('cifar10-train.array_record-*'))


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_the_fixture_is_shuffled_as_tfds_does(prepared):
    source = tfds.builder_from_directory(prepared / 'cifar10' / '3.0.2').as_data_source('train')
    ids = [source[i]['id'] for i in range(EXAMPLES)]
    assert ids != sorted(ids)


def test_records_come_back_in_the_datasets_own_order(prepared, capfd):
    dataset = cifar10.load(prepared)
    np.testing.assert_array_equal(dataset.arrays['image'], IMAGES)
    np.testing.assert_array_equal(dataset.arrays['label'], LABELS)
    assert dataset.ids[0] == 'cifar10-train-00000'
    assert dataset.ids[-1] == 'cifar10-train-00059'
    assert dataset.class_names == cifar10.CLASS_NAMES
    assert 'tensorflow' not in sys.modules
    assert ''.join(capfd.readouterr()) == ''


def test_the_versions_folder_itself_will_do(prepared):
    assert cifar10.load(prepared / 'cifar10' / '3.0.2').num_examples == EXAMPLES


def test_the_newest_version_is_read(copy, tmp_path):
    damaged = shutil.copytree(copy, tmp_path / 'cifar10' / '3.0.10')
    shard(damaged).unlink()
    with pytest.raises(FileNotFoundError, match=r'3\.0\.10: no training split'):
        cifar10.load(tmp_path)


def test_tfds_default_folder(prepared, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'tensorflow_datasets').symlink_to(prepared)
    assert cifar10.load().num_examples == EXAMPLES


def test_another_file_format_says_how_to_prepare(copy):
    path = shard(copy)
    path.rename(path.with_name(path.name.replace('array_record', 'tfrecord')))
    with pytest.raises(FileNotFoundError, match='tfds build cifar10 --file_format=array_record'):
        cifar10.load(copy)


@pytest.mark.parametrize('keep', [0, 10_000, 65_536, 100_000])
def test_truncated_shards(copy, keep):
    path = shard(copy)
    assert path.stat().st_size > keep
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match='damaged or incomplete') as caught:
        cifar10.load(copy)
    assert '\n' not in str(caught.value)


def test_flipped_bits(copy):
    content = bytearray(shard(copy).read_bytes())
    content[40_000] ^= 0xFF
    shard(copy).write_bytes(content)
    with pytest.raises(ValueError, match='damaged or incomplete'):
        cifar10.load(copy)


@pytest.mark.parametrize('name', ['features.json', 'dataset_info.json'])
@pytest.mark.parametrize('content', ['', '{}', '[]', '{"featuresDict": []}'])
def test_damaged_descriptions(copy, name, content):
    (copy / name).write_text(content)
    with pytest.raises(ValueError, match='missing or damaged'):
        cifar10.load(copy)


def test_more_records_promised_than_stored(copy):
    def change(info):
        train = next(split for split in info['splits'] if split['name'] == 'train')
        train['shardLengths'] = [str(EXAMPLES + 1)]

    edit(copy / 'dataset_info.json', change)
    with pytest.raises(ValueError, match='damaged or incomplete'):
        cifar10.load(copy)


def test_another_dataset(copy):
    edit(copy / 'dataset_info.json', lambda info: info.update(name='cifar100'))
    with pytest.raises(ValueError, match="holds the dataset 'cifar100'"):
        cifar10.load(copy)


def test_feature_classes_of_others_are_never_imported(copy, tmp_path, monkeypatch):
    (tmp_path / 'trap_for_tfds.py').write_text('raise SystemExit')
    monkeypatch.syspath_prepend(tmp_path)

    def change(content):
        label = content['featuresDict']['features']['label']
        label['pythonClassName'] = 'trap_for_tfds.Label'

    edit(copy / 'features.json', change)
    with pytest.raises(ValueError, match='not TFDS cifar10'):
        cifar10.load(copy)
    assert 'trap_for_tfds' not in sys.modules


def test_a_missing_reader_is_not_taken_for_damage(prepared, monkeypatch):
    monkeypatch.setitem(sys.modules, 'array_record.python.array_record_data_source', None)
    with pytest.raises(ValueError, match='pip install array_record'):
        cifar10.load(prepared)


@pytest.mark.parametrize('size', [(32, 31), (30_000, 30_000)])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_images_of_other_sizes_are_not_decoded(prepared, monkeypatch, size, mode):
    file = io.BytesIO()
    PIL.Image.new(mode, size if size[0] < 100 else (1, 1)).save(file, 'PNG')
    png = bytearray(file.getvalue())
    png[16:24] = struct.pack('>II', *size)
    png[29:33] = struct.pack('>I', zlib.crc32(png[12:29]))
    record = {'id': b'train_00000', 'label': 1, 'image': bytes(png)}
    monkeypatch.setattr(tfds_records, 'read', lambda *arguments: [record])
    with pytest.raises(ValueError, match='damaged or incomplete'):
        cifar10.load(prepared)


@pytest.mark.parametrize('form', ['type', 'python_class_name', 'pythonClassName'])
@pytest.mark.parametrize('where', ['record', 'label', 'image'])
@pytest.mark.parametrize('beside', [False, True])
def test_modules_of_the_working_directory_are_never_imported(
    copy, tmp_path, monkeypatch, form, where, beside
):
    """In the old form of features.json, in the new, or in both at once."""
    working = tmp_path / 'working'
    working.mkdir()
    module = f'trap_cifar_{form.lower()}_{where}_{beside}'
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
        cifar10.load(copy)
    assert module not in sys.modules
    assert not (tmp_path / 'ran').exists()


def test_features_are_never_made_of_what_a_folder_says(prepared, monkeypatch):
    connector = tfds.features.FeatureConnector
    for name in ('from_json', 'from_config', 'cls_from_name'):
        monkeypatch.setattr(connector, name, lambda *arguments, **options: pytest.fail('followed'))
    assert cifar10.load(prepared).num_examples == EXAMPLES


@pytest.mark.parametrize('name', ['features.json', 'dataset_info.json', 'shard'])
@pytest.mark.parametrize('make', [os.mkfifo, os.mkdir], ids=['a pipe', 'a directory'])
def test_what_is_no_regular_file_is_refused(copy, name, make):
    path = shard(copy) if name == 'shard' else copy / name
    path.unlink()
    make(path)
    with pytest.raises(
        (ValueError, FileNotFoundError), match=f'{path.name}|no training split|nothing'
    ):
        cifar10.load(copy)


@pytest.mark.parametrize('count', ['9' * 30, '-1', 10**9])
def test_more_records_than_the_dataset_has(copy, count):
    def change(info):
        train = next(split for split in info['splits'] if split['name'] == 'train')
        train['shardLengths'] = [count]

    edit(copy / 'dataset_info.json', change)
    with pytest.raises(ValueError, match='make sense'):
        cifar10.load(copy)


def test_deep_nesting_of_a_description(copy):
    (copy / 'features.json').write_text('[' * 100_000)
    with pytest.raises(ValueError, match='nested'):
        cifar10.load(copy)
