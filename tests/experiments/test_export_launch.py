"""From a directory of a run or of a report to files of other programs."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from absl import flags as absl_flags

from experiments import estimate, export, flags
from experiments.estimate import TensorSettings
from experiments.export import ExportSettings, Format
from influence_jax import Recipe, interchange, report, train_ensemble
from influence_jax.data import Dataset
from influence_jax.estimators import Method, difference_in_means, ridge
from influence_jax.interchange import stored
from influence_jax.models import MLPConfig
from influence_jax.tasks import Classification

pytestmark = pytest.mark.slow  # whole launches

M, N = 24, 12


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    rng = np.random.default_rng(0)
    dataset = Dataset(
        {
            'x': rng.normal(size=(N, 3)).astype(np.float32),
            'label': (np.arange(N) % 2).astype(np.int32),
        },
        ids=[f'=row {i}' for i in range(N)],
    )
    return train_ensemble(
        Classification(MLPConfig(3, 2, (4,)), inputs='x'),
        dataset,
        members=M,
        output_dir=tmp_path_factory.mktemp('trained') / 'run',
        recipe=Recipe(epochs=2, batch_size=2),
    )


@pytest.fixture
def tensors(tmp_path):
    """A directory of a report by `estimate`, with tensors or without."""
    rng = np.random.default_rng(0)
    masks = rng.random((40, N)) < 0.5
    np.save(tmp_path / 'masks.npy', masks)
    np.save(tmp_path / 'losses.npy', rng.normal(3, 1, masks.shape).astype(np.float32) - 9 * masks)

    def make(*, keep):
        settings = TensorSettings(
            masks=str(tmp_path / 'masks.npy'),
            losses=str(tmp_path / 'losses.npy'),
            estimator=difference_in_means,
            keep_tensors=keep,
            output_dir=str(tmp_path / 'report'),
        )
        return str(estimate.run(settings).parent)

    return make


FILES = {
    Format.NPZ: 'x.npz',
    Format.PARQUET: 'x',
    Format.NETCDF: 'x.nc',
    Format.GRAPHML: 'x.graphml',
    Format.CSV: 'x.csv',
}


@pytest.mark.parametrize('form', Format)
def test_every_format_of_a_run(trained, tmp_path, form, capsys):
    output = tmp_path / 'out' / FILES[form]
    written = export.run(str(trained.directory), ExportSettings(form, str(output)))
    assert all(path.stat().st_size for path in written)
    assert capsys.readouterr().out.split() == [str(path) for path in written]
    if form is Format.NPZ:
        found = interchange.read_feldman_zhang(output)
        np.testing.assert_array_equal(found.masks, trained.masks)
        np.testing.assert_array_equal(found.measurements['loss'], 1 - trained['correct'])


@pytest.mark.parametrize('target', ['=row 3', '3'])
def test_a_column_of_a_run_is_its_own(trained, tmp_path, target):
    settings = ExportSettings(Format.CSV, str(tmp_path / 'c.csv'), target)
    (path,) = export.run(str(trained.directory), settings)
    with path.open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert rows[0]['example'] == "'=row 0"
    expected = trained.column('=row 3').values
    np.testing.assert_allclose([float(row['influence']) for row in rows], expected, rtol=1e-4)


def test_a_report_has_summaries_and_with_its_tensors_columns(tensors, tmp_path):
    directory, column = (
        tensors(keep=False),
        ExportSettings(Format.CSV, str(tmp_path / 'c.csv'), '0'),
    )
    export.run(directory, ExportSettings(Format.GRAPHML, str(tmp_path / 'x.graphml')))
    for settings in (column, ExportSettings(Format.NETCDF, str(tmp_path / 'x.nc'))):
        with pytest.raises(ValueError, match='a report without: give the run'):
            export.run(directory, settings)
    (path,) = export.run(tensors(keep=True), column)
    with path.open(newline='') as file:
        (first, *_) = csv.DictReader(file)
    assert float(first['influence']) == pytest.approx(9, abs=1)


def test_settings_that_say_too_little_or_too_much(trained, tmp_path):
    run = str(trained.directory)
    for directory, settings, message in (
        (run, ExportSettings(), '--output is missing'),
        (run, ExportSettings(Format.NPZ, 'x', '3'), 'target=.3. needs format=csv'),
        ('', ExportSettings(output='x'), 'give the directory of a run'),
    ):
        with pytest.raises(ValueError, match=message):
            export.run(directory, settings)


def test_what_is_not_ours_is_refused_before_anything_is_estimated(trained, tmp_path, monkeypatch):
    (tmp_path / 'pairs.parquet').write_text('mine')
    monkeypatch.setattr(stored, 'summarize', lambda *_, **__: pytest.fail('estimated'))
    with pytest.raises(FileExistsError, match=r'pairs\.parquet is no earlier export'):
        export.run(str(trained.directory), ExportSettings(Format.PARQUET, str(tmp_path)))


def test_a_report_of_a_run_is_exported_as_it_was_written(trained, tmp_path):
    page = report.write(trained, directory=tmp_path / 'report', estimator=difference_in_means)
    output = ExportSettings(Format.CSV, str(tmp_path / 'pairs.csv'))
    (path,) = export.run(str(page.parent), output)
    assert path.read_bytes() == (page.parent / 'pairs.csv').read_bytes()


@pytest.mark.parametrize(
    ('form', 'output'),
    [
        (Format.CSV, 'pairs.csv'),
        (Format.CSV, 'figures/pairs.csv'),
        (Format.PARQUET, '.'),
        (Format.GRAPHML, 'results.zarr/x.graphml'),
    ],
)
def test_nothing_is_written_into_a_report(tensors, form, output):
    directory = Path(tensors(keep=True))
    before = sorted(directory.rglob('*'))
    with pytest.raises(FileExistsError, match='give another --output'):
        export.run(str(directory), ExportSettings(form, str(directory / output)))
    assert sorted(directory.rglob('*')) == before


def test_nothing_is_written_into_a_run(trained):
    settings = ExportSettings(Format.PARQUET, str(trained.directory))
    with pytest.raises(FileExistsError, match='give another --output'):
        export.run(str(trained.directory), settings)


def test_a_column_is_by_the_estimator_of_the_report_or_by_none(tensors, tmp_path):
    directory = tensors(keep=True)
    column = ExportSettings(Format.CSV, str(tmp_path / 'c.csv'), '0', ridge)
    with pytest.raises(ValueError, match='estimator=ridge'):
        export.run(directory, column)
    results = report.Results.load(directory)
    summary = results.summary._replace(estimator=Method('mine', 'Mine', 'By me.'))
    other = dataclasses.replace(
        results,
        method=Method('mine', 'Mine', 'By me.'),
        overview=dataclasses.replace(results.overview, summary=summary),
    )
    report.save(other, directory, tensors=report.KeptTensors.load(directory))
    with pytest.raises(ValueError, match='export it from Python'):
        export.run(directory, dataclasses.replace(column, estimator=None))
    assert not (tmp_path / 'c.csv').exists()
    export.run(directory, ExportSettings(Format.CSV, str(tmp_path / 'pairs.csv')))


def test_an_estimator_is_a_flag_of_its_own():
    values = absl_flags.FlagValues()
    flags.define(ExportSettings(), values)
    values(['export', '--output=x'])
    assert flags.read(ExportSettings, values).estimator is None
    values(['export', '--estimator=Ridge'])
    assert flags.read(ExportSettings, values).estimator is ridge
