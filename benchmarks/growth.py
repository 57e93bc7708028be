"""Seconds and bytes of training, store, estimation and report against M, N, T, parameters, devices.

    python -m benchmarks.growth [--stages=train,store,summary,report,masks] [--large]
        [--output=runs/growth/measured.json]

Each point is a process of its own, so that its peak memory is its own; what a file of measurements
has already is not measured again (--again does). Tables and fitted exponents are printed from the
file. Exponents are of processor seconds, which other work on the machine changes less than wall
time; intervals are Student's, 95 %. Only `--large` runs the points that take minutes or gigabytes.
A process may take --most_gib of memory, and what it fails with is recorded.
"""

import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import scipy.stats
from absl import app, flags

_STAGES = flags.DEFINE_list(
    'stages', ['train', 'store', 'summary', 'report', 'masks'], 'which parts of a run'
)
_LARGE = flags.DEFINE_bool('large', False, 'also the points that take minutes or gigabytes')
_OUTPUT = flags.DEFINE_string('output', 'runs/growth/measured.json', 'file of measurements')
_AGAIN = flags.DEFINE_bool('again', False, 'measure what the file has, too')
_MOST_GIB = flags.DEFINE_float('most_gib', 12, 'address space that a point may take')
_POINT = flags.DEFINE_string('point', '', 'measure this point alone, and print it as JSON')

_BASE: dict[str, dict[str, Any]] = {
    'train': {'M': 32, 'N': 2000, 'T': 2000, 'width': 16, 'devices': 2},
    'store': {'M': 200, 'N': 2000, 'T': 20_000},
    'summary': {'M': 500, 'N': 8000, 'T': 4000, 'estimator': 'difference'},
    'adjusted': {'M': 500, 'N': 8000, 'T': 4000, 'estimator': 'adjusted'},
    'report': {'M': 128, 'N': 4000, 'T': 4000},
    'masks': {'M': 200, 'N': 100_000},
}
_LADDERS: dict[str, dict[str, list[int]]] = {
    'train': {
        'M': [16, 32, 64],
        'N': [1000, 2000, 4000],
        'T': [2000, 8000, 16_000],
        'width': [8, 16, 32],
        'devices': [1, 2],
    },
    'store': {
        'M': [100, 200, 400, 800, 1600],
        'N': [2000, 20_000, 200_000],
        'T': [2000, 20_000, 200_000],
    },
    'summary': {
        'M': [125, 250, 500, 1000, 2000],
        'N': [2000, 4000, 8000, 16_000, 32_000],
        'T': [1000, 2000, 4000, 8000, 16_000],
    },
    'adjusted': {
        'M': [125, 250, 500, 1000, 2000],
        'N': [2000, 4000, 8000, 16_000, 32_000],
        'T': [1000, 2000, 4000, 8000],
    },
    'report': {
        'M': [128, 256, 512],
        'N': [4000, 8000, 16_000],
        'T': [1000, 2000, 4000, 8000],
    },
    'masks': {'M': [100, 200, 400, 800], 'N': [50_000, 100_000, 200_000, 400_000]},
}
_LARGEST: dict[str, list[dict[str, Any]]] = {
    'store': [
        {'M': 2000, 'N': 100_000, 'T': 100_000},
        {'M': 10_000, 'N': 1000, 'T': 1000},
        {'M': 20, 'N': 1_000_000, 'T': 1_000_000},
    ],
    'summary': [
        {'M': 1000, 'N': 50_000, 'T': 50_000, 'estimator': 'difference'},
        {'M': 200, 'N': 1_000_000, 'T': 1000, 'estimator': 'difference'},
        {'M': 10_000, 'N': 20_000, 'T': 1000, 'estimator': 'difference'},
    ],
    'adjusted': [
        {'M': 200, 'N': 1_000_000, 'T': 512, 'estimator': 'adjusted'},
        {'M': 10_000, 'N': 20_000, 'T': 1000, 'estimator': 'adjusted'},
    ],
    'report': [
        {'M': 128, 'N': 2000, 'T': 100_000},
        {'M': 128, 'N': 100_000, 'T': 2000},
        {'M': 64, 'N': 1_000_000, 'T': 200},
        {'M': 64, 'N': 200, 'T': 1_000_000},
    ],
    'masks': [{'M': 200, 'N': 1_000_000}],
}
_TERMS: dict[str, dict[str, tuple[str, ...]]] = {
    'train': {'members_cpu': ('M', 'MNP', 'MTP')},
    'store': {
        'create_cpu': ('', 'N', 'T', 'MN'),
        'write_cpu': ('M', 'MT'),
        'open_cpu': ('', 'M', 'N', 'T', 'MN'),
        'read_cpu': ('', 'M', 'MT'),
        'disk_apparent': ('N', 'T', 'M', 'MN', 'MT'),
    },
    'summary': {'summarize_cpu': ('T', 'NT', 'MT', 'MNT'), 'summary_bytes': ('T',)},
    'adjusted': {'summarize_cpu': ('T', 'NT', 'MT', 'MNT')},
    'report': {
        'gather_cpu': ('', 'N', 'MN', 'T', 'MT', 'NT', 'MNT'),
        'save_cpu': ('', 'N', 'T'),
        'page_bytes': ('', 'N', 'T'),
        'targets_csv_bytes': ('', 'T'),
        'results_bytes': ('', 'N', 'T'),
    },
    'masks': {'draw_cpu': ('', 'MN'), 'create_cpu': ('', 'N', 'MN'), 'masks_bytes': ('MN',)},
}
"""What each figure is taken to be a sum of, for sizes beyond those measured: products of axes, of
which P is the number of parameters."""

