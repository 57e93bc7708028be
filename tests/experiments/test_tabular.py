"""The launch for tables: a small run from flags to the page, and what it refuses."""

import numpy as np
import pytest

from experiments.settings import AnalysisSettings, EnsembleSettings, MachineSettings
from experiments.tabular import TableSettings, TabularExperiment, run, table
from influence_jax import open_run
from influence_jax.training import Recipe


@pytest.mark.slow
def test_a_small_run(launch, tmp_path):
    directory = tmp_path / 'run'
    done = launch(
        '--dataset=wine',
        '--width=8',
        '--members=64',
        '--epochs=5',
        '--streams=1',
        '--keep_params',
        '--attribution=Cosine,ekfac',
        '--attribution_models=2',
        '--assisted',
        f'--output_dir={directory}',
        name='tabular',
    )
    assert done.returncode == 0, done.stderr
    assert 'gradient cosine' in done.stdout
    header, *lines = (directory / 'report' / 'attribution.csv').read_text().splitlines()
    assert 'cosine_margin' in header
    assert 'ekfac_strongest_other' in header
    assert len(lines) == 178
    assert 'estimator: assisted' in done.stdout
    (scores,) = (directory / 'scores').glob('ekfac-*.npy')
    assert np.load(scores).shape == (178, 178)
    assert f'report: {directory}/report/index.html' in done.stdout
    found = open_run(directory)
    assert found['loss'].shape == (64, 178)
    assert found.example_ids[3] == 'wine-3'
    assert 'malic_acid' in found.shown.columns
    assert found.task().make_module.hidden == (8,)
    assert found['loss'][found.masks].mean() < found['loss'][~found.masks].mean()
    assert 'malic_acid' in (directory / 'report' / 'index.html').read_text()


def test_a_table_that_is_not_there(launch, tmp_path, assert_refused):
    directory = tmp_path / 'run'
    refused = launch('--dataset=iris', f'--output_dir={directory}', name='tabular')
    assert_refused(refused, '--dataset=iris: choose one of breast_cancer, digits, wine')
    assert not directory.exists()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'recipe': Recipe(batch_size=150)}, 'fewer than batch_size=150'),
        ({'ensemble': EnsembleSettings(members=3)}, '3 members are too few'),
        (
            {'analysis': AnalysisSettings(until_standard_error=0.1, max_members=40)},
            'members=40 are too few',
        ),
        ({'analysis': AnalysisSettings(attribution='dot')}, '--attribution=dot .* --keep_params'),
    ],
)
def test_bad_input_leaves_nothing_behind(tmp_path, changes, message):
    settings = {
        'table': TableSettings('wine'),
        'machine': MachineSettings(streams=1, output_dir=str(tmp_path / 'run')),
    }
    with pytest.raises(ValueError, match=message) as caught:
        run(TabularExperiment(**settings | changes))
    assert '\n' not in str(caught.value)
    assert not (tmp_path / 'run').exists()


def test_methods_of_attribution_are_looked_up_at_once():
    assert [one.method.name for one in AnalysisSettings(attribution='dot, TRAK').methods()] == [
        'dot',
        'trak',
    ]
    with pytest.raises(ValueError, match="no attribution method 'magic': use one of dot"):
        AnalysisSettings(attribution='dot,magic')
    with pytest.raises(ValueError, match='attribution_models must be at least 1, not 0'):
        AnalysisSettings(attribution_models=0)
    with pytest.raises(ValueError, match=r'--assisted is of scores.* --attribution'):
        AnalysisSettings(assisted=True)


def test_a_network_without_width():
    with pytest.raises(ValueError, match='width=0 must be at least 1'):
        TableSettings(width=0)


@pytest.mark.slow
def test_the_larger_table(launch, tmp_path):
    done = launch(
        '--members=24', '--epochs=2', '--streams=1', f'--output_dir={tmp_path}', name='tabular'
    )
    assert done.returncode == 0, done.stderr
    assert open_run(tmp_path)['loss'].shape == (24, 569)


def test_pixels_that_never_change_are_zero():
    digits = table('digits')
    features = digits.array('features')
    assert features.shape == (1797, 64)
    assert digits.num_classes == 10
    assert np.isfinite(features).all()
    constant = features.std(axis=0) == 0
    assert constant.any()
    assert not features[:, constant].any()
