"""Damages run directories at random and reads them: no wrong number, no traceback, no hang.

    python -m benchmarks.fuzz_store --number=10000 --seed=0

Every case copies a small run, damages one to three things in it, opens it, reads all that it
holds, continues or extends it and reads it again. What may come of it is what was written, rows
that are missing and listed as such, or a `RunError` or `ValueError` of one line.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from influence_jax import store

MEMBERS, EXTENDED, EXAMPLES, TARGETS = 6, 9, 10, 7
COMPLETE, DIVERGED = range(4), 4
NAMES = ('loss', 'correct')
SECONDS = 20
"""A case that takes longer hangs."""
_CHUNK = 1000


class Escape(AssertionError):
    """Something came of a damaged run that may not."""


class _Hang(BaseException):
    """A case takes too long."""


class Original(NamedTuple):
    """A run that is whole, what it holds, and another one from which files are taken.

    masks and values have rows for the members by which the run is extended, too.
    """

    directory: Path
    other: Path
    manifest: store.Manifest
    masks: np.ndarray
    values: dict[str, np.ndarray]
    texts: tuple[str, ...]
    shown: store.Shown


def make_original(folder: Path) -> Original:
    """Writes the run that is damaged, and one of another configuration, below a folder."""
    rng = np.random.default_rng(0)
    originals = []
    for name in ('run', 'other'):
        manifest = _manifest(name)
        masks = rng.random((EXTENDED, EXAMPLES)) < 0.5
        values = {n: rng.normal(size=(EXTENDED, TARGETS)).astype(np.float32) for n in NAMES}
        values['loss'][DIVERGED, 0] = np.nan
        texts = tuple(f'{name} {target}' for target in range(TARGETS))
        shown = store.Shown(
            names=tuple(f'{name} {example}' for example in range(EXAMPLES)),
            groups=np.arange(EXAMPLES) // 2,
            images=rng.integers(0, 256, (EXAMPLES, 3, 4, 3), np.uint8),
        )
        with store.create_or_resume(folder / name, manifest, masks[:MEMBERS]) as run:
            _write(run, [*COMPLETE, DIVERGED], values)
            run.note('vmapped', 2)
            run.write_texts('written', texts)
            run.write_shown(shown)
        originals.append(
            Original(folder / name, folder / 'other', manifest, masks, values, texts, shown)
        )
    return originals[0]


def _manifest(name: str, members: int = MEMBERS) -> store.Manifest:
    return store.Manifest(
        configuration={'epochs': 10, 'rate': 0.1, 'model': {'width': [8, 16]}, 'run': name},
        seeds={'masks': 0},
        dataset=store.DatasetIdentity(name='clipart', fingerprint='ab' * 32),
        example_ids=tuple(f'e{i}' for i in range(EXAMPLES)),
        target_ids=tuple(f't{i}' for i in range(TARGETS)),
        measurements=NAMES,
        members=members,
        versions={'jax': '1'},
        created='2026-01-01T00:00:00+00:00',
        command='a command',
    )


def _write(run: store.Run, members: list[int], values: dict[str, np.ndarray]) -> None:
    run.write(np.array(members, int), {name: rows[members] for name, rows in values.items()})


# Damages: each is given random numbers, a file of the copy, the copy and the whole runs.


def _flip(rng: random.Random, file: Path) -> None:
    content = bytearray(file.read_bytes() or b'\0')
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def _overwrite(rng: random.Random, file: Path) -> None:
    content = bytearray(file.read_bytes())
    start = rng.randrange(len(content) + 1)
    content[start : start + rng.randrange(9)] = rng.randbytes(rng.randrange(9))
    file.write_bytes(content)


def _truncate(rng: random.Random, file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: rng.randrange(len(content) + 1)])


def _extend(rng: random.Random, file: Path) -> None:
    if rng.random() < 0.2:
        os.truncate(file, 2**40)  # sparse: it takes no room, and cannot be read whole
    else:
        file.write_bytes(file.read_bytes() + rng.randbytes(1 + rng.randrange(200)))


def _empty(_: random.Random, file: Path) -> None:
    file.write_bytes(b'')


def _delete(_: random.Random, file: Path) -> None:
    file.unlink()


def _to_directory(_: random.Random, file: Path) -> None:
    file.unlink()
    file.mkdir()


def _to_pipe(_: random.Random, file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _to_socket(_: random.Random, file: Path) -> None:
    file.unlink()
    before = Path.cwd()
    os.chdir(file.parent)  # a socket's path may have only some 100 bytes
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(file.name)
    finally:
        os.chdir(before)


def _to_link(rng: random.Random, file: Path) -> None:
    target = rng.choice(['/dev/zero', '/dev/null', 'nowhere', file.name, '.', '/proc/self/mem'])
    file.unlink()
    file.symlink_to(target)


def _lead_nowhere(path: Path) -> None:
    path.symlink_to('nowhere')


def _leftover(rng: random.Random, file: Path) -> None:
    """Something where the next writer would write first."""
    end = '.partial' if file.suffix == '.json' else '.__lock'
    path = file.with_name(f'{file.name}{end}')
    with contextlib.suppress(FileExistsError):
        makers: list[Callable] = [os.mkfifo, Path.mkdir, Path.touch, _lead_nowhere]
        rng.choice(makers)(path)


def _nested(rng: random.Random, file: Path) -> None:
    depth = rng.choice([65, 1000, 100_000])
    opening, closing = rng.choice([('[', ']'), ('{"a":', '}')])
    file.write_text(opening * depth + '1' + closing * depth * rng.randrange(2))


_ODD: list[Any] = [
    None, True, False, 0, -1, 1, 5, 6, 7, 2**31, 2**63, 10**12, 10**400, 0.5, 1e308,
    '', '\0', 'é', '\ud800', '../x', 'loss', 'x' * 10_000, [], {}, [[]], ['a'], [1], {'a': 1},
    float('nan'), float('inf'),
]  # fmt: skip
_RAW = ['1e999', '9' * 5000, '{"a":1,"a":2}', 'NaN', '[1', '"', 'nul', '\ufeff{}', '{}{}', ' ']


def _other_json(rng: random.Random, file: Path) -> None:
    """Another value somewhere in a file of JSON, a key less or more, or no JSON at all."""
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict | list) or rng.random() < 0.2:
        file.write_text(rng.choice(_RAW + [json.dumps(odd) for odd in _ODD]))
        return
    inner = value
    while True:
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        if not keys:
            break
        key = rng.choice(keys)
        if isinstance(inner[key], dict | list) and rng.random() < 0.6:
            inner = inner[key]
            continue
        kind = rng.randrange(3)
        if kind == 0:
            del inner[key]
        elif kind == 1 and isinstance(inner, dict):
            inner[rng.choice(['x', 'checksum', 'sha256', 'shape', ''])] = rng.choice(_ODD)
        else:
            inner[key] = rng.choice(_ODD)
        break
    file.write_text(json.dumps(value, indent=rng.choice([None, 1])))


_OF_FILES: list[Callable[[random.Random, Path], None]] = [
    *(3 * [_flip]), *(2 * [_overwrite]), *(2 * [_truncate]), _extend, _empty, _delete,
    _to_directory, _to_pipe, _to_socket, _to_link, _leftover, _nested,
]  # fmt: skip


def damage(rng: random.Random, directory: Path, original: Original) -> str:
    """Damages one thing in a copy of the run; returns what, in words."""
    files = sorted(path for path in directory.rglob('*') if _is_plain(path))
    if not files:
        return 'nothing is left'
    file = rng.choice(files)
    name = file.relative_to(directory)
    kind = rng.random()
    if kind < 0.15:  # one file in the place of another of its array, of any, or of the other run's
        near = [path for path in files if path.parent == file.parent]
        source = rng.choice([rng.choice(near), rng.choice(files), original.other / name])
        if _is_plain(source):
            file.write_bytes(source.read_bytes())
        return f'{source} copied to {name}'
    if kind < 0.25:  # all of a member's files, or some, from another member or from the other run
        return _other_member(rng, directory, original)
    if kind < 0.3:  # whole folders
        folders = sorted(path for path in directory.rglob('*') if path.is_dir())
        folder = rng.choice([path for path in folders if not path.is_symlink()] or [directory])
        source = original.other / folder.relative_to(directory)
        shutil.rmtree(folder)
        what = rng.randrange(3)
        if what == 0 and source.is_dir():
            shutil.copytree(source, folder)
        elif what == 1:
            folder.write_bytes(b'')
        return f'{folder.relative_to(directory)}/ replaced ({what})'
    if kind < 0.45:
        file = rng.choice([path for path in files if path.suffix == '.json'] or files)
        _other_json(rng, file)
        return f'other JSON in {file.relative_to(directory)}'
    act = rng.choice(_OF_FILES)
    act(rng, file)
    return f'{act.__name__} {name}'


def _is_plain(path: Path) -> bool:
    """Whether it is a file that can be read whole, and not a link to one elsewhere."""
    return not path.is_symlink() and path.is_file() and path.stat().st_size < 2**30


def _other_member(rng: random.Random, directory: Path, original: Original) -> str:
    to, of = rng.randrange(MEMBERS), rng.randrange(MEMBERS)
    source = rng.choice([directory, original.directory, original.other])
    parts = sorted(part for part in directory.rglob('*.zarr') if part.is_dir())
    for part in parts:
        if part.name in ('masks.zarr', 'examples.zarr') or rng.random() < 0.2:
            continue
        ends = {'status.zarr': '', 'digests.zarr': '.0.0'}.get(part.name, '.0')
        found = source / part.relative_to(directory) / f'c.{of}{ends}'
        target = part / f'c.{to}{ends}'
        if _is_plain(found) and (_is_plain(target) or not os.path.lexists(target)):
            target.write_bytes(found.read_bytes())
    return f'member {of} of {source.name} copied to {to}'


def check(directory: Path, original: Original, members: int = MEMBERS) -> str:
    """Reads a damaged run, continues it with so many members; returns what came of it.

    Raises:
        Escape: a wrong number, an error of another kind or of several lines, or a hang.
    """
    outcomes = []
    for step in (_read, functools.partial(_continue, members=members)):
        try:
            with _alarm():
                step(directory, original)
            outcomes.append('as written')
        except (store.RunError, ValueError) as error:
            message = str(error)
            if not message or len(message.splitlines()) != 1 or not message.isprintable():
                raise Escape(f'{type(error).__name__} of several lines: {message!r}') from error
            if len(message) > 2000:
                raise Escape(f'a message of {len(message)} characters: {message[:300]}') from error
            outcomes.append(type(error).__name__)
        except _Hang as error:
            raise Escape(f'{step} hangs') from error
        except Escape:
            raise
        except Exception as error:
            raise Escape(f'{step}: {type(error).__name__}: {error}') from error
    return ', then '.join(outcomes)


def _read(directory: Path, original: Original) -> None:
    run = store.open_run(directory)
    _require(run.manifest == original.manifest, 'another manifest')
    _require(np.array_equal(run.masks, original.masks[:MEMBERS]), 'other masks')
    _require(set(run.complete) <= set(COMPLETE), f'complete are {run.complete}')
    _require(set(run.diverged) <= {DIVERGED}, f'diverged are {run.diverged}')
    errors: list[Exception] = []
    for name in NAMES:
        try:
            _require_rows(run, name, original)
        except store.RunError as error:
            errors.append(error)
    try:
        _require(run.texts('written') == original.texts, 'other texts')
    except store.RunError as error:
        errors.append(error)
    try:
        _require_shown(run, original, or_none=True)
    except store.RunError as error:
        errors.append(error)
    try:
        _require(run.notes in ({'vmapped': 2}, {}), 'other notes')
    except store.RunError as error:
        errors.append(error)
    if errors:
        raise errors[0]


def _require_rows(run: store.Run, name: str, original: Original) -> None:
    found = run.measurement(name)
    complete = run.complete
    _require(np.array_equal(found[complete], original.values[name][complete]), f'other {name}')
    others = np.setdiff1d(np.arange(len(run.masks)), complete)
    _require(bool(np.isnan(found[others]).all()), f'{name} of members that are not complete')


def _require_shown(run: store.Run, original: Original, *, or_none: bool = False) -> None:
    found, expected = run.shown, original.shown
    if found is None:
        _require(or_none, 'nothing shown')
        return
    for field in dataclasses.fields(expected):
        same = np.array_equal(getattr(found, field.name), getattr(expected, field.name))
        _require(same, f'other {field.name} shown')


def _continue(directory: Path, original: Original, *, members: int) -> None:
    manifest, masks = _manifest('run', members), original.masks[:members]
    with store.create_or_resume(directory, manifest, masks) as run:
        _write(run, run.missing.tolist(), original.values)
        run.note('vmapped', 2)
        run.write_texts('written', original.texts)
        run.write_shown(original.shown)
    run = store.open_run(directory)
    _require(np.array_equal(run.masks, masks), 'other masks')
    _require(not len(run.missing), f'missing are still {run.missing}')
    _require(run.diverged.tolist() == [DIVERGED], f'diverged are {run.diverged}')
    for name in NAMES:
        _require_rows(run, name, original)
    _require(run.texts('written') == original.texts, 'other texts')
    _require_shown(run, original)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise Escape(f'wrong without a word: {what}')


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise _Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def one_case(rng: random.Random, folder: Path, original: Original) -> str:
    """Damages a copy of the run in a folder and checks it; returns what came of it.

    Raises:
        Escape: names the damage and what came of it.
    """
    directory = folder / 'copy'
    shutil.copytree(original.directory, directory)
    try:
        number = rng.choice([1, 1, 1, 2, 3])
        damages = [damage(rng, directory, original) for _ in range(number)]
        try:
            return check(directory, original, rng.choice([MEMBERS, EXTENDED]))
        except Escape as error:
            raise Escape(f'{"; ".join(damages)}: {error}') from error
    finally:
        shutil.rmtree(directory)


def cases(seed: int, number: int) -> Iterator[Callable[[], str]]:
    """Cases to be called in turn; each returns what came of it, or raises `Escape`."""
    with tempfile.TemporaryDirectory(prefix='fuzz_store_') as name:
        folder = Path(name)
        original = make_original(folder)
        for index in range(seed, seed + number):
            yield functools.partial(one_case, random.Random(index), folder, original)


def run(seed: int, number: int) -> tuple[Counter[str], list[str]]:
    """Runs cases in this process: how often which outcome came, and the escapes."""
    outcomes: Counter[str] = Counter()
    escapes = []
    for index, case in enumerate(cases(seed, number), seed):
        try:
            outcomes[case()] += 1
        except Escape as error:
            escapes.append(f'case {index}: {error}')
            print(f'ESCAPE  {escapes[-1]}', file=sys.stderr)
    return outcomes, escapes


def main() -> None:
    """Runs cases in processes of their own, some at a time: one that dies is an escape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--number', type=int, default=1000)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--inside', action='store_true', help='in this process; prints JSON')
    asked = parser.parse_args()
    if asked.inside:
        print(json.dumps(run(asked.seed, asked.number)))
        return
    start = time.monotonic()
    outcomes: Counter[str] = Counter()
    escapes = []
    for first in range(asked.seed, asked.seed + asked.number, _CHUNK):
        number = min(_CHUNK, asked.seed + asked.number - first)
        inside = [f'--seed={first}', f'--number={number}', '--inside']
        done = subprocess.run(
            [sys.executable, '-m', 'benchmarks.fuzz_store', *inside],
            stdout=subprocess.PIPE,
            check=False,
        )
        if done.returncode:
            escapes.append(f'cases {first} to {first + number - 1}: status {done.returncode}')
            print(f'ESCAPE  {escapes[-1]}', file=sys.stderr)
            continue
        of_chunk, more = json.loads(done.stdout)
        outcomes.update(of_chunk)
        escapes += more
        print(f'{first + number - asked.seed} cases, {len(escapes)} escapes', file=sys.stderr)
    for outcome, count in outcomes.most_common():
        print(f'{count:8}  {outcome}')
    seconds = time.monotonic() - start
    print(f'{asked.number} cases in {seconds:.0f} s, {len(escapes)} escapes')
    sys.exit(bool(escapes))


if __name__ == '__main__':
    main()
