"""A run that grows: what is kept, what is refused, and kills between its steps."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from influence_jax import store
from influence_jax.store import arrays, layout

OLD_RUN = Path(__file__).with_name('run_0_1_0.zip')


@pytest.fixture
def more_masks(masks):
    """As many as asked for, of which the first are those of the small run."""
    more = np.random.default_rng(7).random((40, masks.shape[1])) < 0.5
    more[: len(masks)] = masks
    return lambda members: more[:members]


@pytest.fixture
def extend(changed_manifest, more_masks):
    """Opens a run for writing, with so many members."""

    def open_with(directory, members):
        return store.create_or_resume(
            directory, changed_manifest(members=members), more_masks(members)
        )

    return open_with


def _rows(run, members):
    """What is recorded of added members."""
    shape = len(members), len(run.target_ids)
    return {name: np.full(shape, k, np.float32) for k, name in enumerate(run.measurements)}


def _snapshot(directory):
    return {
        path: path.read_bytes()
        for path in sorted(directory.rglob('*'))
        if path.is_file() and path.name != 'lock'
    }


def test_what_a_kill_left_of_longer_files_is_in_none_that_is_written(directory, extend, more_masks):
    """Of a growth to more members, say: its files were written, and not yet renamed."""
    for array in (directory / 'masks.zarr', *directory.glob('*/*.zarr'), directory / 'status.zarr'):
        ends = '.0' if array.name != 'status.zarr' else ''
        for name in ('zarr.json', *(f'c.{row}{ends}' for row in range(20))):
            (array / f'{name}.__lock').write_bytes(b'x' * 100_000)
    with extend(directory, 20) as run:
        run.write([8, 19], _rows(run, [8, 19]))
    run = store.open_run(directory)
    np.testing.assert_array_equal(run.masks, more_masks(20))
    assert run.complete.tolist() == [*range(9), 19]
    for k, name in enumerate(run.manifest.measurements):
        np.testing.assert_array_equal(run.measurement(name)[[8, 19]], np.full((2, 7), k))


def test_a_run_grows_and_keeps_its_results(directory, extend, more_masks, values):
    before = _snapshot(directory)
    with extend(directory, 20) as run:
        assert run.manifest.members == 20
        assert run.manifest.command == 'a command'
        assert run.complete.tolist() == list(range(8))
        assert run.missing.tolist() == list(range(8, 20))
        run.write([8, 19], _rows(run, [8, 19]))
    rows = {path: content for path, content in before.items() if path.suffix != '.json'}
    masks = {path for path in rows if path.parent.name == 'masks.zarr'}
    assert all(path.read_bytes() == rows[path] for path in rows.keys() - masks)
    run = store.open_run(directory)
    np.testing.assert_array_equal(run.masks, more_masks(20))
    assert run.complete.tolist() == [*range(9), 19]
    for k, (name, expected) in enumerate(values.items()):
        found = run.measurement(name)
        assert found.shape == (20, 7)
        np.testing.assert_array_equal(found[:8], expected[:8])
        np.testing.assert_array_equal(found[[8, 19]], np.full((2, 7), k))
        assert np.isnan(found[9:19]).all()


@pytest.mark.parametrize('rows_per_file', [1, 5, 100])
@pytest.mark.parametrize('sizes', [(12, 13, 33), (12, 15, 20, 40), (12, 40)])
def test_masks_of_any_files_grow_again_and_again(
    tmp_path, extend, more_masks, monkeypatch, rows_per_file, sizes
):
    """Also where files hold fewer rows than those of a run that is made today."""
    monkeypatch.setattr(layout, '_BYTES_PER_MASKS_FILE', rows_per_file * more_masks(1).shape[1])
    extend(tmp_path, sizes[0]).close()
    monkeypatch.undo()
    for members in sizes[1:]:
        with extend(tmp_path, members) as run:
            run.write([members - 1], _rows(run, [members - 1]))
        run = store.open_run(tmp_path)
        np.testing.assert_array_equal(run.masks, more_masks(members))
        assert run.complete.tolist() == [size - 1 for size in sizes[1:] if size <= members]


def test_what_is_kept_with_a_run_outlives_its_growth(directory, extend):
    with extend(directory, 12) as run:
        run.note('vmapped', 4)
        run.write_texts('written', ['a'] * 7)
        run.write_shown(store.Shown(names=run.example_ids))
    extend(directory, 20).close()
    run = store.open_run(directory)
    assert run.notes == {'vmapped': 4}
    assert run.texts('written') == ('a',) * 7
    assert run.shown.names == run.example_ids


def test_fewer_members_are_refused(directory, extend, one_line):
    before = _snapshot(directory)
    message = one_line(store.FewerMembers, extend, directory, 11)
    assert '12 members' in message and 'at least 12' in message
    assert _snapshot(directory) == before
    extend(directory, 20).close()
    assert 'at least 20' in one_line(store.FewerMembers, extend, directory, 12)


def test_other_first_rows_are_refused(directory, changed_manifest, more_masks, one_line):
    masks, before = more_masks(20).copy(), _snapshot(directory)
    masks[3] = ~masks[3]
    message = one_line(
        store.ConfigurationMismatch,
        store.create_or_resume,
        directory,
        changed_manifest(members=20),
        masks,
    )
    assert 'masks: 1 of 12 rows, first 3' in message
    assert _snapshot(directory) == before


def test_another_configuration_does_not_grow(directory, changed_manifest, more_masks, one_line):
    before = _snapshot(directory)
    with pytest.raises(store.ConfigurationMismatch) as caught:
        other = changed_manifest(members=20, seeds={'masks': 0, 'members': 2})
        store.create_or_resume(directory, other, more_masks(20))
    assert caught.value.differences == ('seeds.members: 1 -> 2',)
    assert _snapshot(directory) == before


def test_an_earlier_manifest_of_a_grown_run_is_noticed_before_it_grows(directory, extend, one_line):
    manifest = (directory / 'manifest.json').read_bytes()
    with extend(directory, 20) as run:
        run.write([15], _rows(run, [15]))
    (directory / 'manifest.json').write_bytes(manifest)
    assert store.open_run(directory).complete.tolist() == list(range(8))
    message = one_line(store.CorruptRun, extend, directory, 30)
    assert 'status.zarr/c.15' in message and '12 members' in message


class _Killed(BaseException):
    pass


@pytest.mark.parametrize('step', range(8))
@pytest.mark.parametrize('moment', ['before', 'after'])
@pytest.mark.parametrize('then', [18, 20, 30])
def test_stopped_at_any_step_it_opens_and_grows(
    directory, extend, more_masks, values, monkeypatch, step, moment, then
):
    """Six arrays get more room, the masks are written, the manifest is replaced."""
    steps = []

    def stopping(function):
        def call(*arguments, **options):
            steps.append(function)
            if len(steps) == step + 1 and moment == 'before':
                raise _Killed
            result = function(*arguments, **options)
            if len(steps) == step + 1:
                raise _Killed
            return result

        return call

    monkeypatch.setattr(arrays.RowArray, 'grow', stopping(arrays.RowArray.grow))
    monkeypatch.setattr(arrays.RowArray, 'write', stopping(arrays.RowArray.write))
    monkeypatch.setattr(layout, 'write_atomically', stopping(layout.write_atomically))
    with pytest.raises(_Killed):
        extend(directory, 20)
    assert len(steps) == step + 1
    monkeypatch.undo()

    run = store.open_run(directory)
    members = 20 if (step, moment) == (7, 'after') else 12
    np.testing.assert_array_equal(run.masks, more_masks(members))
    assert run.complete.tolist() == list(range(8))
    np.testing.assert_array_equal(run.measurement()[:8], values['loss'][:8])
    if then < members:
        return
    with extend(directory, then) as run:
        run.write([then - 1], _rows(run, [then - 1]))
    run = store.open_run(directory)
    np.testing.assert_array_equal(run.masks, more_masks(then))
    assert run.complete.tolist() == [*range(8), then - 1]


def test_other_masks_after_an_interrupted_growth(
    directory, changed_manifest, extend, masks, monkeypatch
):
    """Rows that a growth has left without a manifest are nobody's."""

    def killed(*_):
        raise _Killed

    monkeypatch.setattr(layout, 'write_atomically', killed)
    with pytest.raises(_Killed):
        extend(directory, 30)
    monkeypatch.undo()
    other = np.concatenate([masks, ~masks])
    for members in (15, 24):
        store.create_or_resume(
            directory, changed_manifest(members=members), other[:members]
        ).close()
        np.testing.assert_array_equal(store.open_run(directory).masks, other[:members])


