"""Where TFDS keeps what it prepared; TFDS itself, slow to import, is not needed to look there."""

import re
from pathlib import Path

DEFAULT_DIR = '~/tensorflow_datasets'


def newest_version(folder: Path, dataset: str) -> Path | None:
    """The newest version of a dataset below a `data_dir` of TFDS (or such a version itself)."""
    if (folder / 'dataset_info.json').is_file():
        return folder
    versions = [path.parent for path in (folder / dataset).glob('*/dataset_info.json')]
    numbered = [path for path in versions if re.fullmatch(r'\d+\.\d+\.\d+', path.name)]
    if not numbered:
        return None
    return max(numbered, key=lambda path: tuple(int(part) for part in path.name.split('.')))