_AT_LEAST = {'summarize_cpu': {'MNT': 8e-12}}
"""Weights that are known: what looking sums up takes on a core (docs/results/estimator.md), where
the processor has AVX-512. Small sizes do not tell it from the rest."""

_GOALS: dict[str, tuple[dict[str, int], ...]] = {
    'train': (),
    'store': (
        {'M': 1000, 'N': 50_000, 'T': 50_000},
        {'M': 1000, 'N': 1_000_000, 'T': 1_000_000},
        {'M': 10_000, 'N': 1_000_000, 'T': 1_000_000},
    ),
    'report': (
        {'M': 1000, 'N': 50_000, 'T': 50_000},
        {'M': 1000, 'N': 1_000_000, 'T': 100_000},
    ),
}
_GOALS['summary'] = _GOALS['adjusted'] = _GOALS['masks'] = _GOALS['store']
"""Sizes for which figures are extrapolated."""

_PART_OF = {'adjusted': 'summary'}
"""Stages that are asked for by the name of another."""

_FIRST = 24
"""Members that are trained before those that are timed."""
_SIDE = 16
_CLASSES = 10


class Timed:
    """Wall and processor seconds of named parts of a point."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        """Does the work and remembers what it took, as NAME and NAME_cpu."""
        start, cpu = time.perf_counter(), _cpu()
        result = work()
        self.found[name] = time.perf_counter() - start
        self.found[f'{name}_cpu'] = _cpu() - cpu
        return result


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _bytes_under(directory: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in directory.rglob('*') if file.is_file())


def ensemble(members: int, examples: int, targets: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks [M N] and losses [M T]: each target is influenced by two examples."""
    generator = np.random.default_rng(0)
    masks = np.empty((members, examples), bool)
    losses = np.empty((members, targets), np.float32)
    own = np.arange(targets) % examples
    for member in range(members):  # row by row: the peak is to be that of what is measured
        masks[member] = generator.random(examples, np.float32) < 0.5
        losses[member] = generator.gamma(1.5, size=targets)
        losses[member] -= masks[member][own] + 0.5 * masks[member][(own + 1) % examples]
    return masks, losses


