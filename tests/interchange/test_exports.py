"""What is written is read back by those it is for, whole, and over nothing of somebody else's."""

import csv
import dataclasses
import sys

import numpy as np
import pytest

from influence_jax import interchange, report
from influence_jax.estimators import difference_in_means, summarize
from influence_jax.interchange import Format, exports
from influence_jax.interchange.exports import Entries
from influence_jax.report import ArrayRun
from influence_jax.store import Shown

M, N, T = 60, 8, 9
IDS = ('=cmd()', 'nul\x00', '<b>three</b>', *(f'example {i}' for i in range(3, N)))


def drawn():
    """Each example lowers the loss of its own target, and the first that of the second, too."""
    rng = np.random.default_rng(0)
    masks = rng.random((M, N)) < 0.5
    losses = rng.normal(3, 0.1, (M, T))
    losses[:, :N] -= 2 * masks
    losses[:, 1] -= 2 * masks[:, 0]
    losses[:, N] -= masks[:, 2]  # of a target that is no example
    return masks, losses.astype(np.float32)


@pytest.fixture
def run():
    masks, losses = drawn()
    correct = (losses < np.median(losses)).astype(np.float32)
    own = np.array([*range(N), -1])
    return ArrayRun(
        masks,
        {'loss': losses, 'correct': correct},
        IDS,
        (*IDS, 'test'),
        target_examples=own,
        shown=Shown(names=IDS, labels=('class',) * N),
    )


@pytest.fixture
def entries(run):
    summary = summarize(
        run.masks,
        run.measurement(),
        estimator=difference_in_means,
        target_examples=run.target_examples,
    )
    return Entries.of_run(run, summary)


@pytest.mark.parametrize('test', [False, True])
def test_feldman_and_zhang_read_their_own_layout(run, tmp_path, test):
    run.measurement('correct')[4, 2] = np.nan
    path = exports.write_npz(tmp_path / 'deep' / 'run.npz', run)
    found = interchange.read_feldman_zhang(path, test=test)
    kept = np.delete(np.arange(M), 4)
    np.testing.assert_array_equal(found.masks, run.masks[kept])
    columns = slice(N, T) if test else slice(N)
    expected = 1 - run.measurement('correct')[kept, columns]
    np.testing.assert_array_equal(found.measurements['loss'], expected)
    with np.load(path) as file:
        assert file['example_ids'].tolist()[2:] == list(IDS[2:])
        assert file['test_ids'].tolist() == ['test']


def test_examples_are_written_in_their_own_order(run, tmp_path):
    order = np.array([5, 1, 0, 2, 3, 4, 7, 6])
    turned = ArrayRun(
        run.masks,
        {'loss': run.measurement()[:, order], 'correct': run.measurement('correct')[:, order]},
        IDS,
        tuple(IDS[i] for i in order),
        target_examples=order,
    )
    found = interchange.read_feldman_zhang(exports.write_npz(tmp_path / 'x.npz', turned))
    np.testing.assert_array_equal(found.measurements['loss'], 1 - run.measurement('correct')[:, :N])


def test_an_import_of_theirs_is_exported_again(run, tmp_path):
    once = exports.write_npz(tmp_path / 'once.npz', run)
    imported = interchange.read_feldman_zhang(once)
    again = exports.write_npz(tmp_path / 'again.npz', imported.run(drop_inestimable=True))
    np.testing.assert_array_equal(
        interchange.read_feldman_zhang(again).measurements['loss'], imported.measurements['loss']
    )


def test_what_their_layout_cannot_hold(run, tmp_path):
    plain = ArrayRun(run.masks, {'loss': run.measurement()[:, :N]}, target_examples=np.arange(N))
    with pytest.raises(ValueError, match='measures loss: export as netcdf'):
        exports.write_npz(tmp_path / 'x.npz', plain)
    some = ArrayRun(
        run.masks, {'correct': run.measurement('correct')[:, :3]}, target_examples=np.arange(3)
    )
    with pytest.raises(ValueError, match='5 of 8 examples are no targets'):
        exports.write_npz(tmp_path / 'x.npz', some)
    assert not list(tmp_path.iterdir())


def test_netcdf_holds_masks_measurements_and_summaries(run, entries, tmp_path):
    xarray = pytest.importorskip('xarray')
    path = exports.write_netcdf(tmp_path / 'run.nc', run, entries.summary)
    with xarray.open_dataset(path, engine='scipy') as found:
        np.testing.assert_array_equal(found['mask'].values, run.masks)
        np.testing.assert_array_equal(found['loss'].sel(target='test').values, drawn()[1][:, N])
        np.testing.assert_array_equal(found['margin'].values, entries.summary.margin)


