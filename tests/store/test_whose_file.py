"""Files that are whole, but no files, too large, another's, or of a run that is gone."""

import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import fuzz_store
from influence_jax import store
from influence_jax.store import layout

NAMES = ('loss', 'logit_gap', 'correct')
ROW = 'measurements/loss.zarr/c.3.0'
FILES = [
    'manifest.json',
    'masks.zarr/zarr.json',
    'masks.zarr/c.0.0',
    'measurements/loss.zarr/zarr.json',
    ROW,
    'digests.zarr/zarr.json',
    'digests.zarr/c.3.0.0',
    'status.zarr/zarr.json',
    'status.zarr/c.3',
    'notes.json',
    'texts/written.json',
    'examples.json',
    'examples.zarr/zarr.json',
    'examples.zarr/c.0.0.0.0',
]


def _bind(path):
    with socket.socket(socket.AF_UNIX) as opened:
        os.chdir(path.parent)
        opened.bind(path.name)


IRREGULAR = {
    'a directory': lambda path: path.mkdir(),
    'a pipe': os.mkfifo,
    'a socket': _bind,
    'a device': lambda path: path.symlink_to('/dev/zero'),
    'a link that leads to no file': lambda path: path.symlink_to('nowhere'),
}
irregular = pytest.mark.parametrize(('kind', 'make'), IRREGULAR.items(), ids=IRREGULAR.keys())


@pytest.fixture
def whole(directory, manifest, masks):
    """The run, with a note, texts of targets, and what is shown of the examples."""
    with store.create_or_resume(directory, manifest, masks) as run:
        run.note('vmapped', 2)
        run.write_texts('written', list(manifest.target_ids))
        images = np.arange(10 * 27, dtype=np.uint8).reshape(10, 3, 3, 3)
        run.write_shown(store.Shown(names=manifest.example_ids, images=images))
    return directory


def _read_all(directory):
    run = store.open_run(directory)
    for name in run.manifest.measurements:
        run.measurement(name)
    run.texts('written')
    assert run.shown is not None
    return run.notes


@irregular
@pytest.mark.parametrize('name', FILES)
def test_what_is_no_file_is_refused_by_name_without_blocking(
    whole, monkeypatch, kind, make, name, one_line
):
    monkeypatch.chdir(whole)
    path = whole / name
    path.unlink()
    make(path)
    message = one_line(store.RunError, _read_all, whole)
    assert str(path) in message
    assert kind in message


@pytest.mark.parametrize('name', FILES)
def test_a_file_without_an_end_is_not_read(whole, name, one_line):
    os.truncate(whole / name, 2**40)
    assert str(whole / name) in one_line(store.RunError, _read_all, whole)


@pytest.mark.parametrize('name', [name for name in FILES if name.endswith('json')])
@pytest.mark.parametrize('opening', ['[', '{"a":'])
def test_nested_json_is_refused(whole, name, opening, one_line):
    (whole / name).write_text(opening * 100_000)
    assert str(whole / name) in one_line(store.RunError, _read_all, whole)


WRITTEN = {
    'lock': lambda run: None,
    'status.zarr/c.8.__lock': lambda run: run.write([8], dict.fromkeys(NAMES, np.zeros((1, 7)))),
    'measurements/loss.zarr/c.8.0.__lock': lambda run: run.write(
        [8], dict.fromkeys(NAMES, np.zeros((1, 7)))
    ),
    'notes.json.partial': lambda run: run.note('vmapped', 3),
    'texts/written.json.partial': lambda run: run.write_texts('written', ['a'] * 7),
    'examples.json.partial': lambda run: run.write_shown(store.Shown(names=('a',) * 10)),
}
IN_THE_WAY = {
    'a pipe': lambda path, mine: os.mkfifo(path),
    'a link': lambda path, mine: path.symlink_to(mine),
    'a directory': lambda path, mine: path.mkdir(),
}


@pytest.mark.parametrize('name', WRITTEN)
@pytest.mark.parametrize('kind', IN_THE_WAY)
def test_a_writer_waits_for_no_pipe_and_writes_through_no_link(
    whole, tmp_path, manifest, masks, name, kind, one_line
):
    mine = tmp_path / 'mine'
    mine.write_text('dear')

    def write():
        with store.create_or_resume(whole, manifest, masks) as run:
            WRITTEN[name](run)

    path = whole / name
    path.unlink(missing_ok=True)
    IN_THE_WAY[kind](path, mine)
    message = one_line(store.CorruptRun, write)
    assert str(path) in message and kind in message
    assert mine.read_text() == 'dear'
    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    write()


