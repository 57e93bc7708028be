"""Tensors of files written by `torch.save`, read without PyTorch and without running a pickle.

Such a file is an archive of storages and of one pickle that says which tensors are made of them.
A pickle is a program. It is read here for what it says, instruction by instruction, with those
alone that tensors in lists and dictionaries need; nothing that it names is ever imported or called.
"""

import itertools
import math
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from jaxtyping import Shaped

from influence_jax import files
from influence_jax.text import first_line, quoted

_STORAGES = {
    'DoubleStorage': np.dtype(np.float64),
    'FloatStorage': np.dtype(np.float32),
    'HalfStorage': np.dtype(np.float16),
    'BFloat16Storage': np.dtype(ml_dtypes.bfloat16),
    'LongStorage': np.dtype(np.int64),
    'IntStorage': np.dtype(np.int32),
    'ShortStorage': np.dtype(np.int16),
    'CharStorage': np.dtype(np.int8),
    'ByteStorage': np.dtype(np.uint8),
    'BoolStorage': np.dtype(np.bool_),
}
_MOST_PICKLE_BYTES = 2**26
_MOST_PLACES = 1_000_000
_MOST_LEVELS = 200
# What is raised where a file is not what it says.
_DAMAGE = (
    ArithmeticError, AttributeError, EOFError, LookupError, NotImplementedError, OSError,
    RecursionError, TypeError, ValueError, zipfile.BadZipFile,
)  # fmt: skip
_TENSOR = 'torch._utils _rebuild_tensor_v2'
_PARAMETER = 'torch._utils _rebuild_parameter'
_ORDERED = 'collections OrderedDict'


class _Name(NamedTuple):
    """What a pickle would import."""

    text: str


def torch_arrays(path: str | Path) -> dict[str, Shaped[np.ndarray, '...']]:
    """Reads all tensors of a file; bfloat16 becomes float32.

    Args:
        path: of a file of `torch.save`, from PyTorch 1.6 on.

    Returns:
        Arrays by where they are, such as `masks` or `results/0`; a lone tensor by ''.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of an older format, damaged, or holds anything but tensors, numbers and
            texts in lists and dictionaries; with the line of Python that saves what can be read.
    """
    file = Path(path)
    if not file.exists():
        raise FileNotFoundError(f'{path}: no such file')
    with files.open_regular(file) as opened:
        try:
            archive = zipfile.ZipFile(opened)
        except zipfile.BadZipFile as error:
            raise ValueError(
                f'{path} is no archive as torch.save has written since PyTorch 1.6, and older '
                f'files are pickles, which could run code: {_remedy(path)}'
            ) from error
        with archive:
            pickles = [name for name in archive.namelist() if name.endswith('data.pkl')]
            if len(pickles) != 1:
                raise ValueError(f'{path} is an archive, but not one of torch.save')
            prefix = pickles[0].removesuffix('data.pkl')
            return _read(archive, prefix, path)


def _read(archive: zipfile.ZipFile, prefix: str, path: str | Path) -> dict[str, np.ndarray]:
    try:
        order = '<'
        if f'{prefix}byteorder' in archive.namelist():
            order = {b'little': '<', b'big': '>'}[_read_at_most(archive, f'{prefix}byteorder', 8)]
        storages: dict[str, np.ndarray] = {}

        def storage(found: Any) -> np.ndarray:
            kind, name, key, _, count = found
            if kind != 'storage' or not isinstance(name, _Name):
                raise ValueError('it refers to something else than a storage')
            of, _, dtype_name = name.text.rpartition(' ')
            if of != 'torch' or dtype_name not in _STORAGES:
                raise ValueError(f'it holds tensors of {quoted(name.text)}')
            dtype = _STORAGES[dtype_name].newbyteorder(order)
            if key not in storages:
                member = archive.getinfo(f'{prefix}data/{key}')
                if member.compress_type != zipfile.ZIP_STORED:
                    raise ValueError('its storages are compressed')
                if member.file_size < count * dtype.itemsize:
                    raise ValueError(f'its storage {key} is cut short')
                storages[key] = np.frombuffer(archive.read(member), dtype, count)
            return storages[key]

        directory = _read_at_most(archive, f'{prefix}data.pkl', _MOST_PICKLE_BYTES)
        return dict(_tensors(_interpreted(directory, storage)))
    except _Foreign as error:
        raise ValueError(
            f'{path} holds {quoted(error.name)}, not tensors alone: {_remedy(path)}'
        ) from error
    except _DAMAGE as error:
        raise ValueError(
            f'{path} cannot be read ({first_line(error)}): copy or save it again'
        ) from error