@pytest.mark.parametrize('where', ['array', 'manifest'])
def test_a_disk_that_is_full_while_a_run_grows(
    directory, extend, more_masks, monkeypatch, where, one_line
):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Full:
        def exception(self):
            return ValueError(f"Failed to write: x [os_error_code='{errno.ENOSPC}']")

    if where == 'array':
        wait = arrays._wait
        monkeypatch.setattr(arrays, '_wait', lambda _, path: wait([Full()], path))
    else:
        monkeypatch.setattr(os, 'fsync', full)
    assert os.strerror(errno.ENOSPC) in one_line(store.StorageFailed, extend, directory, 20)
    monkeypatch.undo()
    assert len(store.open_run(directory).masks) == 12
    extend(directory, 20).close()
    np.testing.assert_array_equal(store.open_run(directory).masks, more_masks(20))


def test_a_reader_sees_the_run_as_it_was_before_it_grew(directory, extend, masks, values):
    reader = store.open_run(directory)
    with extend(directory, 20) as run:
        run.write(run.missing, _rows(run, run.missing))
    np.testing.assert_array_equal(reader.masks, masks)
    found = reader.measurement()
    assert found.shape == (12, 7)
    np.testing.assert_array_equal(found[:8], values['loss'][:8])
    assert np.isnan(found[8:]).all()
    assert len(store.open_run(directory).complete) == 20


