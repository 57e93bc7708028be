"""Results on the disk: what is read is what was written, or nothing."""

import dataclasses
import hashlib
import json
import os
import shutil

import numpy as np
import pytest
import tensorstore as ts
from audits import audit_of
from test_report_sections import everything

from influence_jax import report
from influence_jax.report import Results
from influence_jax.report.results import RESULTS

GROUP = f'{RESULTS}/zarr.json'
ARRAY = f'{RESULTS}/overview.summary.margin'


def full(language):
    """Results that have every field."""
    membership = audit_of(language.num_targets)
    return dataclasses.replace(language, sections=(everything('ours'),), membership=membership)


@pytest.fixture(scope='module')
def stored(tmp_path_factory, language):
    directory = tmp_path_factory.mktemp('stored')
    full(language).save(directory)
    return directory


@pytest.fixture
def copied(stored, tmp_path):
    return shutil.copytree(stored, tmp_path / 'copied')


def changed(directory, change):
    """Changes the attributes as somebody would who knows how to make a checksum."""
    path = directory / GROUP
    group = json.loads(path.read_text())
    attributes = group['attributes']
    change(attributes['record'])
    del attributes['checksum']
    text = json.dumps(attributes, sort_keys=True).encode()
    attributes['checksum'] = hashlib.sha256(text).hexdigest()
    path.write_text(json.dumps(group))
    return directory


def forged(directory, path, change):
    """Changes an array, and its digest too."""
    (file,) = (entry for entry in (directory / RESULTS / path).iterdir() if entry.name[0] == 'c')
    store = ts.open(
        {'driver': 'zarr3', 'kvstore': {'driver': 'file', 'path': f'{file.parent}/'}}
    ).result()
    array = np.array(store.read().result())
    change(array)
    store.write(array).result()

    def digest(record):
        *parents, name = path.split('.')
        for parent in parents:
            record = record[parent]
        record[name]['sha256'] = hashlib.sha256(array.tobytes()).hexdigest()

    return changed(directory, digest)


@pytest.mark.usefixtures('unsaved')
def test_loaded_results_make_the_same_files(stored, language):
    loaded = Results.load(stored)
    assert report.render(loaded) == report.render(full(language))


def test_page_of_images_is_made_again_from_what_is_stored(written):
    for name, data in report.render(Results.load(written.parent)).items():
        assert (written.parent / name).read_bytes() == data


def test_texts_and_numbers_come_back_exactly(stored, language):
    loaded = Results.load(stored)
    assert loaded.text.decoded == language.text.decoded
    assert loaded.facts == language.facts
    assert loaded.reference == language.reference
    np.testing.assert_equal(loaded.comparison.scores, language.comparison.scores)
    for name in ('margin', 'self_influence', 'top_examples', 'quantiles'):
        left, right = (getattr(one.summary, name) for one in (loaded, language))
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


def test_older_reports_lack_what_came_later(copied, language):
    changed(copied, lambda record: record.pop('membership'))
    assert Results.load(copied).membership is None
    changed(copied, lambda record: record.pop('overview'))
    with pytest.raises(ValueError, match='other fields than this version'):
        Results.load(copied)


def by_the_specification(path):
    """Reads an array of one file as zarr 3 specifies it, without the library that wrote it."""
    metadata = json.loads((path / 'zarr.json').read_text())
    assert (metadata['zarr_format'], metadata['node_type']) == (3, 'array')
    shape = metadata['shape']
    assert metadata['chunk_grid']['configuration']['chunk_shape'] == shape
    key = metadata['chunk_key_encoding']
    assert (key['name'], key['configuration']) == ('default', {'separator': '.'})
    assert [codec['name'] for codec in metadata['codecs']] == ['bytes', 'crc32c']
    data = (path / '.'.join(['c', *'0' * len(shape)])).read_bytes()
    dtype = np.dtype(metadata['data_type']).newbyteorder('<')
    return np.frombuffer(data[:-4], dtype).reshape(shape), tuple(metadata['dimension_names'])


def by_tensorstore(path):
    kvstore = {'driver': 'file', 'path': f'{path}/'}
    array = ts.open({'driver': 'zarr3', 'kvstore': kvstore}).result()
    return array.read().result(), array.domain.labels


