"""Archives in the layout of Feldman and Zhang (2020, arXiv 2008.03703).

`trainset_mask` `[M N]`, `trainset_correctness` `[M N]` and `testset_correctness` `[M T]`, as the
code beside the paper and those who follow it save them.
"""

from pathlib import Path

import numpy as np

from influence_jax.data.sources import numpy_files
from influence_jax.interchange.imported import Imported
from influence_jax.interchange.masks import as_masks

MASK, OF_EXAMPLES, OF_TESTS = 'trainset_mask', 'trainset_correctness', 'testset_correctness'


def read_feldman_zhang(path: str | Path, *, test: bool = False) -> Imported:
    """Reads members, subsets and errors of an `.npz`.

    The loss is 1 where a member is wrong and 0 where it is right, so that influences are those of
    the paper: by how much including the example raises the probability of the right label.

    Args:
        path: of the archive.
        test: targets are the test examples; else the training examples themselves.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no archive, or lacks one of the arrays.
    """
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f'{path}: no such file')
    wanted = OF_TESTS if test else OF_EXAMPLES
    with numpy_files.opened(file) as arrays:
        for name in (MASK, wanted):
            if name not in arrays.headers:
                raise ValueError(
                    f'{path} has no {name}: archives of Feldman and Zhang hold {MASK}, '
                    f'{OF_EXAMPLES} and {OF_TESTS}'
                )
        masks = as_masks(arrays.read(MASK), source=f'{MASK} of {path}')
        correct = arrays.read(wanted)
    if correct.ndim != 2 or len(correct) != len(masks):
        raise ValueError(
            f'{wanted} of {path} is {list(correct.shape)} and {MASK} {list(masks.shape)}: rows '
            f'are members, give both of the same ones'
        )
    if correct.dtype.kind not in 'biuf' or not np.isin(correct, (0, 1)).all():
        raise ValueError(f'{wanted} of {path} must hold True or 1 where a member is right, else 0')
    return Imported(
        masks,
        {'loss': (1 - correct.astype(np.float32)).astype(np.float32)},
        'error',
        f'{len(masks)} models of {file.name}, {wanted}',
        target_ids=[f'test {number}' for number in range(correct.shape[1])] if test else None,
    )
