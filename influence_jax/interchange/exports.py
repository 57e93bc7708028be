"""Out: what was measured and estimated, in the formats that other programs read."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from influence_jax.estimators import Estimator, Summary
from influence_jax.estimators.ensemble import finite_rows
from influence_jax.interchange.feldman_zhang import MASK, OF_EXAMPLES, OF_TESTS
from influence_jax.interchange.output import MARK, check_output, required, writing
from influence_jax.report.csv_files import csv_file, id_cell, text_cell
from influence_jax.report.results import Results
from influence_jax.report.run import ReportedRun, examples_of_targets, measurement_names
from influence_jax.report.tables import pair_lines
from influence_jax.text import clean, quoted

if TYPE_CHECKING:
    import networkx
    import xarray

TABLES = "pip install 'influence_jax[tables]'"
_NETCDF_BYTES = 2**31
_LONGEST_ID = 1000
_PER_TARGET = (
    'self_influence',
    'self_standard_error',
    'effective_members',
    'margin',
    'floored_margin',
    'z_margin',
    'strongest_other',
    'other_value',
    'other_standard_error',
    'other_cross_fitted',
    'other_stands_out',
    'mean',
    'standard_deviation',
    'skewness',
    'kurtosis',
    'null_standard_error',
)


class Entries(NamedTuple):
    """A summary of an influence matrix, and what its examples and targets are called.

    summary: of every target's influence distribution.
    example_ids, example_names, example_labels: `[N]`; a label is '' where there is none.
    target_ids: `[T]`.
    target_examples: `[T]` the example that each target is, -1 where it is none.
    """

    summary: Summary
    example_ids: Sequence[str]
    example_names: Sequence[str]
    example_labels: Sequence[str]
    target_ids: Sequence[str]
    target_examples: Int[np.ndarray, ' T']

    @classmethod
    def of_results(cls, results: Results) -> 'Entries':
        """Returns those of a report."""
        return cls(
            results.summary,
            results.example_ids,
            tuple(map(results.full_name, range(results.num_examples))),
            results.example_labels,
            results.target_ids,
            results.overview.target_examples,
        )

    @classmethod
    def of_run(cls, run: ReportedRun, summary: Summary) -> 'Entries':
        """Returns those of a run, and of what was estimated from it."""
        shown = getattr(run, 'shown', None)
        return cls(
            summary,
            run.example_ids,
            shown.names if shown else run.example_ids,
            shown.labels if shown else ('',) * len(run.example_ids),
            run.target_ids,
            examples_of_targets(run),
        )

    def target_name(self, target: int) -> str:
        """Returns the name of the target's example, else the target's id."""
        example = int(self.target_examples[target])
        return self.target_ids[target] if example < 0 else self.example_names[example]


def as_xarray(run: ReportedRun, summary: Summary | None = None) -> 'xarray.Dataset':
    """Returns masks, measurements and each target's summary, with their ids as coordinates.

    Raises:
        ImportError: xarray is not installed.
    """
    xarray = required('xarray', TABLES)
    names = measurement_names(run)
    arrays: dict[str, Any] = {
        'mask': (('member', 'example'), run.masks),
        **{name: (('member', 'target'), run.measurement(name)) for name in names},
    }
    if summary is not None:
        of_targets = per_target(summary)
        arrays |= {name: (('target',), values) for name, values in of_targets.items()}
    manifest = getattr(run, 'manifest', None)
    return xarray.Dataset(
        arrays,
        coords={
            'member': np.arange(len(run.masks)),
            # Objects: in an array of texts every id takes as much as the longest.
            'example': np.array(run.example_ids, object),
            'target': np.array(run.target_ids, object),
        },
        attrs={
            'directory': str(getattr(run, 'directory', None) or ''),
            'command': getattr(manifest, 'command', ''),
        },
    )


def write_netcdf(path: str | Path, run: ReportedRun, summary: Summary | None = None) -> Path:
    """Writes `as_xarray` as netCDF 3, which needs nothing but SciPy and xarray to be read.

    Of an id of more than 1,000 characters, the beginning and a digest are written.

    Raises:
        ImportError: xarray is not installed.
        ValueError: an array is too large for the format.
        FileExistsError: the path holds what is no earlier export.
    """
    path = check_output(path)
    found = as_xarray(run, summary)
    found = found.assign_coords(
        {name: [_short(one) for one in found[name].values] for name in ('example', 'target')}
    )
    for name, values in found.variables.items():
        if values.nbytes >= _NETCDF_BYTES:
            raise ValueError(
                f'{name} has {values.nbytes / 2**30:.1f} GiB, more than an array of netCDF 3 may '
                f'have: export as parquet, or use run.to_xarray()'
            )
    content = found.assign_attrs({MARK: 'netcdf'}).to_netcdf(engine='scipy')
    with writing(path) as file:
        file.write(content)
    return path


def _short(identity: str) -> str:
    """Returns an id; a digest ends long ones, so that different ones stay different."""
    if len(identity) <= _LONGEST_ID:
        return identity
    digest = hashlib.sha256(identity.encode(errors='surrogatepass')).hexdigest()
    return f'{identity[:_LONGEST_ID]} sha256 {digest[:16]}'


def write_npz(path: str | Path, run: ReportedRun) -> Path:
    """Writes masks and correctness in the layout of Feldman and Zhang, see `read_feldman_zhang`.

    `trainset_correctness` is of the examples, in their order, where all of them are targets;
    `testset_correctness` of the targets that are no examples. Members without a finite measurement
    are left out. Ids stand beside them, as `example_ids` and `test_ids`, unless one is very long.

    Raises:
        ValueError: the run does not say which members are right.
        FileExistsError: the path holds what is no earlier export.
    """
    path = check_output(path)
    correct = _correctness(run)
    complete = finite_rows(correct)
    right, target_examples = correct[complete] > 0, examples_of_targets(run)
    place = np.full(len(run.example_ids), -1)
    place[target_examples[target_examples >= 0]] = np.flatnonzero(target_examples >= 0)
    tests = np.flatnonzero(target_examples < 0)
    arrays: dict[str, Any] = {}
    if (place >= 0).all():
        arrays[OF_EXAMPLES] = right[:, place]
    if tests.size:
        arrays[OF_TESTS] = right[:, tests]
    if not arrays:
        raise ValueError(
            f'{(place < 0).sum():,} of {place.size:,} examples are no targets, so their '
            f'correctness is not known: export as netcdf or parquet'
        )
    arrays |= {MARK: np.array('npz'), MASK: run.masks[complete]}
    test_ids = [run.target_ids[test] for test in tests.tolist()]
    for name, ids in (('example_ids', run.example_ids), ('test_ids', test_ids)):
        # In an array every id takes as much as the longest.
        if 0 < max(map(len, ids), default=0) <= _LONGEST_ID:
            arrays[name] = np.array(ids)
    with writing(path) as file:
        np.savez_compressed(file, **arrays)
    return path


def _correctness(run: ReportedRun) -> Float[np.ndarray, 'M T']:
    """Returns 1 where a member is right on a target, 0 where it is wrong, NaN where missing."""
    names = measurement_names(run)
    values = run.measurement('correct') if 'correct' in names else 1 - run.measurement('loss')
    known = values[finite_rows(values)]
    if not (known.size and np.isin(known, (0, 1)).all()):
        raise ValueError(
            f'the layout of Feldman and Zhang holds which members are right, and the run measures '
            f'{", ".join(names)}: export as netcdf or parquet'
        )
    return values


def write_parquet(directory: str | Path, entries: Entries) -> tuple[Path, ...]:
    """Writes `targets.parquet` (a line a target) and `pairs.parquet` (the significant entries).

    Raises:
        ImportError: pyarrow is not installed.
        FileExistsError: the directory holds other files of these names.
    """
    pyarrow = required('pyarrow', TABLES)
    parquet = required('pyarrow.parquet', TABLES)
    directory = Path(directory)
    tables = {'targets': _target_columns(entries), 'pairs': _pair_columns(entries)}
    paths = tuple(map(check_output, parquet_files(directory)))
    for path, (name, columns) in zip(paths, tables.items(), strict=True):
        table = pyarrow.table(columns).replace_schema_metadata({MARK: name})
        with writing(path) as file:
            parquet.write_table(table, file)
    return paths


def parquet_files(directory: Path) -> tuple[Path, ...]:
    """Returns the paths of these files.

    Raises:
        FileExistsError: the directory is a file.
    """
    if directory.exists() and not directory.is_dir():
        raise FileExistsError(f'{directory} is a file: give a directory for the Parquet files')
    return tuple(directory / f'{name}.parquet' for name in ('targets', 'pairs'))


def per_target(summary: Summary) -> Mapping[str, np.ndarray]:
    """Returns the fields of a summary that have one entry a target."""
    return {name: getattr(summary, name) for name in _PER_TARGET}


def _target_columns(entries: Entries) -> dict[str, Any]:
    ids = np.array(entries.example_ids, object)
    return {
        'target': list(entries.target_ids),
        **per_target(entries.summary),
        'strongest_other_id': ids[entries.summary.strongest_other],
    }


def _pair_columns(entries: Entries) -> dict[str, Any]:
    pairs = entries.summary.pairs
    examples, targets = (np.array(ids, object) for ids in (entries.example_ids, entries.target_ids))
    return {
        'example': examples[pairs.examples],
        'target': targets[pairs.targets],
        'influence': pairs.values,
        'standard_error': pairs.standard_errors,
        'cross_fitted': pairs.cross_fitted,
        'low': pairs.low,
        'high': pairs.high,
    }


def as_graph(entries: Entries) -> 'networkx.DiGraph':
    """Returns the significant pairs as a directed graph, from the example to the target.

    Nodes are the examples and targets of at least one pair, with `id`, `name`, `label`,
    `self_influence` and `margin`; a target that is an example is one node with it. Edges have
    `influence`, `standard_error`, `low` and `high` (the interval adjusted for the selection) and
    `p_value`. What is not defined, or infinite, is left out.

    Raises:
        ImportError: networkx is not installed.
    """
    graph = required('networkx', 'pip install networkx').DiGraph()
    graph.graph[MARK] = 'graphml'
    summary, pairs = entries.summary, entries.summary.pairs
    target_of = {int(e): t for t, e in enumerate(entries.target_examples) if e >= 0}

    def node(example: int, target: int | None) -> str:
        """Adds the node of an example, or of a target that is none, and returns its key."""
        key = f'example {example}' if example >= 0 else f'target {target}'
        if key not in graph:
            target = target_of.get(example) if example >= 0 else target
            graph.add_node(key, **dict(attributes(example, target)))
        return key

    def attributes(example: int, target: int | None) -> Iterator[tuple[str, Any]]:
        if example >= 0:
            yield 'id', clean(entries.example_ids[example])
            yield 'name', clean(entries.example_names[example])
            yield 'label', clean(entries.example_labels[example])
        else:
            assert target is not None
            yield 'id', clean(entries.target_ids[target])
            yield 'name', clean(entries.target_ids[target])
        if target is not None:
            for name in ('self_influence', 'margin'):
                yield from known(name, getattr(summary, name)[target])

    def known(name: str, value: np.floating) -> Iterator[tuple[str, float]]:
        if np.isfinite(value):
            yield name, float(value)

    for place in range(len(pairs.examples)):
        example, target = int(pairs.examples[place]), int(pairs.targets[place])
        edge = {
            'influence': pairs.values,
            'standard_error': pairs.standard_errors,
            'low': pairs.low,
            'high': pairs.high,
            'p_value': pairs.p_values,
        }
        ends = node(example, None), node(int(entries.target_examples[target]), target)
        values = (known(name, of[place]) for name, of in edge.items())
        graph.add_edge(*ends, **{name: value for one in values for name, value in one})
    return graph


def write_graphml(path: str | Path, entries: Entries) -> Path:
    """Writes `as_graph` as GraphML, which Gephi, Cytoscape and others open.

    Raises:
        ImportError: networkx is not installed.
        FileExistsError: the path holds what is no earlier export.
    """
    path = check_output(path)
    graph = as_graph(entries)
    with writing(path) as file:
        required('networkx', 'pip install networkx').write_graphml(graph, file)
    return path


def write_pairs_csv(path: str | Path, entries: Entries) -> Path:
    """Writes the significant pairs, in the columns of a report's `pairs.csv`."""
    text = pair_lines(
        entries.summary.pairs,
        entries.example_ids,
        entries.target_ids,
        entries.example_names,
        tuple(map(entries.target_name, range(len(entries.target_ids)))),
    )
    return _write_csv(path, text)


