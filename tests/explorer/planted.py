"""A planted ensemble as people explore it, with a hostile name, and columns of documents read."""

import base64

import numpy as np

from influence_jax import store
from influence_jax.report import ArrayRun
from influence_jax.store import Shown

M, N = 96, 24
TWINS = (3, 4)
OWN = 2.0
HOSTILE = '"><script>document.title="owned"</script>\x00\u202e' + 'x' * 2**20


class Ensemble:
    """Masks and losses: each example lowers its own loss, and twins each other's."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.masks = rng.random((M, N)) < 0.5
        held = self.masks.copy()
        held[:, TWINS] = self.masks[:, list(TWINS)].any(axis=1, keepdims=True)
        self.losses = (3 + rng.normal(0, 0.2, (M, N)) - OWN * held).astype(np.float32)
        self.images = rng.integers(0, 256, (N, 6, 4, 3), np.uint8)

    @property
    def run(self):
        names = [f'name {i}' for i in range(N)]
        names[5] = HOSTILE
        shown = Shown(names=tuple(names), labels=('cat', 'dog') * (N // 2), images=self.images)
        ids = tuple(f'id-{i}' for i in range(N))
        return ArrayRun(self.masks, self.losses, ids, ids, shown=shown)


def write_run(directory, run, results, *, shown=True, digest='0' * 64):
    """Writes a run directory with its report."""
    manifest = store.Manifest(
        configuration={},
        seeds={'seed': 0},
        dataset=store.DatasetIdentity('planted', digest),
        example_ids=run.example_ids,
        target_ids=run.target_ids,
        measurements=('loss',),
        members=M,
        command='python -m ours',
    )
    with store.create_or_resume(directory, manifest, run.masks) as made:
        if shown:
            made.write_shown(run.shown)
        made.write(np.arange(M), {'loss': run.measurement()})
    (directory / 'report').mkdir()
    results.save(directory / 'report')
    return directory


def decoded(column):
    """The numbers of a base64 column."""
    if 'u2' in column:
        steps = np.frombuffer(base64.b64decode(column['u2']), '<u2')
        return column['low'] + (column['high'] - column['low']) * steps / 65535
    if 'bits' in column:
        return np.unpackbits(np.frombuffer(base64.b64decode(column['bits']), np.uint8))
    ((kind, text),) = column.items()
    return np.frombuffer(base64.b64decode(text), f'<{kind}')