class _MembersClock:
    """Remembers when members were done: the first ones wait for compilation."""

    def __init__(self) -> None:
        self._done = [(0, time.perf_counter(), _cpu())]

    def start(self, *, total: int, done: int) -> None:
        del total, done

    def advance(self, members: int) -> None:
        self._done.append((self._done[-1][0] + members, time.perf_counter(), _cpu()))

    def set_total(self, more: int, note: str) -> None:
        del more, note

    def log(self, text: str) -> None:
        del text

    def close(self) -> None:
        pass

    def found(self, first: int) -> dict[str, float]:
        """Seconds until so many members, and from these to the last."""
        begun, end = self._done[0], self._done[-1]
        middle = next(one for one in self._done if one[0] >= first)
        return {
            'first_members': middle[1] - begun[1],
            'first_members_cpu': middle[2] - begun[2],
            'members': end[1] - middle[1],
            'members_cpu': end[2] - middle[2],
        }


def train(timed: Timed, directory: Path, at: Mapping[str, int]) -> dict[str, float]:
    """Trains an ensemble of small ResNets on images of noise."""
    import jax

    import influence_jax as ij
    from influence_jax.models import ResNetConfig
    from influence_jax.training import sequential
    from influence_jax.training.member import abstract_variables

    ij.use_cores(at['devices'])
    generator = np.random.default_rng(0)

    def images(count: int) -> ij.Dataset:
        shape = count, _SIDE, _SIDE, 3
        return ij.Dataset(
            {
                'image': generator.integers(0, 256, shape, np.uint8),
                'label': generator.integers(0, _CLASSES, count).astype(np.int32),
            }
        )

    task = ij.tasks.Classification(
        ResNetConfig(_CLASSES, at['width'], (1, 1), patch=2), inputs='image'
    )
    dataset, targets = images(at['N']), images(at['T'])
    arguments: dict[str, Any] = {
        'targets': targets,
        'recipe': ij.Recipe(epochs=2, batch_size=48),
        'executor': sequential(at['devices']),
    }
    clock = _MembersClock()
    ij.train_ensemble(
        task,
        dataset,
        members=_FIRST + at['M'],
        output_dir=directory / 'run',
        progress=clock,
        **arguments,
    )
    timed.found |= clock.found(_FIRST)
    parameters = sum(
        math.prod(leaf.shape)
        for leaf in jax.tree.leaves(abstract_variables(task.bind(dataset).task))
    )
    return {
        'parameters': parameters,
        'disk_bytes': _bytes_under(directory / 'run'),
        'disk_apparent': _apparent(directory / 'run'),
    }


def _apparent(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.rglob('*') if file.is_file())


def _manifest(at: Mapping[str, int]) -> Any:
    from influence_jax import store

    return store.Manifest(
        configuration={'made by': 'benchmarks.growth'},
        seeds={'seed': 0},
        dataset=store.DatasetIdentity('synthetic', '0' * 64),
        example_ids=tuple(f'example-{i:07d}' for i in range(at['N'])),
        target_ids=tuple(f'target-{i:07d}' for i in range(at['T'])),
        measurements=('loss', 'logit_gap'),
        members=at['M'],
    )


def store_run(timed: Timed, directory: Path, at: Mapping[str, int]) -> dict[str, float]:
    """Creates a run directory, records every member, opens it and reads a measurement."""
    import influence_jax as ij
    from influence_jax import store, subsets

    masks = timed(
        'draw',
        lambda: subsets.independent(key=_key(), members=at['M'], examples=at['N']),
    )
    manifest = _manifest(at)
    generator = np.random.default_rng(0)
    path = directory / 'run'

    def write() -> None:
        with timed('create', lambda: store.create_or_resume(path, manifest, masks)) as run:

            def members() -> None:
                for first in range(0, at['M'], 4):
                    rows = range(first, min(first + 4, at['M']))
                    values = generator.random((len(rows), at['T']), np.float32)
                    run.write(rows, {'loss': values, 'logit_gap': values})

            timed('write', members)

    write()
    opened = timed('open', lambda: ij.open_run(path))
    timed('read', lambda: opened.measurement('loss'))
    return {
        'disk_bytes': _bytes_under(path),
        'disk_apparent': _apparent(path),
        'masks_bytes': _apparent(path / 'masks.zarr'),
        'manifest_bytes': (path / 'manifest.json').stat().st_size,
        'files': sum(1 for file in path.rglob('*') if file.is_file()),
    }


