"""Writing and reading a run, resuming it, and what is refused."""

import json
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax import store
from influence_jax.store import MemberStatus, layout


def test_what_is_written_is_read(directory, manifest, masks, values):
    run = store.open_run(directory)
    assert run.manifest == manifest
    assert run.example_ids == manifest.example_ids
    assert run.target_ids == manifest.target_ids
    assert run.masks.dtype == np.bool_
    np.testing.assert_array_equal(run.masks, masks)
    for name, expected in values.items():
        found = run.measurement(name)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found[:8], expected[:8])
        assert np.isnan(found[8:]).all()
    np.testing.assert_array_equal(run.measurement(), run.measurement('loss'))


def test_status_says_who_is_missing(directory):
    run = store.open_run(str(directory))
    np.testing.assert_array_equal(run.complete, np.arange(8))
    np.testing.assert_array_equal(run.missing, np.arange(8, 12))
    assert len(run.diverged) == 0
    assert run.member_status.tolist() == [MemberStatus.COMPLETE] * 8 + [MemberStatus.MISSING] * 4
    assert '8 of 12' in repr(run)


def test_an_empty_run_is_all_missing(tmp_path, manifest, masks):
    store.create_or_resume(tmp_path, manifest, masks).close()
    run = store.open_run(tmp_path)
    np.testing.assert_array_equal(run.missing, np.arange(12))
    assert np.isnan(run.measurement()).all()


def test_resuming_keeps_what_is_there_and_takes_the_rest(
    directory, changed_manifest, masks, values, record
):
    later = changed_manifest(versions={'jax': '2'}, command='again', created='later')
    with store.create_or_resume(directory, later, masks) as run:
        np.testing.assert_array_equal(run.missing, [8, 9, 10, 11])
        assert run.manifest.command == 'a command'
        record(run, 11, 8)
        np.testing.assert_array_equal(run.missing, [9, 10])
        np.testing.assert_array_equal(run.measurement()[[8, 11]], values['loss'][[8, 11]])
    with store.create_or_resume(directory, later, masks) as run:
        record(run, *run.missing)
        assert len(run.missing) == 0
    for name, expected in values.items():
        np.testing.assert_array_equal(store.open_run(directory).measurement(name), expected)


def test_a_reader_sees_the_run_as_it_was_when_opened(directory, manifest, masks, record):
    with store.create_or_resume(directory, manifest, masks) as writer:
        reader = store.open_run(directory)
        record(writer, 9)
        assert 9 in reader.missing
        assert np.isnan(reader.measurement()[9]).all()
        assert 9 in store.open_run(directory).complete


def test_any_value_not_finite_makes_a_member_diverged(directory, manifest, masks, values):
    rows = {name: table[8:11].copy() for name, table in values.items()}
    rows['loss'][0, 2] = np.nan
    rows['correct'][1, :] = np.inf
    with store.create_or_resume(directory, manifest, masks) as run:
        run.write(np.array([8, 9, 10]), rows)
        np.testing.assert_array_equal(run.diverged, [8, 9])
    run = store.open_run(directory)
    np.testing.assert_array_equal(run.diverged, [8, 9])
    np.testing.assert_array_equal(run.missing, [11])
    for name, expected in values.items():
        found = run.measurement(name)
        assert np.isnan(found[[8, 9, 11]]).all()
        np.testing.assert_array_equal(found[10], expected[10])


def test_a_diverged_members_values_stay_in_the_file(directory, manifest, masks, values):
    import tensorstore as ts

    rows = {name: table[8:9].copy() for name, table in values.items()}
    rows['loss'][0, 2] = np.inf
    with store.create_or_resume(directory, manifest, masks) as run:
        run.write(np.array([8]), rows)
    path = f'{directory}/measurements/loss.zarr/'
    spec = {'driver': 'zarr3', 'kvstore': {'driver': 'file', 'path': path}}
    np.testing.assert_array_equal(ts.open(spec).result()[8].read().result(), rows['loss'][0])


def test_other_types_are_kept_as_float32(directory, manifest, masks):
    rows = {
        'loss': jnp.full((2, 7), 1.5, jnp.bfloat16),
        'logit_gap': np.array([np.full(7, 0.1), np.full(7, 1e300)]),
        'correct': np.ones((2, 7), bool),
    }
    with store.create_or_resume(directory, manifest, masks) as run:
        run.write(jnp.array([8, 9]), rows)
        # 1e300 is no float32.
        np.testing.assert_array_equal(run.diverged, [9])
        assert run.measurement('loss')[8, 0] == 1.5
        assert run.measurement('logit_gap')[8, 0] == np.float32(0.1)
        assert run.measurement('correct')[8, 0] == 1


