"""Writing a checkpoint that Hugging Face's GPTNeoForCausalLM reads."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from influence_jax.models.gpt_neo import stored_tensors, tensor_names
from influence_jax.models.gpt_neo.config import GPTNeoConfig
from influence_jax.models.gpt_neo.network import abstract
from influence_jax.models.gpt_neo.reading import CONFIG
from influence_jax.models.parameter_paths import named
from influence_jax.types import Params

_WEIGHTS = (stored_tensors.ONE_FILE, stored_tensors.INDEX, 'model-*-of-*.safetensors')


def save(
    folder: str | Path,
    config: GPTNeoConfig,
    params: Params,
    *,
    end: int | None = None,
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Writes a checkpoint that `load` and transformers read.

    What else the folder holds (a tokenizer) stays; an earlier checkpoint is replaced. config.json
    is written last, and without it nothing here is taken for a checkpoint.

    Args:
        folder: made where it does not exist.
        config: the shape of the network.
        params: of one member.
        end: the token that ends a text, for other programs that decode; unsaid where None.
        max_shard_bytes: weights that need more are spread over several files; a tensor is
            never split.

    Raises:
        ValueError: the parameters are not those of such a network.
    """
    folder = Path(folder)
    _check_shapes(config, params)
    folder.mkdir(parents=True, exist_ok=True)
    mark = f'.{secrets.token_hex(4)}.partial'
    try:
        names = _write_weights(folder, config, params, max_shard_bytes, mark)
        fields = config.to_hugging_face() | {'bos_token_id': end, 'eos_token_id': end}
        text = json.dumps(fields, indent=2) + '\n'
        (folder / (CONFIG + mark)).write_text(text, 'utf-8')
        _put_in_place(folder, [*names, CONFIG], mark)
    finally:
        for partial in folder.glob(f'*{mark}'):
            partial.unlink()


def _check_shapes(config: GPTNeoConfig, params: Params) -> None:
    expected = {path: leaf.shape for path, leaf in named(abstract(config)).items()}
    found = {path: leaf.shape for path, leaf in named(params).items()}
    for path in sorted(expected.keys() | found.keys()):
        if expected.get(path) != found.get(path):
            raise ValueError(
                f'parameter {path} has the shape {found.get(path)}, but the config asks for '
                f'{expected.get(path)}; save the parameters of one member'
            )


def _write_weights(
    folder: Path, config: GPTNeoConfig, params: Params, max_shard_bytes: int, mark: str
) -> list[str]:
    """Writes files whose names end in `mark`, and returns the names without it."""
    shards = list(_shards(config, params, max_shard_bytes))
    leaves = named(params)
    names: list[str] = []
    weight_map: dict[str, str] = {}
    total = 0
    for number, shard in enumerate(shards, start=1):
        name = stored_tensors.ONE_FILE
        if len(shards) > 1:
            name = f'model-{number:05}-of-{len(shards):05}.safetensors'
        tensors = {}
        for key in shard:
            path, layer, transposed = tensor_names.places(config)[key]
            leaf = leaves[path] if layer is None else leaves[path][layer]
            array = np.asarray(leaf, np.float32)
            tensors[tensor_names.PREFIX + key] = np.ascontiguousarray(
                array.T if transposed else array
            )
        stored_tensors.write(folder / (name + mark), tensors)
        weight_map |= dict.fromkeys(tensors, name)
        total += sum(array.nbytes for array in tensors.values())
        names.append(name)
    if len(shards) > 1:
        index = {'metadata': {'total_size': total}, 'weight_map': weight_map}
        (folder / (stored_tensors.INDEX + mark)).write_text(json.dumps(index, indent=2), 'utf-8')
        names.append(stored_tensors.INDEX)
    return names


def _shards(config: GPTNeoConfig, params: Params, max_bytes: int) -> Iterator[list[str]]:
    """Names of tensors, in groups of at most so many bytes."""
    sizes = {path: 4 * int(np.prod(leaf.shape)) for path, leaf in named(params).items()}
    shard: list[str] = []
    filled = 0
    for name, place in tensor_names.places(config).items():
        size = sizes[place.path] // (1 if place.layer is None else config.layers)
        if shard and filled + size > max_bytes:
            yield shard
            shard, filled = [], 0
        shard.append(name)
        filled += size
    yield shard


def _put_in_place(folder: Path, names: list[str], mark: str) -> None:
    """Replaces the checkpoint; `names` end with config.json, which makes it one."""
    (folder / CONFIG).unlink(missing_ok=True)
    for pattern in _WEIGHTS:
        for path in folder.glob(pattern):
            path.unlink()
    for name in names:
        (folder / (name + mark)).rename(folder / name)