def _key() -> Any:
    import jax

    return jax.random.key(0)


def summary(timed: Timed, directory: Path, at: Mapping[str, Any]) -> dict[str, float]:
    """Summarizes every column; a small one first, since some of it is compiled."""
    del directory
    from influence_jax.estimators import adjusted, difference_in_means, summarize

    estimator = adjusted if at['estimator'] == 'adjusted' else difference_in_means
    small = ensemble(64, 64, 64)
    summarize(*small, estimator=estimator)
    masks, losses = ensemble(at['M'], at['N'], at['T'])
    before = _peak_gib()
    own = np.arange(at['T']) % at['N']
    found = timed(
        'summarize',
        lambda: summarize(masks, losses, estimator=estimator, target_examples=own),
    )
    kept = sum(part.nbytes for part in (*found, *found.pairs) if isinstance(part, np.ndarray))
    return {
        'inputs_gib': (masks.nbytes + losses.nbytes) / 2**30,
        'before_gib': before,
        'pairs': len(found.pairs.examples),
        'summary_bytes': kept,
    }


def report(timed: Timed, directory: Path, at: Mapping[str, int]) -> dict[str, float]:
    """Estimates, audits, draws and writes the report of a run in memory."""
    from influence_jax import report as reports
    from influence_jax.report import ArrayRun
    from influence_jax.store import Shown

    masks, losses = ensemble(at['M'], at['N'], at['T'])
    names = tuple(f'example-{i:07d}' for i in range(at['N']))
    run = ArrayRun(
        masks,
        losses,
        example_ids=names,
        target_ids=tuple(f'target-{i:07d}' for i in range(at['T'])),
        target_examples=np.arange(at['T']) % at['N'],
        shown=Shown(names=names, labels=('a kind',) * at['N']),
    )
    path = directory / 'report'
    results = timed('gather', lambda: reports.gather(run))
    timed('save', lambda: reports.save(results, path))
    timed('read_back', lambda: reports.Results.load(path))
    return {
        'page_bytes': (path / 'index.html').stat().st_size,
        'targets_csv_bytes': (path / 'targets.csv').stat().st_size,
        'pairs_csv_bytes': (path / 'pairs.csv').stat().st_size,
        'results_bytes': _apparent(path / 'results.zarr'),
        'pairs': len(results.summary.pairs.examples),
    }


def masks_only(timed: Timed, directory: Path, at: Mapping[str, int]) -> dict[str, float]:
    """Draws masks, writes them as a run of no members does, and reads them."""
    from influence_jax import store, subsets

    masks = timed(
        'draw', lambda: subsets.independent(key=_key(), members=at['M'], examples=at['N'])
    )
    at = {**at, 'T': 1}
    manifest = _manifest(at)
    path = directory / 'run'
    with timed('create', lambda: store.create_or_resume(path, manifest, masks)):
        pass
    timed('open', lambda: store.open_run(path))
    return {
        'disk_bytes': _bytes_under(path),
        'masks_bytes': _apparent(path / 'masks.zarr'),
        'manifest_bytes': (path / 'manifest.json').stat().st_size,
    }


