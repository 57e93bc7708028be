"""Results on the disk: what is read is what was written, or nothing."""

import dataclasses
import hashlib
import json
import os
import shutil

import numpy as np
import pytest
import tensorstore as ts
from test_report_sections import everything

from influence_jax import report
from influence_jax.report import Results
from influence_jax.report.results import RESULTS

GROUP = f'{RESULTS}/zarr.json'
ARRAY = f'{RESULTS}/overview.summary.margin'


@pytest.fixture(scope='module')
def stored(tmp_path_factory, language):
    """A directory with results that have every field."""
    directory = tmp_path_factory.mktemp('stored')
    dataclasses.replace(language, sections=(everything('ours'),)).save(directory)
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
    again = dataclasses.replace(language, sections=(everything('ours'),))
    assert report.render(loaded) == report.render(again)


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


def test_any_reader_of_zarr_finds_named_axes(stored, language):
    group = json.loads((stored / GROUP).read_text())
    assert (group['zarr_format'], group['node_type']) == (3, 'group')
    kvstore = {'driver': 'file', 'path': f'{stored / ARRAY}/'}
    array = ts.open({'driver': 'zarr3', 'kvstore': kvstore}).result()
    np.testing.assert_array_equal(array.read().result(), language.summary.margin)
    assert array.domain.labels == ('target',)
    sizes = {}
    for path in (stored / RESULTS).glob('*/zarr.json'):
        metadata = json.loads(path.read_text())
        names = metadata['dimension_names']
        assert len(set(names)) == len(names)
        for name, size in zip(names, metadata['shape'], strict=True):
            assert sizes.setdefault(name, size) == size  # one axis, one size, as xarray wants it
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
