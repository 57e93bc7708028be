"""Reading a checkpoint of Hugging Face's GPTNeoForCausalLM without PyTorch."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from influence_jax import hub, json_files
from influence_jax.models.gpt_neo import stored_tensors, tensor_names
from influence_jax.models.gpt_neo.config import GPTNeoConfig
from influence_jax.models.gpt_neo.network import abstract
from influence_jax.models.gpt_neo.stored_tensors import Stored
from influence_jax.models.parameter_paths import map_named, named
from influence_jax.text import escaped
from influence_jax.types import Params

CONFIG = 'config.json'
_MOST_CONFIG = 2**20
# No pickles: what is not asked for cannot be loaded.
_WEIGHTS = ('model*.safetensors', stored_tensors.INDEX)


def load(
    name_or_folder: str | Path, *, compute_dtype: Any = jnp.float32, remat: bool = False
) -> tuple[GPTNeoConfig, Params]:
    """Reads a checkpoint in safetensors, from one file or several.

    Args:
        name_or_folder: a folder, or the name of a repository on the hub.
        compute_dtype: of the network that is returned; see `GPTNeoConfig`.
        remat: the same.

    Returns:
        The shape of the network, and its parameters as float32 arrays in host memory.

    Raises:
        FileNotFoundError: there is no such folder, or files are missing in it.
        NotFetched: the hub cannot be reached, or has no such repository.
        ValueError: it is no GPT-Neo, a file is damaged, tensors are missing, of shapes other than
            config.json says or unknown, or the weights are pickles.
    """
    folder = hub.folder_of(
        name_or_folder,
        (CONFIG, *_WEIGHTS),
        is_whole=lambda folder: _has_config(folder) and stored_tensors.are_there(folder),
        check=lambda names: stored_tensors.check(names, where=str(name_or_folder)),
    )
    config = _read_config(folder / CONFIG, compute_dtype=compute_dtype, remat=remat)
    found = {
        name.removeprefix(tensor_names.PREFIX): tensor
        for name, tensor in stored_tensors.find(folder).items()
    }
    try:
        _check(config, found)
        return config, _assembled(config, found)
    except ValueError as error:
        raise ValueError(f'{folder}: {error}') from error


def load_config(
    name_or_folder: str | Path, *, compute_dtype: Any = jnp.float32, remat: bool = False
) -> GPTNeoConfig:
    """The shape of a checkpoint's network; its weights are neither fetched nor read.

    Raises as `load`, but for what is wrong with weights.
    """
    folder = hub.folder_of(name_or_folder, (CONFIG,), is_whole=_has_config)
    return _read_config(folder / CONFIG, compute_dtype=compute_dtype, remat=remat)


def _has_config(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def _read_config(path: Path, **how: Any) -> GPTNeoConfig:
    if not path.exists():
        raise FileNotFoundError(f'{path.parent}: no config.json; give the folder of a checkpoint')
    try:
        fields = json_files.read_json(path, most_bytes=_MOST_CONFIG)
    except ValueError as error:
        raise ValueError(f'{error}; copy it again') from error
    if not isinstance(fields, dict):
        raise ValueError(f'{path}: not an object of named fields; copy it again')
    try:
        return GPTNeoConfig.from_hugging_face(fields, **how)
    except (ValueError, TypeError) as error:
        raise ValueError(f'{path}: {error}') from error


def _check(config: GPTNeoConfig, found: dict[str, Stored]) -> None:
    """Whether the tensors are those of the network; the head is compared later."""
    shapes = {path: leaf.shape for path, leaf in named(abstract(config)).items()}
    places = tensor_names.places(config)
    missing = [name for name in places if name not in found]
    if missing:
        raise ValueError(
            f'{len(missing)} of {len(places)} tensors are missing, the first is {missing[0]}'
        )
    for name, stored in found.items():
        if name == tensor_names.HEAD or name.endswith(tensor_names.NOT_PARAMETERS):
            continue
        if name not in places:
            shown = escaped(name)
            raise ValueError(f'the tensor {shown} has no place in the network of config.json')
        path, layer, transposed = places[name]
        expected = shapes[path] if layer is None else shapes[path][1:]
        expected = expected[::-1] if transposed else expected
        if stored.shape != expected:
            raise ValueError(
                f'{name} has the shape {stored.shape}, but by config.json it should be {expected}'
            )


def _assembled(config: GPTNeoConfig, found: dict[str, Stored]) -> Params:
    shapes = abstract(config)
    arrays = {path: np.empty(leaf.shape, np.float32) for path, leaf in named(shapes).items()}
    places = tensor_names.places(config)
    for name, tensor in stored_tensors.read({name: found[name] for name in places}):
        path, layer, transposed = places[name]
        array = arrays[path] if layer is None else arrays[path][layer]
        array[...] = tensor.T if transposed else tensor  # half precision becomes float32
    if tensor_names.HEAD in found:
        ((_, head),) = stored_tensors.read({tensor_names.HEAD: found[tensor_names.HEAD]})
        if not np.array_equal(head, arrays['token_embedding']):
            raise ValueError(
                'lm_head.weight is not the token embedding; only models that tie them can be loaded'
            )
    return map_named(lambda path, _: arrays[path], shapes)