def test_masks_of_several_files(tmp_path, manifest, masks, monkeypatch, one_line):
    monkeypatch.setattr(layout, '_BYTES_PER_MASKS_FILE', 5 * masks.shape[1])
    store.create_or_resume(tmp_path, manifest, masks).close()
    files = sorted((tmp_path / 'masks.zarr').glob('c.*'))
    assert len(files) == 3
    np.testing.assert_array_equal(store.open_run(tmp_path).masks, masks)
    files[1].unlink()
    assert str(files[1]) in one_line(store.CorruptRun, store.open_run, tmp_path)


def test_masks_cannot_be_changed_by_accident(directory, manifest, masks):
    store.create_or_resume(directory, manifest, masks).close()
    run = store.open_run(directory)
    with pytest.raises(ValueError, match='read-only'):
        run.masks[0, 0] = True
    masks[0, 0] = not masks[0, 0]  # the caller's own stays writable


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ('members', 'changes', 'match'),
    [
        ([12], {}, 'not all in 0..11'),
        ([-1], {}, 'not all in 0..11'),
        ([8, 8], {}, 'not distinct'),
        ([3, 8], {}, r'members \[3\] are already recorded'),
        ([8.0], {}, 'indices'),
        ([8], {'loss': np.zeros((1, 6))}, r'loss has shape \[1, 6\], expected \[1, 7\]'),
        ([8], {'loss': np.zeros(7)}, r'loss has shape \[7\]'),
        ([8], {'extra': np.zeros((1, 7))}, 'extra'),
    ],
)
def test_wrong_rows_are_refused_and_change_nothing(
    directory, manifest, masks, members, changes, match, refused
):
    rows = {name: np.zeros((len(members), 7)) for name in manifest.measurements} | changes
    with store.create_or_resume(directory, manifest, masks) as run:
        with refused(match):
            run.write(np.array(members), rows)
        np.testing.assert_array_equal(run.missing, [8, 9, 10, 11])


def test_readers_and_closed_runs_do_not_write(directory, manifest, masks, record, one_line):
    assert 'reading only' in one_line(ValueError, record, store.open_run(directory), 8)
    with store.create_or_resume(directory, manifest, masks) as run:
        pass
    assert 'closed' in one_line(ValueError, record, run, 8)
    for call in (
        lambda: run.note('vmapped', 2),
        lambda: run.write_texts('written', ['a'] * 7),
        lambda: run.write_shown(store.Shown(names=manifest.example_ids)),
    ):
        assert 'closed' in one_line(ValueError, call)
    run.close()


def test_runs_of_ones_own_kind(directory, manifest, masks):
    class MyRun(store.Run):
        @property
        def share(self):
            return len(self.complete) / len(self.masks)

    with store.create_or_resume(directory, manifest, masks, kind=MyRun) as run:
        assert run.share == 8 / 12
    assert MyRun.open(directory).share == 8 / 12
    assert type(store.open_run(directory)) is store.Run


def test_unknown_measurement_lists_the_known(directory, one_line):
    message = one_line(ValueError, store.open_run(directory).measurement, 'los')
    assert 'loss, logit_gap, correct' in message


@pytest.mark.unchecked
@pytest.mark.parametrize('wrong', [np.zeros((12, 9), bool), np.zeros((12, 10)), np.zeros(12, bool)])
def test_masks_that_do_not_fit_make_no_directory(tmp_path, manifest, wrong, refused):
    with refused(r'expected bool\[12, 10\]'):
        store.create_or_resume(tmp_path / 'run', manifest, wrong)
    assert not (tmp_path / 'run').exists()


def test_another_configuration_is_refused_with_old_and_new(
    directory, changed_manifest, masks, one_line
):
    other = changed_manifest(
        configuration={'epochs': 20, 'model': {'width': 16, 'depth': 14}, 'lr': 0.1},
        seeds={'masks': 5, 'members': 1},
    )
    with pytest.raises(store.ConfigurationMismatch) as caught:
        store.create_or_resume(directory, other, masks)
    assert caught.value.differences == (
        'configuration.epochs: 10 -> 20',
        'configuration.model.depth: 8 -> 14',
        'configuration.keep: 0.5 -> absent',
        'seeds.masks: 0 -> 5',
        'configuration.lr: absent -> 0.1',
    )
    message = str(caught.value)
    assert '\n' not in message
    assert all(difference in message for difference in caught.value.differences)
    assert len(store.open_run(directory).complete) == 8


