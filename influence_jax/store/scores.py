"""Scores `[N T]` on the disk, written block by block of targets, and continued after a stop."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from influence_jax.files import check_regular
from influence_jax.json_files import read_json
from influence_jax.store.files import CorruptRun, write_atomically
from influence_jax.types import AnyArray

SCORES = 'scores'
"""Name of the directory of scores in that of a run."""

_MOST_BYTES, _MOST_DEPTH = 2**16, 4


def kept_scores(
    path: Path,
    compute: Callable[[slice], Float[AnyArray, 'N t']],
    *,
    examples: int,
    targets: int,
    identity: str,
    block: int = 512,
) -> Float[np.ndarray, 'N T']:
    """Computes what is missing of a file of scores, and returns all of it, read from the disk.

    Beside `path`, a `.npy` file, stands one that ends in `.json`: whose scores they are, and how
    many blocks are there. A block counts once it is written, so that after a kill the next call
    goes on.

    Args:
        path: of the file; its directory is made.
        compute: from a block of targets to their float32 columns.
        examples: N.
        targets: T.
        identity: of all that determines the scores.
        block: how many targets at once.

    Raises:
        ValueError: the file has other scores.
        CorruptRun: it is damaged.
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix('.json')
    owner = {'identity': identity, 'examples': examples, 'targets': targets, 'block': block}
    shape = examples, targets
    done: object = 0
    if beside.exists():
        found = read_json(beside, most_bytes=_MOST_BYTES, most_depth=_MOST_DEPTH)
        done = found.pop('done', None) if isinstance(found, dict) else None
        if found != owner:
            raise ValueError(
                f'{path} has scores of other models, records or settings: remove it and '
                f'{beside.name}, or use another directory'
            )
        values = _opened(path, shape)
    else:
        values = np.lib.format.open_memmap(path, 'w+', np.float32, shape, fortran_order=True)
        write_atomically(beside, json.dumps({**owner, 'done': 0}))
    if not isinstance(done, int) or not 0 <= done <= -(-targets // block):
        raise CorruptRun(f'{beside} is damaged: it counts {done!r:.40} blocks', file=beside)
    for number in range(done, -(-targets // block)):
        some = slice(number * block, min((number + 1) * block, targets))
        values[:, some] = np.asarray(compute(some), np.float32)
        values.flush()
        write_atomically(beside, json.dumps({**owner, 'done': number + 1}))
    return _opened(path, shape, 'r')


def _opened(path: Path, shape: tuple[int, int], mode: str = 'r+') -> np.memmap:
    try:
        check_regular(path)
        values = np.lib.format.open_memmap(path, mode)
    except (OSError, ValueError) as error:
        raise CorruptRun(f'{path} is damaged: {error}; remove it', file=path) from error
    if values.shape != shape or values.dtype != np.float32:
        raise CorruptRun(f'{path} holds {values.dtype} {list(values.shape)}; remove it', file=path)
    return values