_WORK = {
    'train': train,
    'store': store_run,
    'summary': summary,
    'adjusted': summary,
    'report': report,
    'masks': masks_only,
}
_PARTS = {
    'train': ('first_members', 'members'),
    'store': ('create', 'write', 'open', 'read'),
    'summary': ('summarize',),
    'adjusted': ('summarize',),
    'report': ('gather', 'save', 'read_back'),
    'masks': ('draw', 'create', 'open'),
}
_SIZES = {
    'train': ('disk_apparent', 'peak_gib'),
    'store': ('disk_apparent', 'masks_bytes', 'manifest_bytes', 'peak_gib'),
    'summary': ('summary_bytes', 'peak_gib'),
    'adjusted': ('summary_bytes', 'peak_gib'),
    'report': ('page_bytes', 'targets_csv_bytes', 'results_bytes', 'peak_gib'),
    'masks': ('masks_bytes', 'peak_gib'),
}


def points(stage: str, *, large: bool) -> Iterator[dict[str, Any]]:
    """Yields the base point, then each ladder with all else as at the base."""
    base = _BASE[stage]
    seen = []
    ladders = [{**base, axis: size} for axis, sizes in _LADDERS[stage].items() for size in sizes]
    for at in [base, *ladders, *(_LARGEST.get(stage, []) if large else [])]:
        if at not in seen:
            seen.append(at)
            yield at


def measure(stage: str, at: Mapping[str, Any]) -> dict[str, Any]:
    """Measures a point in this process."""
    timed = Timed()
    with tempfile.TemporaryDirectory(dir=Path(_OUTPUT.value).parent) as folder:
        sizes = _WORK[stage](timed, Path(folder), at)
    return {**timed.found, **sizes, 'peak_gib': _peak_gib(), 'system_load': os.getloadavg()[0]}


def measured_apart(stage: str, at: Mapping[str, Any]) -> dict[str, Any]:
    """Measures a point in a process of its own, or says how that failed."""
    command = [sys.executable, '-m', 'benchmarks.growth', f'--output={_OUTPUT.value}']
    command += ['--point', json.dumps({'stage': stage, 'at': at})]
    most = int(_MOST_GIB.value * 2**30)
    start = time.perf_counter()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)),
    )
    if done.returncode:
        line = (done.stderr.strip().splitlines() or [''])[-1]
        seconds = time.perf_counter() - start
        return {'failed': f'status {done.returncode}: {line:.300}', 'after': seconds}
    return json.loads(done.stdout.splitlines()[-1])


def exponent(sizes: list[float], values: list[float]) -> tuple[float, float]:
    """Returns the slope of log value against log size, and half of its 95 % interval."""
    x, y = np.log(sizes), np.log(values)
    if len(x) == 2:
        return float((y[1] - y[0]) / (x[1] - x[0])), math.nan
    fit = scipy.stats.linregress(x, y)
    return float(fit.slope), float(fit.stderr * scipy.stats.t.ppf(0.975, len(x) - 2))


def tables(found: list[dict[str, Any]], stage: str) -> None:
    """Prints the measurements of a stage, and exponents along each axis."""
    own = [row for row in found if row['stage'] == stage]
    columns = [name for part in _PARTS[stage] for name in (part, f'{part}_cpu')]
    columns += _SIZES[stage]
    axes = list(_BASE[stage])
    print(f'\n## {stage}\n\n| {" | ".join([*axes, *columns, "load"])} |')
    print('|' + '---|' * (len(axes) + len(columns) + 1))
    for row in own:
        at, got = row['at'], row['found']
        cells = [_text(at[axis]) for axis in axes]
        if 'failed' in got:
            cells += [got['failed']]
        else:
            cells += [_text(got.get(name)) for name in [*columns, 'system_load']]
        print(f'| {" | ".join(cells)} |')
    print(f'\n| {stage}: exponent of | {" | ".join(_LADDERS[stage])} |')
    print('|' + '---|' * (1 + len(_LADDERS[stage])))
    for name in [*(f'{part}_cpu' for part in _PARTS[stage]), *_SIZES[stage]]:
        cells = [name]
        for axis, sizes in _LADDERS[stage].items():
            along = _along(own, stage, axis, sizes, name)
            if len(along) < 2:
                cells.append('')
                continue
            slope, half = exponent(*map(list, zip(*along, strict=True)))
            cells.append(f'{slope:.2f}' + ('' if math.isnan(half) else f' ± {half:.2f}'))
        print(f'| {" | ".join(cells)} |')