def test_other_masks_are_refused(directory, manifest, masks, one_line):
    masks[[3, 5], 0] ^= True
    message = one_line(
        store.ConfigurationMismatch, store.create_or_resume, directory, manifest, masks
    )
    assert 'masks: 2 of 12 rows, first 3' in message


def test_a_second_writer_is_refused(directory, manifest, masks, one_line):
    with store.create_or_resume(directory, manifest, masks):
        message = one_line(store.RunLocked, store.create_or_resume, directory, manifest, masks)
        assert 'is being written by process' in message
        assert len(store.open_run(directory).complete) == 8
    store.create_or_resume(directory, manifest, masks).close()


def test_a_second_writer_in_another_process_is_refused(directory, manifest, masks):
    (directory.parent / 'manifest.json').write_text(manifest.to_json())
    np.save(directory.parent / 'masks.npy', masks)
    program = """
import sys, numpy as np, pathlib
from influence_jax import store
here = pathlib.Path(sys.argv[1])
manifest = store.Manifest.from_json((here / 'manifest.json').read_text())
try:
    store.create_or_resume(here / 'run', manifest, np.load(here / 'masks.npy'))
except store.RunError as error:
    sys.exit(f'{type(error).__name__}: {error}')
"""
    with store.create_or_resume(directory, manifest, masks):
        done = subprocess.run(
            [sys.executable, '-c', program, directory.parent],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith('RunLocked: ')
    assert done.stderr.count('\n') == 1


def test_a_refused_resume_lets_go_of_the_lock(directory, changed_manifest, manifest, masks):
    with pytest.raises(store.ConfigurationMismatch):
        store.create_or_resume(directory, changed_manifest(seeds={}), masks)
    store.create_or_resume(directory, manifest, masks).close()


def test_nothing_in_the_directory_can_hold_code(directory):
    for path in directory.rglob('*'):
        if path.is_file() and path.suffix == '.json':
            json.loads(path.read_text())
        elif path.is_file():
            assert path.name == 'lock' or path.name.startswith('c.'), path


def test_notes_are_kept_and_hold_no_code(directory, manifest, masks):
    assert store.open_run(directory).notes == {}
    with store.create_or_resume(directory, manifest, masks) as run:
        run.note('vmapped', 4)
        run.note('other', 'text')
    assert store.open_run(directory).notes == {'vmapped': 4, 'other': 'text'}
    (directory / 'notes.json').write_text('[1]')
    with pytest.raises(store.CorruptRun, match=r'notes\.json is damaged; delete it'):
        _ = store.open_run(directory).notes


def test_texts_of_targets(directory, manifest, masks, one_line):
    texts = [f'<b>{n}</b>\n"é"' for n in range(len(manifest.target_ids))]
    with store.create_or_resume(directory, manifest, masks) as run:
        with pytest.raises(ValueError, match='3 texts for 7 targets'):
            run.write_texts('written', texts[:3])
        run.write_texts('written', texts[::-1])
        run.write_texts('written', texts)
    run = store.open_run(directory)
    assert run.texts('written') == tuple(texts)
    with pytest.raises(ValueError, match='reading only'):
        run.write_texts('written', texts)
    assert 'other.json is missing; delete' in one_line(store.CorruptRun, run.texts, 'other')
    file = directory / 'texts' / 'written.json'
    for damaged in (file.read_text().replace('<b>3', '<b>4'), '[]', '{', '{"texts": 1}'):
        file.write_text(damaged)
        assert 'written.json is damaged; delete' in one_line(store.CorruptRun, run.texts, 'written')


def test_a_read_only_run_agrees_with_the_one_that_writes(directory, manifest, masks, values):
    with store.create_or_resume(directory, manifest, masks) as run:
        other = store.ReadOnlyRun(directory, manifest, masks, run.member_status)
        values['loss'][9, 0] = np.nan
        before = sorted(directory.rglob('*'))
        for one in (other, run):
            assert sorted(directory.rglob('*')) == before  # the other has written nothing
            one.write(np.array([9, 11]), {name: rows[[9, 11]] for name, rows in values.items()})
            one.note('vmapped', 2)
            one.write_texts('written', [''] * len(manifest.target_ids))
            one.write_shown(store.Shown(names=manifest.example_ids))
            one.require_in_place()
        same = ('member_status', 'missing', 'complete', 'diverged', 'example_ids', 'measurements')
        for name in same:
            np.testing.assert_array_equal(getattr(other, name), getattr(run, name))
        assert other.directory == run.directory
        np.testing.assert_array_equal(other.masks, run.masks)
        assert other.diverged.tolist() == [9]
