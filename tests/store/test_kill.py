"""Killed at any moment, a run loses the members under way and no other."""

import random
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from influence_jax import store
from influence_jax.store import arrays

MEMBERS, TARGETS, ROUNDS = 2000, 1567, 8
NAMES = ('loss', 'logit_gap', 'correct')

# The child and the test agree on what a member's rows are.
ROWS = f"""
import numpy as np
def rows(members):
    ramp = np.arange({TARGETS}, dtype=np.float32) / 1024
    return {{
        name: members[:, None].astype(np.float32) + 10_000 * (k + 1) + ramp[None]
        for k, name in enumerate({NAMES!r})
    }}
def diverges(members):
    return members % 10 == 3
"""
CHILD = f"""
import pathlib, sys
from influence_jax import store
{ROWS}
here = pathlib.Path(sys.argv[1])
manifest = store.Manifest.from_json((here / 'manifest.json').read_text())
masks = np.load(here / 'masks.npy')
print('ready', flush=True)
with store.create_or_resume(here / 'run', manifest, masks) as run:
    print('made', flush=True)
    missing = run.missing
    for start in range(0, len(missing), 8):
        members = missing[start : start + 8]
        values = rows(members)
        values['loss'][diverges(members), 0] = np.nan
        run.write(members, values)
print('done', flush=True)
"""
_shared: dict = {}
exec(ROWS, _shared)


def _check(run):
    """Complete rows are right, all others NaN; returns how many are complete."""
    expected = _shared['rows'](np.arange(MEMBERS))
    for name in NAMES:
        found = run.measurement(name)
        np.testing.assert_array_equal(found[run.complete], expected[name][run.complete])
        others = np.concatenate([run.missing, run.diverged])
        assert np.isnan(found[others]).all()
    assert _shared['diverges'](run.diverged).all()
    assert not _shared['diverges'](run.complete).any()
    return len(run.complete)


def _child_until_killed(here, seconds, *, after):
    child = subprocess.Popen(
        [sys.executable, '-c', CHILD, here],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,  # so that what is not yet read can be waited for
    )
    try:
        line = None
        while line != after:
            assert select.select([child.stdout], [], [], 60)[0], 'the child says nothing'
            line = child.stdout.readline()
            assert line, child.stderr.read().decode()
        time.sleep(seconds)
    finally:
        child.send_signal(signal.SIGKILL)
        _, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, errors.decode()


@pytest.mark.slow
def test_sigkill_at_random_moments(tmp_path, changed_manifest):
    masks = np.random.default_rng(0).random((MEMBERS, 10)) < 0.5
    ids = tuple(map(str, range(TARGETS)))
    manifest = changed_manifest(members=MEMBERS, target_ids=ids, measurements=NAMES)
    (tmp_path / 'manifest.json').write_text(manifest.to_json())
    np.save(tmp_path / 'masks.npy', masks)
    moments = random.Random(0)
    counts = []
    for killed in range(ROUNDS):
        # The first rounds are killed while the run is made.
        after, longest = (b'ready\n', 0.02) if killed < 2 else (b'made\n', 0.2)
        _child_until_killed(tmp_path, moments.uniform(0, longest), after=after)
        try:
            run = store.open_run(tmp_path / 'run')
        except store.NotARun:
            assert not counts or counts[-1] == 0, 'a run was lost'
            counts.append(0)
            continue
        np.testing.assert_array_equal(run.masks, masks)
        counts.append(_check(run))
    assert counts == sorted(counts), 'members were lost'
    assert 0 < counts[-1] < MEMBERS * 0.9, f'nothing was interrupted: {counts}'

    with store.create_or_resume(tmp_path / 'run', manifest, masks) as run:
        members = run.missing
        values = _shared['rows'](members)
        values['loss'][_shared['diverges'](members), 0] = np.nan
        run.write(members, values)
    run = store.open_run(tmp_path / 'run')
    assert len(run.missing) == 0
    assert _check(run) == MEMBERS * 9 // 10


@pytest.mark.parametrize('stop_at', range(5))
def test_a_members_status_is_written_after_all_its_rows(
    directory, manifest, masks, values, record, monkeypatch, stop_at
):
    """Stopped before any of the five arrays' writes, the member is missing, not wrong."""
    real = arrays.write_rows
    reached = []

    def stopping(rows, pairs):
        for array, table in pairs:
            if len(reached) == stop_at:
                raise KeyboardInterrupt
            reached.append(array.path.name)
            real(rows, [(array, table)])

    monkeypatch.setattr('influence_jax.store.run.write_rows', stopping)
    with (
        pytest.raises(KeyboardInterrupt),
        store.create_or_resume(directory, manifest, masks) as run,
    ):
        record(run, 8)
    monkeypatch.undo()
    assert 'status.zarr' not in reached
    np.testing.assert_array_equal(store.open_run(directory).missing, [8, 9, 10, 11])
    with store.create_or_resume(directory, manifest, masks) as run:
        record(run, 8, 9, 10, 11)
    np.testing.assert_array_equal(store.open_run(directory).measurement(), values['loss'])


def test_a_run_interrupted_while_made_is_none(tmp_path, manifest, masks, monkeypatch):
    """Stopped before each of the steps that make it, the directory is no run, and mendable."""
    from influence_jax.store import layout

    class Stopped(BaseException):
        pass

    for step, name in enumerate(['write_atomically', 'sync_directory', 'make_directory']):

        def stop(*arguments):
            raise Stopped

        directory = tmp_path / str(step)
        monkeypatch.setattr(layout, name, stop)
        with pytest.raises(Stopped):
            store.create_or_resume(directory, manifest, masks)
        monkeypatch.undo()
        with pytest.raises(store.NotARun):
            store.open_run(directory)
        store.create_or_resume(directory, manifest, masks).close()
        np.testing.assert_array_equal(store.open_run(directory).masks, masks)
