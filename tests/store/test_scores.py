"""Scores on the disk: a stop costs a block, and other scores are never taken for these."""

import json

import numpy as np
import pytest

from influence_jax.store.files import CorruptRun
from influence_jax.store.scores import kept_scores

MATRIX = np.random.default_rng(0).normal(size=(5, 11)).astype(np.float32)


def kept(path, compute=None, **changes):
    arguments = {'examples': 5, 'targets': 11, 'identity': 'a', 'block': 4}
    return kept_scores(path, compute or (lambda some: MATRIX[:, some]), **arguments | changes)


def test_scores_come_back(tmp_path):
    path = tmp_path / 'scores' / 'one.npy'
    np.testing.assert_array_equal(kept(path), MATRIX)
    np.testing.assert_array_equal(np.load(path), MATRIX)
    assert not kept(path).flags.writeable

    def never(some):
        raise AssertionError(some)

    np.testing.assert_array_equal(kept(path, never), MATRIX)


def test_a_stop_is_continued(tmp_path):
    path, seen = tmp_path / 'one.npy', []

    def stopped(some):
        seen.append(some)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return MATRIX[:, some]

    with pytest.raises(KeyboardInterrupt):
        kept(path, stopped)
    np.testing.assert_array_equal(kept(path, stopped), MATRIX)
    assert [some.start for some in seen] == [0, 4, 4, 8]


@pytest.mark.parametrize('changes', [{'identity': 'b'}, {'targets': 12}, {'block': 3}])
def test_other_scores_are_refused(tmp_path, changes):
    path = tmp_path / 'one.npy'
    kept(path)
    with pytest.raises(ValueError, match=r'other models, records or settings.*one\.json'):
        kept(path, **changes)


def test_damage_is_noticed(tmp_path):
    path = tmp_path / 'one.npy'
    kept(path)
    beside = path.with_suffix('.json')
    beside.write_text(json.dumps({**json.loads(beside.read_text()), 'done': 9}))
    with pytest.raises(CorruptRun, match='counts 9 blocks'):
        kept(path)
    beside.write_text(json.dumps({**json.loads(beside.read_text()), 'done': 3}))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CorruptRun, match=r'one\.npy is damaged'):
        kept(path)
    np.save(path, np.zeros((2, 2), np.float32))
    with pytest.raises(CorruptRun, match=r'\[2, 2\]'):
        kept(path)