def write_column_csv(
    path: str | Path, run: ReportedRun, target: str, *, estimator: Estimator
) -> Path:
    """Writes the influence of every example on one target, and its standard error.

    Args:
        path: of the file.
        run: masks and losses.
        target: its id, or its position.
        estimator: of the influences.

    Raises:
        ValueError: there is no such target, or there are too few members.
        FileExistsError: the path holds what is no such file.
    """
    values, errors = estimator.of_targets(
        run.masks,
        run.measurement(),
        np.array([_position(run.target_ids, target)]),
        target_examples=examples_of_targets(run),
    )
    shown = getattr(run, 'shown', None)
    names = shown.names if shown else run.example_ids

    def texts(example: int) -> Iterator[str]:
        yield id_cell(run.example_ids[example])
        yield text_cell(names[example])

    numbers = {
        'influence': np.asarray(values)[:, 0],
        'standard_error': np.asarray(errors)[:, 0],
    }
    text = csv_file(('example', 'example_name'), texts, numbers, rows=len(run.example_ids))
    return _write_csv(path, text)


def _position(ids: Sequence[str], target: str) -> int:
    if target in ids:
        return ids.index(target)
    if target.isdecimal() and int(target) < len(ids):
        return int(target)
    raise ValueError(
        f'there is no target of the id {quoted(target)}, nor at that position: ids are such as '
        f'{quoted(ids[0])}'
    )


def _write_csv(path: str | Path, text: str) -> Path:
    path = check_output(path, csv=True)
    with writing(path) as file:
        file.write(text.encode(errors='replace'))
    return path
