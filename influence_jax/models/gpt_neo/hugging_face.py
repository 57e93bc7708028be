"""Checkpoints of Hugging Face's GPTNeoForCausalLM, read and written without PyTorch."""

import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from influence_jax import hub, json_files, trees
from influence_jax.models import stored_tensors
from influence_jax.models.gpt_neo.config import GPTNeoConfig
from influence_jax.models.gpt_neo.network import abstract
from influence_jax.models.stored_tensors import Stored
from influence_jax.text import escaped
from influence_jax.types import Params

CONFIG = 'config.json'
_MOST_CONFIG = 2**20
# No pickles: what is not asked for cannot be loaded.
_WANTED = ('model*.safetensors', stored_tensors.INDEX)
_WRITTEN = (stored_tensors.ONE_FILE, stored_tensors.INDEX, 'model-*-of-*.safetensors')

_PREFIX = 'transformer.'
_HEAD = 'lm_head.weight'
_NOT_PARAMETERS = ('.attn.attention.bias', '.attn.attention.masked_bias')
"""Ends of the names of masks that old checkpoints hold."""

_OF_MODEL = {
    'wte.weight': 'token_embedding',
    'wpe.weight': 'position_embedding',
    'ln_f.weight': 'final_norm/scale',
    'ln_f.bias': 'final_norm/bias',
}
_OF_LAYER = {
    'ln_1.weight': 'attention_norm/scale',
    'ln_1.bias': 'attention_norm/bias',
    'attn.attention.q_proj.weight': 'attention/query',
    'attn.attention.k_proj.weight': 'attention/key',
    'attn.attention.v_proj.weight': 'attention/value',
    'attn.attention.out_proj.weight': 'attention/output',
    'attn.attention.out_proj.bias': 'attention/output_bias',
    'ln_2.weight': 'mlp_norm/scale',
    'ln_2.bias': 'mlp_norm/bias',
    'mlp.c_fc.weight': 'mlp/up',
    'mlp.c_fc.bias': 'mlp/up_bias',
    'mlp.c_proj.weight': 'mlp/down',
    'mlp.c_proj.bias': 'mlp/down_bias',
}
# PyTorch's linear layers hold [outputs, inputs].
_TRANSPOSED = frozenset(
    path for name, path in _OF_LAYER.items() if name.endswith(('_proj.weight', 'c_fc.weight'))
)


class Place(NamedTuple):
    """Where a tensor belongs.

    path: of the parameter.
    layer: row of its leading axis L; None where it has none.
    transposed: whether the tensor is the transpose of that row.
    """

    path: str
    layer: int | None
    transposed: bool


def places(config: GPTNeoConfig) -> dict[str, Place]:
    """Every tensor's place by its name, without the prefix 'transformer.'."""
    result = {name: Place(path, None, False) for name, path in _OF_MODEL.items()}
    for layer in range(config.layers):
        for name, path in _OF_LAYER.items():
            result[f'h.{layer}.{name}'] = Place(f'layers/{path}', layer, path in _TRANSPOSED)
    return result


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
        (CONFIG, *_WANTED),
        is_whole=lambda folder: _has_config(folder) and stored_tensors.are_there(folder),
        check=lambda names: stored_tensors.check(names, where=str(name_or_folder)),
    )
    config = _read_config(folder / CONFIG, compute_dtype=compute_dtype, remat=remat)
    found = {
        name.removeprefix(_PREFIX): tensor for name, tensor in stored_tensors.find(folder).items()
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
    shapes = {path: leaf.shape for path, leaf in trees.named(abstract(config)).items()}
    expected = places(config)
    missing = [name for name in expected if name not in found]
    if missing:
        raise ValueError(
            f'{len(missing)} of {len(expected)} tensors are missing, the first is {missing[0]}'
        )
    for name, stored in found.items():
        if name == _HEAD or name.endswith(_NOT_PARAMETERS):
            continue
        if name not in expected:
            shown = escaped(name)
            raise ValueError(f'the tensor {shown} has no place in the network of config.json')
        path, layer, transposed = expected[name]
        shape = shapes[path] if layer is None else shapes[path][1:]
        shape = shape[::-1] if transposed else shape
        if stored.shape != shape:
            raise ValueError(
                f'{name} has the shape {stored.shape}, but by config.json it should be {shape}'
            )


def _assembled(config: GPTNeoConfig, found: dict[str, Stored]) -> Params:
    shapes = abstract(config)
    arrays = {path: np.empty(leaf.shape, np.float32) for path, leaf in trees.named(shapes).items()}
    where = places(config)
    for name, tensor in stored_tensors.read({name: found[name] for name in where}):
        path, layer, transposed = where[name]
        array = arrays[path] if layer is None else arrays[path][layer]
        array[...] = tensor.T if transposed else tensor  # half precision becomes float32
    if _HEAD in found:
        ((_, head),) = stored_tensors.read({_HEAD: found[_HEAD]})
        if not np.array_equal(head, arrays['token_embedding']):
            raise ValueError(
                'lm_head.weight is not the token embedding; only models that tie them can be loaded'
            )
    return trees.map_named(lambda path, _: arrays[path], shapes)


def _check_shapes(config: GPTNeoConfig, params: Params) -> None:
    expected = {path: leaf.shape for path, leaf in trees.named(abstract(config)).items()}
    found = {path: leaf.shape for path, leaf in trees.named(params).items()}
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
    leaves, where = trees.named(params), places(config)
    names: list[str] = []
    weight_map: dict[str, str] = {}
    total = 0
    for number, shard in enumerate(shards, start=1):
        name = stored_tensors.ONE_FILE
        if len(shards) > 1:
            name = f'model-{number:05}-of-{len(shards):05}.safetensors'
        tensors = {}
        for key in shard:
            path, layer, transposed = where[key]
            leaf = leaves[path] if layer is None else leaves[path][layer]
            array = np.asarray(leaf, np.float32)
            tensors[_PREFIX + key] = np.ascontiguousarray(array.T if transposed else array)
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
    sizes = {path: 4 * int(np.prod(leaf.shape)) for path, leaf in trees.named(params).items()}
    shard: list[str] = []
    filled = 0
    for name, place in places(config).items():
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
    for pattern in _WRITTEN:
        for path in folder.glob(pattern):
            path.unlink()
    for name in names:
        (folder / (name + mark)).rename(folder / name)