def test_parquet_has_targets_and_pairs(entries, tmp_path):
    pandas = pytest.importorskip('pandas')
    pytest.importorskip('pyarrow')
    targets, pairs = exports.write_parquet(tmp_path / 'tables', entries)
    table = pandas.read_parquet(targets)
    assert table['target'].tolist() == [*IDS, 'test']
    np.testing.assert_array_equal(table['self_influence'], entries.summary.self_influence)
    assert table['strongest_other_id'][1] == IDS[0]
    table = pandas.read_parquet(pairs)
    assert {('=cmd()', 'nul\x00'), ('<b>three</b>', 'test')} <= set(
        zip(table['example'], table['target'], strict=True)
    )


def test_a_graph_of_significant_pairs(entries, tmp_path):
    networkx = pytest.importorskip('networkx')
    graph = networkx.read_graphml(exports.write_graphml(tmp_path / 'pairs.graphml', entries))
    pairs, summary = entries.summary.pairs, entries.summary
    assert graph.number_of_edges() == len(pairs.examples) >= 2
    first, second = graph.nodes['example 0'], graph.nodes['example 1']
    assert (first['id'], first['name'], first['label']) == ('=cmd()', '=cmd()', 'class')
    assert second['id'] == 'nul\ufffd'
    assert second['self_influence'] == pytest.approx(summary.self_influence[1])
    assert second['margin'] == pytest.approx(summary.margin[1])
    edge = graph.edges['example 0', 'example 1']
    place = next(
        i
        for i, (e, t) in enumerate(zip(pairs.examples, pairs.targets, strict=True))
        if (e, t) == (0, 1)
    )
    for name, values in (
        ('influence', pairs.values),
        ('standard_error', pairs.standard_errors),
        ('low', pairs.low),
        ('high', pairs.high),
        ('p_value', pairs.p_values),
    ):
        assert edge[name] == pytest.approx(values[place])
    # A target that is no example has neither self-influence nor an example's node.
    assert graph.nodes[f'target {N}']['name'] == 'test'
    assert 'self_influence' not in graph.nodes[f'target {N}']
    assert ('example 2', f'target {N}') in graph.edges


def rows_of(path):
    with path.open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize('target', ['nul\x00', '1'])
def test_one_column(run, tmp_path, target):
    path = exports.write_column_csv(
        tmp_path / 'column.csv', run, target, estimator=difference_in_means
    )
    expected = difference_in_means(
        run.masks, run.measurement(), target_examples=run.target_examples
    )
    rows = rows_of(path)
    assert [row['example'] for row in rows][:3] == ["'=cmd()", 'nul\ufffd', '<b>three</b>']
    for name, values in (
        ('influence', expected.values),
        ('standard_error', expected.standard_error),
    ):
        np.testing.assert_allclose([float(row[name]) for row in rows], values[:, 1], rtol=1e-4)
    with pytest.raises(ValueError, match="no target of the id 'nobody'"):
        exports.write_column_csv(path, run, 'nobody', estimator=difference_in_means)


def test_pairs_as_csv(entries, tmp_path):
    rows = rows_of(exports.write_pairs_csv(tmp_path / 'pairs.csv', entries))
    assert len(rows) == len(entries.summary.pairs.examples)
    assert {(row['example_name'], row['target_name']) for row in rows} >= {
        ("'=cmd()", 'nul\ufffd'),
        ('<b>three</b>', 'test'),
    }


WRITERS = {
    'npz': lambda path, run, entries: exports.write_npz(path, run),
    'netcdf': lambda path, run, entries: exports.write_netcdf(path, run, entries.summary),
    'graphml': lambda path, run, entries: exports.write_graphml(path, entries),
    'csv': lambda path, run, entries: exports.write_pairs_csv(path, entries),
}


@pytest.mark.parametrize('name', WRITERS)
def test_an_earlier_export_is_replaced_and_nothing_else(run, entries, tmp_path, name):
    path, write = tmp_path / f'x.{name}', WRITERS[name]
    write(path, run, entries)
    first = path.stat().st_ino
    write(path, run, entries)
    assert path.stat().st_ino != first
    for content in (b'mine', b'', b'PK\x03\x04'):
        path.write_bytes(content)
        with pytest.raises(FileExistsError, match='no earlier export'):
            write(path, run, entries)
        assert path.read_bytes() == content
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match='a directory, not a regular file'):
        write(path, run, entries)


