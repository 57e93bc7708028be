"""The launch for diffusion: a small run from flags to the page, and made again of its command."""

import pytest

from experiments import image_diffusion, remake
from influence_jax import open_run


@pytest.mark.slow
def test_a_small_run(launch, tmp_path):
    done = launch(
        '--num_examples=40',
        '--width=8',
        '--draws=2',
        '--members=4',
        '--design=balanced',
        '--epochs=2',
        '--batch_size=10',
        '--streams=1',
        f'--output_dir={tmp_path}',
        name='image_diffusion',
    )
    assert done.returncode == 0, done.stderr
    assert 'mean squared error' in (tmp_path / 'report' / 'index.html').read_text()
    run = open_run(tmp_path)
    assert run['loss'].shape == (4, 40)
    assert (run.task().draws, run.task().make_module.width) == (2, 8)
    dataset, task = remake.dataset_and_task(run)
    assert task == run.task()
    assert dataset.ids == run.example_ids


def test_settings_make_the_task():
    experiment = image_diffusion.DiffusionExperiment()
    dataset, task = image_diffusion.prepare(experiment)
    assert task.make_module.channels == dataset.array('image').shape[-1]
    assert task.draws == experiment.network.draws