def _read_at_most(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Reads a member, whatever size its header says, and never inflates more than allowed."""
    with archive.open(name) as member:
        found = member.read(most + 1)
    if len(found) > most:
        raise ValueError(f'{name} is too large')
    return found


class _Foreign(Exception):
    """A pickle names something that is not needed for tensors."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _interpreted(pickle: bytes, storage: Callable[[Any], np.ndarray]) -> Any:
    """What a pickle describes, its instructions read and never run."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def popped() -> list[Any]:
        start = marks.pop()
        found = stack[start:]
        del stack[start:]
        return found

    argument: Any
    for opcode, argument, _ in pickletools.genops(pickle):
        match opcode.name:
            case 'PROTO' | 'FRAME':
                pass
            case 'STOP':
                break
            case 'MARK':
                marks.append(len(stack))
            case 'NONE':
                stack.append(None)
            case 'NEWTRUE' | 'NEWFALSE':
                stack.append(opcode.name == 'NEWTRUE')
            case (
                'BININT' | 'BININT1' | 'BININT2' | 'LONG1' | 'INT' | 'BINFLOAT' | 'BINUNICODE'
                | 'SHORT_BINUNICODE' | 'UNICODE'
            ):  # fmt: skip
                stack.append(argument)
            case 'EMPTY_DICT':
                stack.append({})
            case 'EMPTY_LIST':
                stack.append([])
            case 'EMPTY_TUPLE':
                stack.append(())
            case 'TUPLE':
                stack.append(tuple(popped()))
            case 'TUPLE1' | 'TUPLE2' | 'TUPLE3':
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case 'LIST':
                stack.append(popped())
            case 'APPEND':
                one = stack.pop()
                stack[-1].append(one)
            case 'APPENDS':
                some = popped()
                stack[-1].extend(some)
            case 'SETITEM':
                value, key = stack.pop(), stack.pop()
                stack[-1][key] = value
            case 'SETITEMS':
                pairs = popped()
                stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))
            case 'BINPUT' | 'LONG_BINPUT' | 'PUT':
                memo[argument] = stack[-1]
            case 'MEMOIZE':
                memo[len(memo)] = stack[-1]
            case 'BINGET' | 'LONG_BINGET' | 'GET':
                stack.append(memo[argument])
            case 'GLOBAL':
                stack.append(_Name(argument))
            case 'STACK_GLOBAL':
                name, module = stack.pop(), stack.pop()
                stack.append(_Name(f'{module} {name}'))
            case 'BINPERSID':
                stack.append(storage(stack.pop()))
            case 'REDUCE':
                arguments, made = stack.pop(), stack.pop()
                stack.append(_made(made, arguments))
            case 'BUILD':
                stack.pop()  # attributes of a dictionary: of no account
                if not isinstance(stack[-1], dict):
                    raise ValueError('it sets the state of something that has none')
            case other:
                raise _Foreign(f'an instruction {other}')
    return stack.pop()


def _made(name: Any, arguments: tuple) -> Any:
    if not isinstance(name, _Name):
        raise ValueError('it calls something that is no name')
    match name.text:
        case text if text == _TENSOR:
            return _tensor(*arguments[:4])
        case text if text == _PARAMETER:
            return arguments[0]
        case text if text == _ORDERED:
            return {}
    raise _Foreign(name.text)


def _tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple) -> np.ndarray:
    """A view of a storage, which it may not leave."""
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(type(one) is int and one >= 0 for one in numbers):
        raise ValueError('a tensor has a shape that is none')
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= len(storage):
        raise ValueError('a tensor is larger than its storage')
    if math.prod(size) > len(storage):
        raise ValueError('a tensor repeats what it stores: save tensor.contiguous()')
    if not math.prod(size):
        return np.empty(size, storage.dtype)
    bytes_apart = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, bytes_apart, writeable=False)


def _tensors(content: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yields arrays by where they are."""
    levels: list[tuple[str, Iterator[tuple[Any, Any]]]] = [('', iter([('', content)]))]
    visits = itertools.count(1)
    while levels:
        above, items = levels[-1]
        for name, inner in items:
            if next(visits) > _MOST_PLACES:
                raise ValueError(f'it holds more than {_MOST_PLACES:,} things')
            place = f'{above}/{name}' if above else str(name)
            if isinstance(inner, np.ndarray):
                bfloat16 = inner.dtype.newbyteorder('=') == ml_dtypes.bfloat16
                dtype = np.float32 if bfloat16 else inner.dtype.newbyteorder('=')
                yield place, inner.astype(dtype, copy=False)
            elif isinstance(inner, dict | list | tuple):
                pairs = inner.items() if isinstance(inner, dict) else enumerate(inner)
                levels.append((place, iter(pairs)))
                if len(levels) > _MOST_LEVELS:
                    raise ValueError(f'it is nested more than {_MOST_LEVELS} deep')
                break
        else:
            levels.pop()


def _remedy(path: str | Path) -> str:
    return (
        f"where you trust it, convert it with numpy.save('{Path(path).stem}.npy', "
        f"torch.load('{Path(path).name}', weights_only=False))"
    )
