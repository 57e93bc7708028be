"""The explorer on 50,000 targets: time to the table, to a target's page, memory, and an export.

    python -m benchmarks.explorer FOLDER [EXAMPLES] [MEMBERS]

Makes results of a planted model in FOLDER, once: every target has an influence of its own, every
fifth a near-duplicate that does half of it. Of more than 5,000 targets 2,000 are summarized, and
the rows of the others repeat these, shifted: all takes an hour, and the explorer sees no
difference. Then the server is started as people start it.
"""

import json
import os
import random
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

from influence_jax.analysis.views import Overview, by_margin, by_self_influence, spread_of_kinds
from influence_jax.estimators import Method, Summary, adjusted, largest_of_noise, summarize
from influence_jax.estimators.columns import entry_reader
from influence_jax.estimators.ensemble import problem
from influence_jax.explorer import Site, export, open_results
from influence_jax.report import KeptTensors, Results
from influence_jax.report.results import RESULTS, ShownExamples

EXAMPLES, MEMBERS = 50_000, 1_000
EXPORTED = 5_000
PERIOD = 2_000
"""Targets after which the planted model repeats."""
SEED = 20_261_126
PAGES = 50
CLASSES = 100
SHOWN = 2_048
SIDE = 32
GALLERY = 48


def main(folder: Path, examples: int, members: int) -> None:
    """Prints one line a measurement."""
    whole = make(folder / f'{examples}x{members}', examples, members)
    part = make(folder / f'{EXPORTED}x{members}', EXPORTED, members)
    serve(whole)
    start, cpu = time.perf_counter(), time.process_time()
    site = Site([open_results(part)], shard=export.SHARD)
    failed = export.write(site, folder / 'exported')
    sizes = [file.stat().st_size for file in (folder / 'exported').rglob('*') if file.is_file()]
    print(
        f'export of {EXPORTED:,} targets: {sum(sizes) / 2**20:.1f} MiB in {len(sizes):,} files, '
        f'{time.perf_counter() - start:.0f} s ({time.process_time() - cpu:.0f} s of CPU), '
        f'{len(failed)} errors'
    )


def make(directory: Path, examples: int, members: int) -> Path:
    """Makes the results, unless they are there."""
    if (directory / RESULTS).exists():
        return directory
    rng = np.random.default_rng(SEED)
    masks = rng.random((members, examples), np.float32) < 0.5
    losses = rng.normal(0, 0.3, (members, examples)).astype(np.float32)
    losses += rng.gamma(2, 0.4, examples).astype(np.float32)
    memorized = np.resize(rng.exponential(0.6, PERIOD), examples).astype(np.float32)
    losses -= masks * memorized
    twins = np.arange(0, examples - 1, 5)
    losses[:, twins] -= masks[:, twins + 1] * (memorized[twins] / 2)
    start = time.perf_counter()
    some = PERIOD if examples > EXPORTED else examples
    summary = summarize(
        masks, losses[:, :some], estimator=adjusted, target_examples=np.arange(some)
    )
    print(f'summary of {some:,} targets: {time.perf_counter() - start:.0f} s', flush=True)
    summary = repeated(summary, examples)
    results = _results(rng, masks, losses, summary)
    partial = directory.with_name(f'.{directory.name}')
    partial.mkdir(parents=True)
    results.save(partial)
    KeptTensors(
        np.packbits(masks, axis=1), examples, losses, results.overview.target_examples
    ).save(partial)
    partial.rename(directory)
    return directory


