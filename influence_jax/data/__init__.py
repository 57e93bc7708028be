"""Files and arrays -> a `Dataset` with stable ids.

`sources` read files, `near_duplicates` injects variants with the truth kept, `text` turns texts
into tokens, and `pixel_distance` finds the near-duplicates that images have by themselves.
"""

from pathlib import Path

from influence_jax.data.dataset import Dataset

__all__ = ['Dataset', 'load']

_EMBEDDED = {'clipart': Dataset.clipart, 'wordnet': Dataset.wordnet}
_ON_DISK = {'cifar10': Dataset.cifar10, 'nq_open': Dataset.nq_open}
_BY_SUFFIX = {'.npz': Dataset.from_npz, '.jsonl': Dataset.from_jsonl}


def load(source: str, *, data_dir: str | Path | None = None) -> Dataset:
    """Loads the dataset that a command line names.

    Args:
      source: 'clipart' or 'wordnet' (embedded), 'cifar10' or 'nq_open' (on disk), or the path
        of a `.npz` or `.jsonl` file.
      data_dir: where CIFAR-10 or NQ-open is; the other sources take none.

    Raises:
      ValueError: no such source, a `data_dir` that it does not take, or wrong data.
      FileNotFoundError: the data are not there; the message says what to put where.
    """
    if source in _ON_DISK:
        return _ON_DISK[source](data_dir)
    suffix = Path(source).suffix
    if source not in _EMBEDDED and suffix not in _BY_SUFFIX:
        raise ValueError(
            f'unknown dataset {source!r}: choose clipart, cifar10, wordnet, nq_open, '
            'or the path of a .npz or .jsonl file'
        )
    if data_dir is not None:
        raise ValueError(f'dataset {source!r} takes no data_dir (given: {data_dir}); leave it out')
    return _EMBEDDED[source]() if source in _EMBEDDED else _BY_SUFFIX[suffix](source)