def test_a_second_writer_does_not_extend(directory, extend, one_line):
    with extend(directory, 12):
        one_line(store.RunLocked, extend, directory, 20)
    assert len(store.open_run(directory).masks) == 12


CHILD = """
import json, pathlib, sys
import numpy as np
from influence_jax import store
here = pathlib.Path(sys.argv[1])
manifest = json.loads((here / 'small.json').read_text())
masks = np.load(here / 'masks.npy')
print('ready', flush=True)
for members in range(20, 2000, 20):
    fields = {**manifest, 'dataset': store.DatasetIdentity('d', 'f'), 'members': members}
    with store.create_or_resume(here / 'run', store.Manifest(**fields), masks[:members]) as run:
        new = run.missing
        run.write(new, {'loss': np.repeat(new[:, None], 7, axis=1).astype(np.float32)})
    print(members, flush=True)
"""


def test_sigkill_while_a_run_grows_and_is_read(tmp_path):
    masks = np.random.default_rng(0).random((2000, 10)) < 0.5
    np.save(tmp_path / 'masks.npy', masks)
    ids = {'example_ids': [f'e{i}' for i in range(10)], 'target_ids': [f't{i}' for i in range(7)]}
    fields = {'configuration': {}, 'seeds': {}, 'measurements': ['loss'], **ids}
    (tmp_path / 'small.json').write_text(json.dumps(fields))
    sizes = []

    def check():
        try:
            run = store.open_run(tmp_path / 'run')
        except store.NotARun:  # not yet
            assert not sizes
            return
        members = len(run.masks)
        np.testing.assert_array_equal(run.masks, masks[:members])
        assert (run.missing >= members - 20).all()
        expected = np.full((members, 7), np.nan, np.float32)
        expected[run.complete] = run.complete[:, None]
        np.testing.assert_array_equal(run.measurement(), expected)
        sizes.append(members)

    moments = np.random.default_rng(0)
    for _ in range(4):
        # The child begins with 20 members: fewer than are there, once it has grown.
        (tmp_path / 'child.py').write_text(
            CHILD.replace('range(20,', f'range({max(sizes, default=20)},')
        )
        child = subprocess.Popen(
            [sys.executable, tmp_path / 'child.py', tmp_path], stdout=subprocess.PIPE
        )
        try:
            assert child.stdout.readline() == b'ready\n'
            for _ in range(3):
                assert int(child.stdout.readline())
                check()
            time.sleep(moments.uniform(0, 0.1))
        finally:
            child.send_signal(signal.SIGKILL)
            child.communicate()
        assert child.returncode == -signal.SIGKILL
        check()
    assert sizes == sorted(sizes), 'members were lost'
    assert 40 < max(sizes) < 1000, f'nothing was interrupted: {sizes}'


