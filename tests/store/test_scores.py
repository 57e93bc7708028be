"""Scores on the disk: a stop costs a block, and other scores are never taken for these."""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from influence_jax.store import DatasetIdentity, Manifest, ScoreAxes, ScoreSource, open_scores
from influence_jax.store.files import CorruptRun, RunLocked, locked
from influence_jax.store.scores import kept_scores

MATRIX = np.random.default_rng(0).normal(size=(5, 11)).astype(np.float32)
SOURCE = ScoreSource('a', 'dot', 'gradient product', 'the inner product', 'nats')


def manifest(examples=5, prefix='', contents='0' * 64):
    return Manifest(
        configuration={},
        seeds={},
        dataset=DatasetIdentity('d', contents),
        example_ids=tuple(f'{prefix}e{number}' for number in range(examples)),
        target_ids=tuple(f't{number}' for number in range(11)),
        measurements=('loss',),
        members=4,
        masks_sha256='1' * 64,
    )


AXES = ScoreAxes.of(manifest())


def kept(path, compute=None, **changes):
    arguments = {'axes': AXES, 'source': SOURCE, 'block': 4}
    return kept_scores(path, compute or (lambda some: MATRIX[:, some]), **arguments | changes)


def never(some):
    raise AssertionError(some)


def test_scores_come_back(tmp_path):
    path = tmp_path / 'scores' / 'one.npy'
    np.testing.assert_array_equal(kept(path).values, MATRIX)
    np.testing.assert_array_equal(np.load(path), MATRIX)
    assert not kept(path).values.flags.writeable
    again = kept(path, never)
    np.testing.assert_array_equal(again.values, MATRIX)
    opened = open_scores(path, AXES)
    np.testing.assert_array_equal(opened.values, MATRIX)
    assert opened.source == SOURCE
    assert opened.cost == again.cost
    assert opened.cost.seconds > 0


def test_a_stop_is_continued_in_blocks_of_any_size(tmp_path):
    path, seen = tmp_path / 'one.npy', []

    def stopped(some):
        seen.append((some.start, some.stop))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return MATRIX[:, some]

    with pytest.raises(KeyboardInterrupt):
        kept(path, stopped)
    with pytest.raises(ValueError, match='4 of 11 targets'):
        open_scores(path, AXES)
    np.testing.assert_array_equal(kept(path, stopped, block=6).values, MATRIX)
    assert seen == [(0, 4), (4, 8), (4, 10), (10, 11)]


@pytest.mark.parametrize(
    ('axes', 'match'),
    [
        (ScoreAxes.of(manifest(6)), r'other examples \(5, here 6'),
        (ScoreAxes.of(manifest(prefix='x')), 'other examples'),
        (ScoreAxes.of(manifest(), [2, 0]), r'other targets \(11, here 2'),
        (ScoreAxes.of(manifest(contents='f' * 64)), 'other contents'),
    ],
)
def test_scores_of_other_examples_are_refused(tmp_path, axes, match):
    path = tmp_path / 'one.npy'
    kept(path)
    for read in (lambda: open_scores(path, axes), lambda: kept(path, never, axes=axes)):
        with pytest.raises(ValueError, match=match) as error:
            read()
        assert '\n' not in str(error.value)
        assert 'one.npy' in str(error.value)


def test_runs_of_earlier_versions_have_no_digest_of_contents(tmp_path):
    path = tmp_path / 'one.npy'
    kept(path)
    old = dataclasses.replace(manifest(contents='f' * 64), masks_sha256=None)
    np.testing.assert_array_equal(open_scores(path, ScoreAxes.of(old)).values, MATRIX)


def test_other_scores_are_refused(tmp_path):
    path = tmp_path / 'one.npy'
    kept(path)
    with pytest.raises(ValueError, match=r'other models or settings.*one\.json'):
        kept(path, source=dataclasses.replace(SOURCE, identity='b'))
    with pytest.raises(FileNotFoundError, match=r'two\.npy'):
        open_scores(tmp_path / 'two.npy', AXES)
    nan = np.where(np.arange(11) == 9, np.nan, 0).astype(np.float32)
    with pytest.raises(ValueError, match=r'5 scores that are not finite, of targets 8 \.\. 10'):
        kept(tmp_path / 'bad.npy', lambda some: MATRIX[:, some] + nan[some])