@pytest.mark.parametrize('part', ['masks.zarr', 'measurements', 'measurements/loss.zarr'])
def test_making_a_run_deletes_nothing_where_a_link_leads(tmp_path, manifest, masks, part, one_line):
    mine = tmp_path / 'mine'
    mine.mkdir()
    (mine / 'thesis.tex').write_text('dear')
    path = tmp_path / 'run' / part
    path.parent.mkdir(parents=True)
    path.symlink_to(mine)
    message = one_line(store.NotARun, store.create_or_resume, tmp_path / 'run', manifest, masks)
    assert f'{path} is a link' in message
    assert (mine / 'thesis.tex').read_text() == 'dear'


MEMBERS_FILES = [ROW, 'digests.zarr/c.3.0.0', 'status.zarr/c.3']


@pytest.mark.parametrize('other', [4, 8])
@pytest.mark.parametrize('names', [MEMBERS_FILES[:1], MEMBERS_FILES[1:2], MEMBERS_FILES[:2]])
def test_another_members_files_are_noticed(
    directory, manifest, masks, values, record, names, other, one_line
):
    values['loss'][8, 0] = np.nan  # member 8 diverges
    with store.create_or_resume(directory, manifest, masks) as run:
        record(run, 8)
    for name in names:
        shutil.copy(directory / name.replace('c.3', f'c.{other}'), directory / name)
    message = one_line(store.CorruptRun, lambda: store.open_run(directory).measurement())
    assert 'member 3' in message
    assert f'delete {directory}/status.zarr/c.3 and' in message


@pytest.mark.parametrize(('of', 'to'), [(3, 8), (8, 3), (3, 9), (8, 9)])
def test_another_members_status_is_noticed(
    directory, manifest, masks, values, record, of, to, one_line
):
    """Of a complete member (3), one that diverged (8), and one that was never written (9)."""
    values['loss'][8, 0] = np.nan
    with store.create_or_resume(directory, manifest, masks) as run:
        record(run, 8)
    shutil.copy(directory / f'status.zarr/c.{of}', directory / f'status.zarr/c.{to}')
    message = one_line(store.CorruptRun, store.open_run, directory)
    assert f'member {to}' in message
    assert f'status.zarr/c.{to}' in message


def test_another_measurements_row_is_noticed(directory, one_line):
    shutil.copy(directory / 'measurements/correct.zarr/c.3.0', directory / ROW)
    assert f'{directory / ROW} of member 3' in one_line(
        store.CorruptRun, store.open_run(directory).measurement
    )


@pytest.mark.parametrize(
    'changes', [{'seeds': {'masks': 7}}, {'configuration': {}}], ids=['seeds', 'configuration']
)
def test_another_runs_files_are_noticed(
    directory, tmp_path, changed_manifest, masks, record, values, changes, one_line
):
    """Also all files of a member at once, texts, and masks."""
    other = tmp_path / 'other'
    values['loss'] += 1
    with store.create_or_resume(other, changed_manifest(**changes), ~masks) as run:
        record(run, *range(8))
        run.write_texts('written', ['x'] * 7)
    manifest = store.open_run(directory).manifest
    with store.create_or_resume(directory, manifest, masks) as run:
        run.write_texts('written', ['y'] * 7)
    shutil.copy(other / 'texts/written.json', directory / 'texts/written.json')
    assert 'written.json' in one_line(store.CorruptRun, store.open_run(directory).texts, 'written')
    shutil.copy(other / ROW, directory / ROW)
    assert 'member 3' in one_line(store.CorruptRun, store.open_run(directory).measurement)
    for part in ('measurements', 'digests.zarr', 'status.zarr'):
        shutil.copytree(other / part, directory / part, dirs_exist_ok=True)
    assert 'member 0' in one_line(store.CorruptRun, store.open_run, directory)
    shutil.copy(other / 'masks.zarr/c.0.0', directory / 'masks.zarr/c.0.0')
    assert 'masks.zarr' in one_line(store.CorruptRun, store.open_run, directory)


def test_texts_of_another_name_are_noticed(whole, one_line):
    shutil.copy(whole / 'texts/written.json', whole / 'texts/other.json')
    assert 'other.json' in one_line(store.CorruptRun, store.open_run(whole).texts, 'other')


@pytest.mark.parametrize('other', ['manifest.json', 'texts/written.json'])
def test_other_json_of_the_run_is_no_notes(whole, other, one_line):
    shutil.copy(whole / other, whole / 'notes.json')
    assert 'notes.json' in one_line(store.CorruptRun, lambda: store.open_run(whole).notes)


