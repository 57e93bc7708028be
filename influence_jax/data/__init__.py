"""Files and arrays -> a dataset with stable ids.

Images: `clipart` (embedded), `cifar10`, `npz`; beside them `augment` (on the device) and
`pixel_distance` (natural near-duplicates). Texts: `text`. Near-duplicates planted in either:
`near_duplicates`.
"""

from pathlib import Path

from influence_jax.data import cifar10, clipart, npz
from influence_jax.data.dataset import ImageDataset

__all__ = ['ImageDataset', 'load']


def load(source: str, *, data_dir: Path | None = None) -> ImageDataset:
    """Loads the dataset that a command line names.

    Args:
      source: 'clipart', 'cifar10' or the path of a `.npz` file.
      data_dir: where CIFAR-10 is; see `cifar10.load`. The other sources take none.

    Raises:
      ValueError: no such source, a `data_dir` that it does not take, or wrong data.
      FileNotFoundError: the data are not there; the message says what to put where.
    """
    if source == 'cifar10':
        return cifar10.load(data_dir)
    if source != 'clipart' and not source.endswith('.npz'):
        raise ValueError(
            f'unknown dataset {source!r}: choose clipart, cifar10, or the path of a .npz file'
        )
    if data_dir is not None:
        raise ValueError(f'dataset {source!r} takes no data_dir (given: {data_dir}); leave it out')
    return clipart.load() if source == 'clipart' else npz.load(source)