def test_damage_is_noticed(tmp_path):
    path = tmp_path / 'one.npy'
    kept(path)
    beside = path.with_suffix('.json')
    whole = json.loads(beside.read_text())
    for wrong, match in (
        ({'done': 12}, 'counts 12 of 11'),
        ({'done': '3'}, 'counts'),
        ({'cost': {'seconds': 'x', 'peak_bytes': None}}, 'cost'),
        ({'axes': {}}, 'needs examples'),
        ({'source': {**whole['source'], 'unit': 3}}, 'needs identity'),
    ):
        beside.write_text(json.dumps({**whole, **wrong}))
        with pytest.raises(CorruptRun, match=match):
            kept(path)
    beside.write_text(json.dumps(whole))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorruptRun, match=r'one\.npy is damaged'):
        kept(path)
    np.save(path, np.zeros((2, 2), np.float32))
    with pytest.raises(CorruptRun, match=r'\[2, 2\]'):
        kept(path)


@pytest.mark.parametrize('done', [8, 11])
def test_a_changed_number_is_noticed(tmp_path, done):
    path = tmp_path / 'one.npy'

    def stopped(some):
        if some.stop > done:
            raise KeyboardInterrupt
        return MATRIX[:, some]

    with contextlib.suppress(KeyboardInterrupt):
        kept(path, stopped)
    raw = bytearray(path.read_bytes())
    raw[-4 * 5 * (11 - 2)] ^= 1  # of the third target
    path.write_bytes(raw)
    with pytest.raises(CorruptRun, match='SHA-256'):
        kept(path, never)
    if done == 11:
        with pytest.raises(CorruptRun, match='SHA-256'):
            open_scores(path, AXES)


def test_scores_of_earlier_versions_are_taken_and_given_a_digest(tmp_path):
    path = tmp_path / 'one.npy'
    kept(path)
    beside = path.with_suffix('.json')
    fields = json.loads(beside.read_text())
    digest = fields.pop('sha256')
    beside.write_text(json.dumps(fields))
    np.testing.assert_array_equal(open_scores(path, AXES).values, MATRIX)
    np.testing.assert_array_equal(kept(path, never).values, MATRIX)
    assert json.loads(beside.read_text())['sha256'] == digest


def test_nobody_else_computes_the_same_scores_meanwhile(tmp_path):
    path = tmp_path / 'one.npy'

    def slow(some):
        if some.start == 0:  # no file of scores is there yet
            with pytest.raises(RunLocked, match=r'one\.npy is being written by process') as error:
                kept(path)
            assert '\n' not in str(error.value)
            kept(tmp_path / 'two.npy')
        return MATRIX[:, some]

    np.testing.assert_array_equal(kept(path, slow).values, MATRIX)
    np.testing.assert_array_equal(open_scores(path, AXES).values, MATRIX)
    assert not list(tmp_path.glob('*.lock'))


def test_a_process_that_was_killed_holds_nothing(tmp_path):
    program = f"""
import os, signal
from pathlib import Path
from influence_jax.store.files import Lock
lock = Lock(Path({str(tmp_path / 'one.lock')!r}))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, '-c', program], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / 'one.lock').exists()
    np.testing.assert_array_equal(kept(tmp_path / 'one.npy').values, MATRIX)
    assert not (tmp_path / 'one.lock').exists()


def test_many_that_wait_come_one_after_another(tmp_path, caplog):
    """Each removes the file of the lock, for which others are waiting."""
    inside, most, count = 0, 0, 0

    def enter():
        nonlocal inside, most, count
        for _ in range(25):
            with locked(tmp_path / 'lock', what=tmp_path, wait=True):
                inside += 1
                most = max(most, inside)
                count += 1
                os.sched_yield()
                inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (most, count) == (1, 100)
    assert not list(tmp_path.iterdir())
    assert all('waiting for it to end' in record.message for record in caplog.records)


@pytest.mark.parametrize('odd', ['no locks', 'a folder', 'a link', 'a pipe'])
def test_what_cannot_be_locked_is_an_error_of_the_system(tmp_path, monkeypatch, odd):
    path, lock = tmp_path / 'one.npy', tmp_path / 'one.lock'
    (tmp_path / 'mine').write_text('mine')
    match odd:
        case 'a folder':
            lock.mkdir()
        case 'a link':
            lock.symlink_to(tmp_path / 'mine')
        case 'a pipe':
            os.mkfifo(lock)
        case 'no locks':

            def refused(*_):
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

            monkeypatch.setattr(fcntl, 'flock', refused)
    with pytest.raises(OSError, match=r"one\.lock'") as error:
        kept(path)
    assert '\n' not in str(error.value)
    assert (tmp_path / 'mine').read_text() == 'mine' and not path.exists()