def test_files_of_masks_that_changed_places(tmp_path, manifest, masks, monkeypatch, one_line):
    monkeypatch.setattr(layout, '_BYTES_PER_MASKS_FILE', 4 * masks.shape[1])
    store.create_or_resume(tmp_path, manifest, masks).close()
    first, second = tmp_path / 'masks.zarr/c.0.0', tmp_path / 'masks.zarr/c.1.0'
    first.rename(tmp_path / 'x')
    second.rename(first)
    (tmp_path / 'x').rename(second)
    assert 'masks.zarr' in one_line(store.CorruptRun, store.open_run, tmp_path)


READS = {
    'manifest.json': layout.read_manifest,
    'notes.json': lambda directory: store.open_run(directory).notes,
    'examples.json': lambda directory: repr(store.open_run(directory).shown),
}


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'read'), READS.items())
def test_no_flipped_bit_of_what_was_configured_goes_unnoticed(whole, name, read):
    path = whole / name
    content = path.read_bytes()
    expected = read(whole)
    bits = np.random.default_rng(0).integers(0, 8, len(content))
    for byte, bit in enumerate(bits.tolist()):
        data = bytearray(content)
        data[byte] ^= 1 << bit
        path.write_bytes(data)
        try:
            found = read(whole)
        except store.RunError as error:
            assert str(path) in str(error) and '\n' not in str(error)
            continue
        assert found == expected, data


def test_a_manifest_that_lost_its_checksum_is_refused(directory, one_line):
    path = directory / 'manifest.json'
    fields = json.loads(path.read_text())
    for left in (['checksum'], ['masks_sha256'], ['checksum', 'masks_sha256']):
        path.write_text(json.dumps({key: fields[key] for key in fields if key not in left}))
        assert str(path) in one_line(store.BadManifest, store.open_run, directory)


def test_runs_of_earlier_versions_open_with_a_warning(old_directory, masks, values, caplog):
    run = store.open_run(old_directory)
    assert 'earlier version' in caplog.text
    np.testing.assert_array_equal(run.masks, masks)
    for name, expected in values.items():
        np.testing.assert_array_equal(run.measurement(name)[:8], expected[:8])


def test_runs_of_earlier_versions_are_continued(old_directory, manifest, masks, values, record):
    (old_directory / 'notes.json').write_text('{"vmapped": 4}')
    with store.create_or_resume(old_directory, manifest, masks) as run:
        assert run.notes == {'vmapped': 4}
        record(run, *run.missing)
        run.write_texts('written', ['a'] * 7)
    run = store.open_run(old_directory)
    assert run.texts('written') == ('a',) * 7
    np.testing.assert_array_equal(run.measurement(), values['loss'])
    assert not (old_directory / 'digests.zarr').exists()


def test_earlier_runs_rows_that_cannot_be_a_complete_members(
    old_directory, manifest, masks, values, record, one_line
):
    values['loss'][8, 0] = np.nan
    with store.create_or_resume(old_directory, manifest, masks) as run:
        record(run, 8)
    shutil.copy(old_directory / 'measurements/loss.zarr/c.8.0', old_directory / ROW)
    message = one_line(store.CorruptRun, store.open_run(old_directory).measurement)
    assert 'not finite' in message and 'member 3' in message


def test_rows_that_were_never_written_are_no_members(directory, manifest, masks, values, record):
    """Neither rows of no file nor rows of zeros that a kill left without a status."""
    with store.create_or_resume(directory, manifest, masks) as run:
        record(run, 9)
        for part in ('measurements/loss.zarr', 'measurements/correct.zarr'):
            shutil.copy(directory / part / 'c.9.0', directory / part / 'c.10.0')
    (directory / 'status.zarr/c.9').unlink()
    run = store.open_run(directory)
    assert run.complete.tolist() == list(range(8))
    assert run.missing.tolist() == [8, 9, 10, 11]
    for name in manifest.measurements:
        assert np.isnan(run.measurement(name)[8:]).all()


def _deleted(directory):
    shutil.rmtree(directory)


def _moved(directory):
    directory.rename(directory.with_name('moved'))


def _copied(directory):
    directory.rename(directory.with_name('moved'))
    shutil.copytree(directory.with_name('moved'), directory)


def _without(part):
    return lambda directory: shutil.rmtree(directory / part)


