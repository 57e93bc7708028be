"""Damaged and hostile files for every reader that parses a header, and what escapes of it.

    python -m benchmarks.fuzz [--cases=50000] [--seed=0] [--reader=NAME] [--first=0]

Each case is a valid file, or one with a header of our own making, changed by up to three
mutations: of bytes, of numbers written in it, of the tree of its JSON, of headers and directories.
It is a function of seed, reader and number alone. A reader must return, or raise ValueError or
OSError in one printable line; within a second of processor time; and must not make the process
larger by 256 MB more than the file.
Prints a table, and each escape with its number.
"""

import argparse
import importlib
import io
import multiprocessing
import os
import pickle
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from benchmarks.fuzz_readers import READERS, Rng

_MUTATIONS = (0, 1, 1, 1, 1, 1, 1, 2, 2, 3)
_MOST_SECONDS = 1.0
_MOST_MEGABYTES = 256
_BLOCK = 250
_BLOCK_SECONDS = 600


class Outcome(NamedTuple):
    """What came of a case: 'read', 'refused' or what escaped."""

    kind: str
    detail: str
    seconds: float
    megabytes: float


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--cases', type=int, default=50_000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--reader', choices=[*READERS])
    parser.add_argument('--first', type=int, default=0)
    asked = parser.parse_args()
    # What is imported at first use is no work that a file asks for.
    importlib.import_module('influence_jax.data.text.hub_tokenizer')
    escapes, total = 0, 0
    print('reader | cases | read | refused | escapes | most seconds | most MB')
    for name, reader in READERS.items():
        if asked.reader in (None, name):
            share = reader.share if asked.reader is None else 1
            outcomes = run(name, asked.seed, asked.first, round(asked.cases * share))
            escapes += _show(name, outcomes)
            total += len(outcomes)
    print(f'{total:,} cases, {escapes} escapes')
    sys.exit(bool(escapes))


def run(name: str, seed: int, first: int, count: int) -> dict[int, Outcome]:
    """The outcomes of cases by number, in processes of their own so that one may die."""
    outcomes: dict[int, Outcome] = {}
    number = first
    while number < first + count:
        block = range(number, min(first + count, number + _BLOCK))
        found = _in_process(name, seed, block)
        outcomes |= found
        number = block.start + len(found)
        if len(found) < len(block):
            outcomes[number] = Outcome('died', 'the process ended or hung', 0, 0)
            number += 1
    return outcomes


def run_case(name: str, seed: int, number: int, folder: Path) -> Outcome:
    """One case, in this process; its files are written to the folder."""
    reader, rng = READERS[name], Rng(f'{seed} {name} {number}')
    files = reader.make(rng)
    for _ in range(rng.choice(_MUTATIONS)):
        reader.mutate(files, rng)
    for path, content in files.items():
        (folder / path).write_bytes(content)
    before, start = _peak(), time.process_time()
    try:
        reader.read(folder)
        kind, detail = 'read', ''
    except (ValueError, OSError) as error:
        kind, detail = 'refused', str(error)
        if not detail.isprintable() or not detail:
            kind, detail = 'no line', ascii(detail[:300])
        elif len(detail) > 2_000:
            kind, detail = 'too long', f'{len(detail)} characters: {detail[:300]}'
    except BaseException:
        kind, detail = 'escaped', traceback.format_exc()[-1_500:]
    seconds, megabytes = time.process_time() - start, (_peak() - before) / 2**20
    allowed = _MOST_MEGABYTES + sum(map(len, files.values())) / 2**20
    if kind in ('read', 'refused') and seconds > _MOST_SECONDS:
        kind, detail = 'too slow', f'{seconds:.2f} s: {detail[:300]}'
    if kind in ('read', 'refused') and megabytes > allowed:
        kind, detail = 'too large', f'{megabytes:.0f} MB: {detail[:300]}'
    return Outcome(kind, detail, seconds, megabytes)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _in_process(name: str, seed: int, block: range) -> dict[int, Outcome]:
    with tempfile.TemporaryDirectory() as folder:
        done = Path(folder) / 'outcomes'
        process = multiprocessing.get_context('fork').Process(
            target=_block, args=(name, seed, block, done)
        )
        process.start()
        process.join(_BLOCK_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        content = done.read_bytes() if done.exists() else b''
    found, stream = {}, io.BytesIO(content)
    while stream.tell() < len(content):  # our own, written by the child
        try:
            number, outcome = pickle.load(stream)
        except (EOFError, pickle.UnpicklingError):
            break
        found[number] = outcome
    return found


def _block(name: str, seed: int, block: range, done: Path) -> None:
    # What libraries print on a damaged file is not what is looked for.
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)
    os.dup2(silent, 1)
    with done.open('wb', buffering=0) as file:
        for number in block:
            with tempfile.TemporaryDirectory() as folder:
                outcome = run_case(name, seed, number, Path(folder))
            file.write(pickle.dumps((number, outcome)))


def _show(name: str, outcomes: dict[int, Outcome]) -> int:
    kinds = Counter(outcome.kind for outcome in outcomes.values())
    escaped = {n: o for n, o in outcomes.items() if o.kind not in ('read', 'refused')}
    print(
        f'{name} | {len(outcomes):,} | {kinds["read"]:,} | {kinds["refused"]:,} | {len(escaped)} | '
        f'{max((o.seconds for o in outcomes.values()), default=0):.2f} | '
        f'{max((o.megabytes for o in outcomes.values()), default=0):.0f}',
        flush=True,
    )
    for number, outcome in list(escaped.items())[:20]:
        print(f'  {name} {number}: {outcome.kind}: {outcome.detail}', flush=True)
    return len(escaped)


if __name__ == '__main__':
    main()