@pytest.mark.parametrize('read', [by_the_specification, by_tensorstore])
def test_other_readers_find_names_axes_and_values(stored, language, read):
    group = json.loads((stored / GROUP).read_text())
    assert (group['zarr_format'], group['node_type']) == (3, 'group')
    overview, summary = language.overview, language.summary
    for name, expected, axes in (
        ('overview.summary.margin', summary.margin, ('target',)),
        ('overview.summary.top_stands_out', summary.top_stands_out, ('target', None)),
        ('overview.distributions', overview.distributions, ('example', None)),
        ('overview.summary.pairs.examples', summary.pairs.examples, (None,)),
        ('comparison.near_duplicated', language.comparison.near_duplicated, ('target',)),
        ('text.siblings.nearest', language.text.siblings.nearest, ('target',)),
    ):
        values, labels = read(stored / RESULTS / name)
        assert (values.shape, values.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(values, expected)
        for label, axis in zip(labels, axes, strict=True):
            assert label == axis or (axis is None and name.startswith(label.rpartition('.')[0]))


def test_an_axis_has_one_name_and_one_size_everywhere(stored, language):
    sizes = {}
    for path in (stored / RESULTS).glob('*/zarr.json'):
        metadata = json.loads(path.read_text())
        names = metadata['dimension_names']
        assert len(set(names)) == len(names)
        for name, size in zip(names, metadata['shape'], strict=True):
            assert sizes.setdefault(name, size) == size  # as xarray wants it
    assert (sizes['target'], sizes['example']) == (len(language.target_ids),) * 2


@pytest.mark.parametrize(
    'damage',
    [
        lambda path: (path / GROUP).write_text('{'),
        lambda path: (path / GROUP).write_text('[' * 100_000),
        lambda path: (path / GROUP).write_text('{"attributes": []}'),
        lambda path: (path / GROUP).write_text('{"attributes": {"checksum": 1, "format": 1}}'),
        lambda path: (path / GROUP).write_text((path / GROUP).read_text().replace('nats', 'bits')),
        lambda path: (path / ARRAY / 'c.0').write_bytes(b''),
        lambda path: (path / ARRAY / 'c.0').unlink(),
        lambda path: ((path / ARRAY / 'c.0').unlink(), os.mkfifo(path / ARRAY / 'c.0')),
        lambda path: (path / ARRAY / 'zarr.json').unlink(),
        lambda path: shutil.rmtree(path / ARRAY),
        lambda path: changed(path, lambda record: record.pop('title')),
        lambda path: changed(path, lambda record: record.update(more=1)),
        lambda path: changed(path, lambda record: record.update(title=1)),
        lambda path: changed(path, lambda record: record.update(title=None)),
        lambda path: changed(path, lambda record: record.update(facts={'a': 'b'})),
        lambda path: changed(path, lambda record: record.update(target_ids=['a'])),
        lambda path: changed(path, lambda record: record['mean_loss'].update(shape=[10**15])),
        lambda path: changed(path, lambda record: record['mean_loss'].update(shape=[-1])),
        lambda path: changed(path, lambda record: record['mean_loss'].update(dtype='object')),
        lambda path: changed(path, lambda record: record['sections'][0].update(parts=[{'X': {}}])),
    ],
)
def test_what_was_not_written_so_is_refused_in_one_line(copied, damage):
    damage(copied)
    with pytest.raises((ValueError, OSError)) as refused:
        Results.load(copied)
    assert '\n' not in str(refused.value)
    assert RESULTS in str(refused.value)


def test_a_changed_number_is_noticed(copied):
    file = copied / ARRAY / 'c.0'
    data = bytearray(file.read_bytes())
    data[3] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r'margin.*; write the report again'):
        Results.load(copied)


@pytest.mark.parametrize(
    'path',
    [
        'overview.summary.top_examples',
        'overview.summary.strongest_other',
        'overview.summary.pairs.targets',
        'overview.target_examples',
        'overview.lowest_margin',
        'overview.block_targets',
        'shown.examples',
        'text.siblings.nearest',
        'text.view.targets',
    ],
)
@pytest.mark.parametrize('position', [10**6, -2])
def test_positions_of_nothing_are_refused(copied, path, position):
    forged(copied, path, lambda array: array.__setitem__(0, position))
    with pytest.raises(ValueError, match='position outside'):
        Results.load(copied)


def test_other_versions_are_named(copied):
    path = copied / GROUP
    path.write_text(path.read_text().replace('"format": 1', '"format": 7'))
    with pytest.raises(ValueError, match='format 7, but this version reads format 1'):
        Results.load(copied)


def test_a_report_without_results(tmp_path):
    with pytest.raises(FileNotFoundError):
        Results.load(tmp_path)


@pytest.mark.unchecked
def test_arrays_that_are_not_as_annotated_are_not_written(tmp_path, arguments):
    results = Results(**arguments | {'mean_loss': np.arange(12)})
    with pytest.raises(ValueError, match='mean_loss must be'):
        results.save(tmp_path)
