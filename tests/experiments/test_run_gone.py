"""A run directory that is deleted while members are trained: one line, and no half of it again."""

import shutil
import time

import numpy as np
import pytest

from influence_jax import store, training
from influence_jax.training import Trained


@pytest.mark.parametrize('keep_params', [False, True])
@pytest.mark.parametrize('last', [False, True])
def test_members_are_not_recorded_in_what_is_gone(run_here, monkeypatch, keep_params, last):
    """Whether it goes before members are recorded, or after the last ones."""
    run, directory = run_here

    def made_up(program, *, members, masks, targets, **_):
        losses = np.random.default_rng(0).random((len(masks), len(targets['label'])), np.float32)
        for number, chunk in enumerate(np.array_split(np.asarray(members), 3)):
            if number == 1 and not last:
                shutil.rmtree(directory)
            rows = dict.fromkeys(program.task.measurements, losses[chunk])
            yield Trained(chunk, training.Member(rows, {'w': np.zeros((len(chunk), 2))}))
        shutil.rmtree(directory)

    monkeypatch.setattr(training, 'train', made_up)
    with pytest.raises(store.RunGone, match='deleted'):
        run(keep_params=keep_params)
    assert not directory.exists()


@pytest.mark.slow
def test_a_launch_says_in_one_line_that_its_run_is_gone(start, small, tmp_path):
    directory = tmp_path / 'run'
    process = start(*small, f'--output_dir={directory}')
    try:
        while not list(directory.glob('status.zarr/c.[0-9]')):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        directory.rename(tmp_path / 'moved')
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith(f'error: {directory} was deleted, moved or replaced')
    assert 'Traceback' not in errors
    assert not directory.exists()