@pytest.mark.parametrize(
    'gone',
    [_deleted, _moved, _copied, _without('measurements'), _without('status.zarr')],
    ids=['deleted', 'moved', 'replaced', 'measurements deleted', 'status deleted'],
)
@pytest.mark.parametrize('call', ['write', 'note', 'texts'])
def test_a_run_that_is_gone_is_noticed_and_not_made_again(
    directory, manifest, masks, record, gone, call, one_line
):
    calls = {
        'write': lambda run: record(run, 8),
        'note': lambda run: run.note('vmapped', 2),
        'texts': lambda run: run.write_texts('written', ['a'] * 7),
    }
    with store.create_or_resume(directory, manifest, masks) as run:
        gone(directory)
        before = sorted(directory.parent.rglob('*'))
        message = one_line(store.RunGone, calls[call], run)
        assert str(directory) in message and 'again' in message
        assert sorted(directory.parent.rglob('*')) == before
        assert 8 in run.missing


@pytest.mark.parametrize('late', [True, False], ids=['rows are written', 'rows are not'])
def test_a_run_that_goes_while_rows_are_written_is_noticed(
    directory, manifest, masks, record, monkeypatch, late, one_line
):
    from influence_jax.store import arrays

    def writing(rows, pairs):
        shutil.rmtree(directory)
        if late:
            arrays.write_rows(rows, pairs)
        else:
            raise store.StorageFailed('no such file or directory')

    with store.create_or_resume(directory, manifest, masks) as run:
        monkeypatch.setattr('influence_jax.store.run.write_rows', writing)
        one_line(store.RunGone, record, run, 8)
        assert 8 in run.missing
    assert not directory.exists()


def test_what_somebody_else_has_put_there_stays(
    directory, manifest, masks, record, recorded_once, monkeypatch, one_line
):
    from influence_jax.store import arrays

    def writing(rows, pairs):
        shutil.rmtree(directory)
        shutil.copytree(recorded_once, directory)
        arrays.write_rows(rows, pairs)

    with store.create_or_resume(directory, manifest, masks) as run:
        monkeypatch.setattr('influence_jax.store.run.write_rows', writing)
        one_line(store.RunGone, record, run, 8)
    assert len(store.open_run(directory).complete) >= 8


def test_reading_a_run_that_is_gone_does_not_blame_a_member(directory, one_line):
    run = store.open_run(directory)
    shutil.rmtree(directory)
    assert str(directory) in one_line(store.RunGone, run.measurement)


def test_reading_takes_little_more_memory_than_the_array(tmp_path, changed_manifest):
    members, targets = 96, 100_000
    ids = tuple(map(str, range(targets)))
    manifest = changed_manifest(members=members, target_ids=ids, measurements=('loss',))
    row = np.arange(targets, dtype=np.float32)
    with store.create_or_resume(tmp_path, manifest, np.ones((members, 10), bool)) as run:
        for start in range(0, members, 8):
            run.write(np.arange(start, start + 8), {'loss': np.broadcast_to(row, (8, targets))})
    run = store.open_run(tmp_path)
    run._arrays.measurements['loss'].read_written(range(8))  # threads and caches are there now
    try:
        Path('/proc/self/clear_refs').write_text(
            '5'
        )  # the high-water mark begins at what is in use now
    except OSError:
        pytest.skip('no high-water mark of memory here')
    before = _status('VmRSS')
    values = run.measurement()
    assert values.nbytes == members * targets * 4
    assert _status('VmHWM') - before < 1.0 * values.nbytes + 2**24


def test_a_measurement_beyond_what_is_available_is_one_line(directory, monkeypatch, one_line):
    """A system that grants the memory would kill the process when it is used."""
    run = store.open_run(directory)
    monkeypatch.setattr('influence_jax.store.run.available_bytes', lambda: 4 * 12 * 7 - 1)
    assert 'takes 336 bytes' in one_line(store.RunError, run.measurement)


def test_a_measurement_beyond_memory_is_one_line(directory, monkeypatch, one_line):
    def full(*arguments):
        raise MemoryError

    run = store.open_run(directory)
    monkeypatch.setattr(np, 'full', full)
    assert '12 members and 7 targets' in one_line(store.RunError, run.measurement)


def _status(name):
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


@pytest.fixture(scope='module')
def fuzzed(tmp_path_factory):
    folder = tmp_path_factory.mktemp('fuzz')
    return folder, fuzz_store.make_original(folder)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(rng=st.randoms(use_true_random=False))
def test_no_damage_gives_a_wrong_number_a_traceback_or_a_hang(fuzzed, rng):
    fuzz_store.one_case(rng, *fuzzed)