def repeated(summary: Summary, targets: int) -> Summary:
    """Returns a summary of so many targets, of which rows repeat; T must divide their number."""
    given = len(summary.margin)
    shift = np.repeat(np.arange(0, targets, given), given)
    fields: dict[str, Any] = {}
    for name, values in summary._asdict().items():
        if isinstance(values, np.ndarray) and values.shape[:1] == (given,):
            rows = np.tile(values, (targets // given, *[1] * (values.ndim - 1)))
            if name in ('top_examples', 'bottom_examples', 'strongest_other'):
                moved = shift.reshape(-1, *[1] * (values.ndim - 1))
                rows = ((rows + moved) % targets).astype(np.int32)
            fields[name] = rows.astype(values.dtype)
    pairs, times = summary.pairs, targets // given
    moves = np.repeat(np.arange(0, targets, given), len(pairs.targets))
    columns: dict[str, Any] = {
        name: np.tile(values, times)
        for name, values in pairs._asdict().items()
        if isinstance(values, np.ndarray)
    }
    for name in ('examples', 'targets'):
        columns[name] = ((columns[name] + moves) % targets).astype(np.int32)
    return summary._replace(
        **fields, pairs=pairs._replace(**columns, tests=pairs.tests * times, complete=True)
    )


def _results(
    rng: np.random.Generator, masks: np.ndarray, losses: np.ndarray, summary: Summary
) -> Results:
    members, examples = masks.shape
    self_index = np.arange(examples)
    method = Method(adjusted.name, adjusted.title, adjusted.description)
    lowest, memorized = by_margin(summary), by_self_influence(summary)
    chosen = spread_of_kinds(lowest, memorized, each=2)
    columns = entry_reader(adjusted, problem(masks, losses, None))(chosen, self_index)
    block = lowest[:GALLERY]
    shown = np.sort(rng.choice(examples, min(SHOWN, examples), replace=False))
    overview = Overview(
        summary=summary._replace(estimator=method),
        convergence=None,
        target_examples=self_index,
        z_threshold=largest_of_noise(members=members, examples=examples, targets=examples),
        lowest_margin=block,
        most_memorized=memorized[:GALLERY],
        matrix_block=np.zeros((len(block), len(block)), np.float32),
        block_examples=block,
        block_targets=block,
        chosen=chosen,
        distributions=np.asarray(columns.values),
        distribution_standard_errors=np.asarray(columns.standard_error),
    )
    ids = tuple(f'planted-{i:05d}' for i in range(examples))
    return Results(
        title='Influence distributions: planted',
        unit='nats',
        method=method,
        overview=overview,
        target_ids=ids,
        example_ids=ids,
        example_names=tuple(f'picture {i} of the planted model' for i in range(examples)),
        example_labels=tuple(f'class {i % CLASSES}' for i in range(examples)),
        example_changes=('',) * examples,
        shown=ShownExamples(
            shown, images=rng.integers(0, 256, (len(shown), SIDE, SIDE, 3), np.uint8)
        ),
        mean_loss=losses.mean(axis=0, dtype=np.float64),
        missing=np.empty(0, np.int64),
        diverged=np.empty(0, np.int64),
        facts={'made by': 'benchmarks.explorer'},
    )


def serve(directory: Path) -> None:
    """Starts the server and times what it answers."""
    start = time.perf_counter()
    command = [sys.executable, '-m', 'experiments.explore', str(directory), '--port=0']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            address = server.stdout.readline().split()[0] + 'data/0/'
            run = json.loads(_get(address + 'run.json'))
            table = _get(address + 'targets.json')
            cpu = _cpu(server.pid)
            print(
                f'table of {run["targets"]:,} targets: {time.perf_counter() - start:.2f} s after '
                f'the start of the process ({cpu:.2f} s of CPU, load {os.getloadavg()[0]:.1f}), '
                f'{len(table) / 2**20:.1f} MiB'
            )
            ready = time.perf_counter()
            _get(address + 'targets/0.json')
            print(f'first page, tensors read and columns prepared: {_since(ready):.1f} s after it')
            times, processor = [], []
            for target in random.Random(0).sample(range(run['targets']), PAGES):
                begin, cpu = time.perf_counter(), _cpu(server.pid)
                page = (
                    _get(f'{address}targets/{target}.json'),
                    _get(f'{address}examples/{target}.json'),
                )
                assert json.loads(page[0])[0]['histogram'], json.loads(page[0])[0]['note']
                times.append(1e3 * _since(begin))
                processor.append(1e3 * (_cpu(server.pid) - cpu))
            print(
                f"a target's page: median {statistics.median(times):.0f} ms, at most "
                f'{max(times):.0f} ms; of CPU {statistics.median(processor):.0f} ms'
            )
            print(f'the most memory: {_peak(server.pid):.0f} MiB')
            begin = time.perf_counter()
            _get(address + 'matrix.json')
            print(f'matrix: {_since(begin):.1f} s; the most memory: {_peak(server.pid):.0f} MiB')
        finally:
            server.terminate()


def _get(address: str) -> bytes:
    with urllib.request.urlopen(address) as answer:
        return answer.read()


def _since(start: float) -> float:
    return time.perf_counter() - start


def _cpu(process: int) -> float:
    """Seconds of CPU of a process, in user and system."""
    fields = Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def _peak(process: int) -> float:
    """The most resident memory of a process, MiB."""
    lines = Path(f'/proc/{process}/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith('VmHWM')) / 2**10


if __name__ == '__main__':
    sizes = [int(text) for text in sys.argv[2:4]] + [EXAMPLES, MEMBERS][len(sys.argv) - 2 :]
    main(Path(sys.argv[1]), *sizes)
