"""A run that is killed at any moment ends, by the same command, as one that was left alone."""

import random
import signal
import time

import numpy as np
import pytest

from influence_jax import store

KILLS = 10


def _recorded(directory):
    """When each member's status was written; a file beside it, under a lock, may go at any time."""
    written = (path for path in directory.glob('status.zarr/c.*') if path.suffix[1:].isdigit())
    return sorted(path.stat().st_mtime for path in written)


@pytest.mark.slow
def test_ten_kills_and_a_resume(finished, start, launch, small, tmp_path):
    directory = tmp_path / 'run'
    undisturbed = finished[1]
    command = [*small, f'--output_dir={directory}']
    times = _recorded(undisturbed)
    members = len(times)
    seconds_a_chunk = 4 * (times[-1] - times[0]) / members
    moments = random.Random(0)
    counts = [0]
    for kill in range(KILLS):
        process = start(*command)
        try:
            # From here on it trains: that is, it compiles first.
            while 'training on' not in (line := process.stderr.readline()):
                assert line, process.communicate()
            # Each second time at least a chunk is waited for, so that there is progress.
            least = counts[-1] + kill % 2
            while len(_recorded(directory)) < least and process.poll() is None:
                time.sleep(0.001)
            time.sleep(moments.uniform(0, 1.2 * seconds_a_chunk))
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        run = store.open_run(directory)
        assert len(run.complete) + len(run.missing) == members
        counts.append(len(run.complete))
        finite = np.isfinite(run.measurement('loss')).all(axis=1)
        np.testing.assert_array_equal(np.flatnonzero(finite), run.complete)
    assert counts == sorted(counts), 'members were lost'
    assert 0 < counts[-1] < members, f'nothing was interrupted: {counts}'

    process = launch(*command)
    assert process.returncode == 0, process.stderr
    assert f'continuing: {counts[-1]} of {members} members are there' in process.stderr
    resumed, whole = store.open_run(directory), store.open_run(undisturbed)
    assert len(resumed.complete) == members
    np.testing.assert_array_equal(resumed.masks, whole.masks)
    for name in whole.manifest.measurements:
        np.testing.assert_array_equal(resumed.measurement(name), whole.measurement(name))
    targets = [path / 'report' / 'targets.csv' for path in (directory, undisturbed)]
    assert targets[0].read_text() == targets[1].read_text()