def test_arrays_shorter_than_the_manifest_are_damage(directory, one_line):
    for part in ('masks.zarr', 'status.zarr', 'measurements/loss.zarr'):
        path = directory / part / 'zarr.json'
        whole = path.read_text()
        path.write_text(whole.replace('"shape":[12', '"shape":[11'))
        assert str(path) in one_line(store.CorruptRun, store.open_run, directory)
        path.write_text(whole)


@pytest.mark.parametrize('height', [0, -1, 11, 13, 2**40, 2**62])
def test_other_heights_of_the_masks_files_are_damage(directory, height, one_line):
    path = directory / 'masks.zarr/zarr.json'
    path.write_text(path.read_text().replace('"chunk_shape":[12', f'"chunk_shape":[{height}'))
    assert 'masks.zarr' in one_line(store.CorruptRun, store.open_run, directory)


@pytest.fixture
def run_of_before(tmp_path):
    """A run that version 0.1.0 wrote: 6 members, of which 4 is diverged and 5 missing."""
    with zipfile.ZipFile(OLD_RUN) as archive:
        archive.extractall(tmp_path)
    return tmp_path / 'run'


def test_a_run_of_the_version_before_is_read_continued_and_grows(run_of_before):
    run = store.open_run(run_of_before)
    ramp = np.arange(6, dtype=np.float32)[:, None] + np.arange(7, dtype=np.float32) / 8
    masks = np.arange(60).reshape(6, 10) * 7 % 5 < 2
    np.testing.assert_array_equal(run.masks, masks)
    assert (run.complete.tolist(), run.diverged.tolist()) == ([0, 1, 2, 3], [4])
    np.testing.assert_array_equal(run.measurement('correct')[:4], ramp[:4] + 100)
    assert run.notes == {'vmapped': 2}
    assert run.texts('written') == tuple(f'text {t}' for t in range(7))
    assert run.shown is None
    assert run.manifest.executor is None

    more = np.concatenate([masks, ~masks])
    for members in (6, 12):
        fields = {name: getattr(run.manifest, name) for name in run.manifest.__dataclass_fields__}
        manifest = store.Manifest(**{**fields, 'members': members, 'masks_sha256': None})
        with store.create_or_resume(run_of_before, manifest, more[:members]) as written:
            written.write(written.missing, _rows(written, written.missing))
            written.write_shown(store.Shown(names=written.example_ids))
    run = store.open_run(run_of_before)
    np.testing.assert_array_equal(run.masks, more)
    assert run.complete.tolist() == [0, 1, 2, 3, *range(5, 12)]
    np.testing.assert_array_equal(run.measurement('correct')[:4], ramp[:4] + 100)


def test_a_run_without_digests_grows(old_directory, extend, more_masks, values):
    with extend(old_directory, 20) as run:
        run.write(run.missing, _rows(run, run.missing))
        run.write_shown(store.Shown(names=run.example_ids))
    run = store.open_run(old_directory)
    assert not run.manifest.has_digests
    np.testing.assert_array_equal(run.masks, more_masks(20))
    np.testing.assert_array_equal(run.measurement()[:8], values['loss'][:8])
    assert len(run.complete) == 20
    assert run.shown.names == run.example_ids


def test_a_message_names_a_few_of_many_differences(tmp_path):
    error = store.ConfigurationMismatch(tmp_path, [f'key{n}: 1 -> 2' for n in range(40)])
    assert 'key5: 1 -> 2; and 34 more)' in str(error)
    assert len(error.differences) == 40
