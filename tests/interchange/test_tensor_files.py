"""Which files go together, and that they are read."""

import dataclasses

import numpy as np
import pytest

from influence_jax.interchange import TensorFiles

M, N = 24, 7
BOTH = TensorFiles(masks='m.npy', losses='l.npy')


@pytest.mark.parametrize(
    ('changed', 'message'),
    [
        ({'lira': 'folder'}, 'lira= is of no use with masks='),
        ({'losses': '', 'logits': 'l.npy'}, 'labels= is missing'),
        ({'masks': '', 'losses': ''}, 'masks= is missing'),
        ({'logits': 'l.npy', 'labels': 'k.npy'}, 'losses= and logits= exclude'),
        ({'labels': 'k.npy'}, 'labels= are of logits='),
        ({'test': True}, 'test= is of no use with masks='),
        ({'masks': '', 'feldman_zhang': 'f.npz'}, 'losses= is of no use with feldman_zhang='),
        ({'masks': '', 'losses': '', 'feldman_zhang': 'f.npz', 'unit': 'points'}, 'unit='),
        ({'masks': '', 'losses': '', 'feldman_zhang': 'f.npz', 'examples': 0}, 'examples=0'),
        ({'examples': 0}, 'examples=0'),
        ({'unit': '$'}, 'unit='),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_is_read(changed, message):
    files = dataclasses.replace(BOTH, **changed)
    with pytest.raises(ValueError, match=message):
        files.read()


@pytest.mark.parametrize('form', ['mapped', 'numbers', 'archive'])
def test_they_are_read_as_a_run_with_names(tmp_path, form):
    rng = np.random.default_rng(0)
    masks = rng.random((M, N)) < 0.5
    losses = rng.normal(size=(M, N)).astype(np.float32)
    np.save(tmp_path / 'm.npy', masks.astype(int) if form == 'numbers' else masks)
    np.save(tmp_path / 'l.npy', losses)
    np.savez(tmp_path / 'both.npz', m=masks, l=losses)
    (tmp_path / 'ids.txt').write_text('\n'.join(f'row {i}' for i in range(N)))
    names = ('both.npz:m', 'both.npz:l') if form == 'archive' else ('m.npy', 'l.npy')
    paths = dict(zip(('masks', 'losses'), (f'{tmp_path}/{name}' for name in names), strict=True))
    files = TensorFiles(**paths, ids=f'{tmp_path}/ids.txt')
    run = files.read()
    np.testing.assert_array_equal(run.masks, masks)
    np.testing.assert_array_equal(run.measurement(), losses)
    assert run.example_ids[2] == 'row 2' and files.measured_in == 'nats'
    assert set(files.facts()) == {'masks', 'losses'}
    assert ('sha256' in files.facts()['masks']) == (form != 'archive')