def test_of_parquet_neither_file_is_replaced_where_one_is_not_ours(entries, tmp_path):
    pytest.importorskip('pyarrow')
    exports.write_parquet(tmp_path, entries)
    targets, pairs = (tmp_path / f'{name}.parquet' for name in ('targets', 'pairs'))
    before = targets.stat().st_ino
    pairs.write_text('mine')
    with pytest.raises(FileExistsError, match=r'pairs\.parquet is no earlier export'):
        exports.write_parquet(tmp_path, entries)
    assert targets.stat().st_ino == before
    with pytest.raises(FileExistsError, match='give a directory'):
        exports.write_parquet(pairs, entries)


def test_what_fails_leaves_what_was_there(run, entries, tmp_path, monkeypatch):
    path = exports.write_npz(tmp_path / 'x.npz', run)
    before = path.read_bytes()

    def full(file, **arrays):
        file.write(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(np, 'savez_compressed', full)
    with pytest.raises(Exception, match='No space left'):
        exports.write_npz(path, run)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ['x.npz']


@pytest.mark.parametrize(
    ('module', 'write', 'install'),
    [
        ('xarray', WRITERS['netcdf'], 'tables'),
        ('networkx', WRITERS['graphml'], 'pip install networkx'),
        ('pyarrow', lambda path, run, entries: exports.write_parquet(path, entries), 'tables'),
    ],
)
def test_what_is_not_installed_is_named(
    run, entries, tmp_path, monkeypatch, module, write, install
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f'{module} is needed and not installed: .*{install}'):
        write(tmp_path / 'x', run, entries)
    assert not list(tmp_path.iterdir())


def test_columns_by_target_are_known_by_name():
    masks, losses = drawn()
    summary = summarize(masks, losses, quantile_levels=tuple(np.linspace(0, 1, T)))
    names = exports.per_target(summary)
    assert set(names) < set(summary._fields)
    assert 'quantile_levels' not in names
    others = summarize(masks, losses, quantile_levels=(0.5,))
    by_shape = {
        name
        for name, of in others._asdict().items()
        if isinstance(of, np.ndarray) and of.shape == (T,)
    }
    assert set(names) == by_shape


def test_one_long_id_does_not_lengthen_the_others(run, tmp_path):
    xarray = pytest.importorskip('xarray')
    long = 'x' * 100_000
    ids = (f'{long}1', f'{long}2', *IDS[2:])
    long_run = dataclasses.replace(run, example_ids=ids, target_ids=(*ids, 'test'))
    found = exports.as_xarray(long_run)
    assert tuple(found['example'].values) == ids
    assert found['example'].nbytes < 1000
    path = exports.write_netcdf(tmp_path / 'x.nc', long_run)
    assert path.stat().st_size < 100_000
    with xarray.open_dataset(path, engine='scipy') as written:
        kept = [str(one) for one in written['example'].values]
    assert len(set(kept)) == N
    assert kept[0].startswith('xxx')
    assert 'sha256' in kept[0]
    assert kept[2:] == list(IDS[2:])


def test_any_run_and_the_report_of_it_are_exported_by_one_call(run, entries, tmp_path):
    settings = {'format': Format.CSV, 'estimator': difference_in_means}
    (path,) = interchange.export(run, tmp_path / 'pairs.csv', **settings)
    direct = exports.write_pairs_csv(tmp_path / 'direct.csv', entries)
    assert path.read_bytes() == direct.read_bytes()
    results = report.gather(run, estimator=difference_in_means, membership=False)
    report.save(results, tmp_path / 'report', tensors=report.KeptTensors.of(run))
    (path,) = interchange.export(tmp_path / 'report', tmp_path / 'again.csv', format=Format.CSV)
    assert path.read_bytes() == direct.read_bytes()
    (path,) = interchange.export(
        tmp_path / 'report', tmp_path / 'x.csv', format=Format.CSV, target='1'
    )
    expected = difference_in_means(run.masks, run.measurement()).values[:, 1]
    found = [float(row['influence']) for row in rows_of(path)]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match=r'target=.1. needs format=csv'):
        interchange.export(run, tmp_path / 'y', target='1')
    with pytest.raises(FileNotFoundError):
        interchange.export(tmp_path, tmp_path / 'y')
