"""The safetensors files of a folder: one, or several with an index. Nothing else is read."""

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Float

ONE_FILE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'

_FLOATS = ('F32', 'F16', 'BF16', 'F64')


class Stored(NamedTuple):
    """A tensor on disk: its file, its name there, its shape and safetensors' name of its type."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str


def find(folder: Path) -> dict[str, Stored]:
    """All tensors of the folder by name; only the files' headers are read.

    Raises:
        FileNotFoundError: there is no safetensors file, or one that the index names is missing.
        ValueError: a file is damaged, the index is wrong, or the weights are pickles.
    """
    files = _files(folder)
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f'{folder}: {len(missing)} of {len(files)} files of the checkpoint are missing, the '
            f'first is {missing[0]}; copy the folder again'
        )
    found = {}
    for path in files:
        with _opened(path) as file:
            for name in file.keys():  # noqa: SIM118 (no dictionary)
                part = file.get_slice(name)
                found[name] = Stored(path, name, tuple(part.get_shape()), part.get_dtype())
    return found


def read(tensors: Mapping[str, Stored]) -> Iterator[tuple[str, Float[np.ndarray, '...']]]:
    """The tensors, one after another, file after file, under the names given.

    Raises:
        ValueError: a tensor holds no floating-point numbers.
    """
    for path in sorted({stored.file for stored in tensors.values()}):
        with _opened(path) as file:
            for name, stored in tensors.items():
                if stored.file == path:
                    if stored.dtype not in _FLOATS:
                        raise ValueError(
                            f'{path}: {stored.name} holds {stored.dtype}; only floating-point '
                            'weights can be read, no quantized ones'
                        )
                    yield name, file.get_tensor(stored.name)


def write(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes one file; transformers asks for the format's name in it."""
    safetensors.numpy.save_file(dict(tensors), path, metadata={'format': 'pt'})


def are_there(folder: Path) -> bool:
    """Whether the folder has its safetensors files, all of them; none is opened."""
    try:
        return all(file.is_file() for file in _files(folder))
    except (FileNotFoundError, ValueError):
        return False


def check(names: Collection[str], *, where: str) -> None:
    """Refuses a checkpoint whose files have these names, but no safetensors among them.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: the weights are pickles.
    """
    if ONE_FILE in names or INDEX in names:
        return
    if any(name.endswith('.bin') for name in names):
        raise ValueError(
            f'{where}: the weights are a pickle (.bin), which could run code and is not read; '
            'convert it once where PyTorch is installed: '
            'transformers.AutoModelForCausalLM.from_pretrained(FOLDER)'
            '.save_pretrained(NEW_FOLDER, safe_serialization=True)'
        )
    raise FileNotFoundError(
        f'{where}: neither {ONE_FILE} nor {INDEX}; give the folder of a checkpoint in '
        'safetensors (pickles, .bin, are not read)'
    )


def _files(folder: Path) -> list[Path]:
    check([path.name for path in folder.iterdir()], where=str(folder))
    if (folder / ONE_FILE).is_file():
        return [folder / ONE_FILE]
    return _indexed(folder / INDEX)


def _indexed(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text('utf-8'))['weight_map'].values()), key=str)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{index}: not an index of safetensors files; copy it again') from error
    for name in names:
        if (
            not isinstance(name, str)
            or Path(name).name != name
            or not name.endswith('.safetensors')
        ):
            raise ValueError(f'{index}: names {name!r}, which is no safetensors file beside it')
    return [index.with_name(name) for name in names]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safetensors.safe_open(path, framework='np') as file:
            yield file
    except safetensors.SafetensorError as error:
        raise ValueError(f'{path}: damaged or incomplete ({error}); copy it again') from error