def extrapolations(found: list[dict[str, Any]], stage: str) -> None:
    """Prints what sums of `_TERMS` say beyond the sizes measured, and how well they fit these."""
    own = [
        ({'P': row['found'].get('parameters', 1), **row['at']}, row['found'])
        for row in found
        if row['stage'] == stage and 'failed' not in row['found']
    ]
    goals = _GOALS[stage]
    names = [', '.join(f'{axis} = {size:,}' for axis, size in goal.items()) for goal in goals]
    print(f'\n| {stage}, extrapolated | {" | ".join([*names, "worst miss of the fit"])} |')
    print('|' + '---|' * (2 + len(goals)))
    for name, terms in _TERMS[stage].items():
        known = [(at, got[name]) for at, got in own if got.get(name)]
        if len(known) <= len(terms):
            continue
        weights, miss = fitted(known, terms, _AT_LEAST.get(name, {}))
        cells = [_text(float(_products(goal, terms) @ weights)) for goal in goals]
        print(f'| {name} | {" | ".join([*cells, f"{miss:.0%}"])} |')


def fitted(
    known: list[tuple[dict[str, Any], float]], terms: tuple[str, ...], least: Mapping[str, float]
) -> tuple[np.ndarray, float]:
    """Fits a sum of products of axes, none of them negative, by relative least squares.

    Args:
        known: sizes and values.
        terms: of the sum.
        least: weights below which those of some terms cannot lie.

    Returns:
        The weights, and by which part the sum misses a value at most.
    """
    floor = np.array([least.get(term, 0.0) for term in terms])
    rows = np.stack([_products(at, terms) for at, _ in known])
    values = np.array([value for _, value in known])
    scale = (rows / values[:, None]).max(axis=0)
    rest = np.maximum(1 - rows @ floor / values, 0)
    weights, _ = scipy.optimize.nnls(rows / values[:, None] / scale, rest)
    weights = weights / scale + floor
    return weights, float(np.abs(rows @ weights / values - 1).max())


def _products(at: Mapping[str, Any], terms: tuple[str, ...]) -> np.ndarray:
    return np.array([math.prod(float(at[axis]) for axis in term) for term in terms])


def _along(
    own: list[dict[str, Any]], stage: str, axis: str, sizes: list[int], name: str
) -> list[tuple[float, float]]:
    """Sizes and values along an axis, all else as at the base."""
    return [
        (float(size), float(row['found'][name]))
        for size in sizes
        for row in own
        if row['at'] == {**_BASE[stage], axis: size} and row['found'].get(name)
    ]


def _text(value: Any) -> str:
    if value is None:
        return ''
    if isinstance(value, float):
        return f'{value:.3g}'
    return f'{value:,}' if isinstance(value, int) else str(value)


def main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise app.UsageError(f'unexpected argument {arguments[1]!r}')
    if _POINT.value:
        point = json.loads(_POINT.value)
        print(json.dumps(measure(point['stage'], point['at'])))
        return
    output = Path(_OUTPUT.value)
    output.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(output.read_text()) if output.exists() else []
    stages = [s for s in _BASE if _PART_OF.get(s, s) in _STAGES.value or s in _STAGES.value]
    for stage in stages:
        for at in points(stage, large=_LARGE.value):
            there = [row for row in found if row['stage'] == stage and row['at'] == at]
            if there and not _AGAIN.value:
                continue
            got = measured_apart(stage, at)
            print(f'{stage} {at}: {got}', file=sys.stderr, flush=True)
            found = [row for row in found if row not in there]
            found.append({'stage': stage, 'at': at, 'found': got})
            partial = output.with_suffix('.partial')
            partial.write_text(json.dumps(found, indent=1))
            shutil.move(partial, output)
    for stage in stages:
        tables(found, stage)
        extrapolations(found, stage)


if __name__ == '__main__':
    app.run(main)
