"""The files that `benchmarks.fuzz` damages, reader by reader: how they are made and changed."""

import io
import json
import random
import re
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from influence_jax.data.sources import array_files, cifar10, jsonl, npz, nq_open
from influence_jax.data.text import tokenizer
from influence_jax.models import stored_tensors
from influence_jax.models.gpt_neo import GPTNeoConfig, hugging_face

Files = dict[str, bytes]
Rng = random.Random

_NUMBERS = (0, 1, -1, 2, 255, 256, 65535, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62,
            2**63 - 1, 2**63, 2**64 - 1, 10**9, 10**12, 10**30, -(2**63))  # fmt: skip
_TEXTS = ('', 'x', '\x00', '\x1b[2J', '\u202e', '\ud800', 'a' * 5_000, '../../etc', '(' * 500,
          'NaN', 'os.system', '<|endoftext|>', '\n')  # fmt: skip
_TOKENS = (b'(((((((((', b'[' * 5_000, b'{"a":' * 2_000, b'-' * 500, b'NaN', b'1e999', b'\x00' * 64,
           b'9' * 5_000, b'"', b'\\', b'\xff\xfe', b'PK\x03\x04', b'PK\x05\x06', b'\x93NUMPY',
           b'None', b"'O'", b'True', b'\r\n', b'\xed\xa0\x80', b',,', b'""')  # fmt: skip


class Reader(NamedTuple):
    """A kind of file.

    make: the valid files of a case by name, from which it is mutated.
    mutate: changes one of the files; given their names.
    read: reads the folder they were written to.
    share: of all cases.
    """

    make: Callable[[Rng], Files]
    mutate: Callable[[Files, Rng], None]
    read: Callable[[Path], object]
    share: float


# --- mutations -----------------------------------------------------------------------------------


def mutate_bytes(content: bytes, rng: Rng) -> bytes:
    """Flips, cuts, repeats, inserts or overwrites a part."""
    if not content:
        return rng.choice(_TOKENS)
    at = rng.randrange(len(content))
    end = min(len(content), at + rng.choice((1, 2, 4, 8, 100, 10_000)))
    match rng.randrange(8):
        case 0:
            return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]
        case 1:
            return content[:at]
        case 2:
            return content[:at] + content[end:]
        case 3:
            return content[:end] + content[at:]
        case 4:
            return content[:at] + rng.choice(_TOKENS) + content[at:]
        case 5:
            width, form = rng.choice(((1, '<B'), (2, '<H'), (4, '<I'), (8, '<Q')))
            number = rng.choice(_NUMBERS) % 256**width
            return content[:at] + struct.pack(form, number) + content[at + width :]
        case 6:
            return content[:at] + rng.randbytes(end - at) + content[end:]
        case _:
            return _mutate_digits(content, rng)


def _mutate_digits(content: bytes, rng: Rng) -> bytes:
    """Replaces a number that is written in digits."""
    starts = [
        i
        for i, byte in enumerate(content[:20_000])
        if chr(byte).isdigit() and byte < 128 and (not i or not 48 <= content[i - 1] < 58)
    ]
    if not starts:
        return content + b'0'
    at = rng.choice(starts)
    end = at
    while end < len(content) and 48 <= content[end] < 58:
        end += 1
    return content[:at] + str(rng.choice(_NUMBERS)).encode() + content[end:]


def mutate_json(content: bytes, rng: Rng) -> bytes:
    """Changes a place in the tree of a JSON text, or its bytes where it is none any more."""
    if rng.random() < 0.2:
        return mutate_bytes(content, rng)
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return mutate_bytes(content, rng)
    places = _places(tree)
    if not places:
        return json.dumps(_hostile(rng)).encode()
    parent, key = rng.choice(places)
    match rng.randrange(6):
        case 0 if isinstance(parent, dict):
            parent[rng.choice(_TEXTS)] = parent.pop(key)
        case 1:
            del parent[key]
        case 2:
            nested: Any = parent[key]
            for _ in range(rng.choice((1, 10, 100, 900))):
                nested = [nested] if rng.random() < 0.5 else {'type': nested}
            parent[key] = nested
        case 3:
            other, name = rng.choice(places)
            parent[key] = json.loads(json.dumps(other[name])) if name in _keys(other) else None
        case 4 if isinstance(parent[key], list) and parent[key]:
            parent[key] = parent[key] * rng.choice((2, 40, 2_000))
            parent[key] = parent[key][:20_000]
        case _:
            parent[key] = _hostile(rng)
    try:
        return json.dumps(tree).encode()
    except RecursionError:
        return mutate_bytes(content, rng)


def _keys(parent: Any) -> Any:
    return parent if isinstance(parent, dict) else range(len(parent))


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Up to a few hundred places, those near the root always among them."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting and len(found) < 400:
        node = waiting.pop(0)
        if isinstance(node, dict | list):
            for key in list(_keys(node))[:60]:
                found.append((node, key))
                waiting.append(node[key])
    return found


def _hostile(rng: Rng) -> Any:
    return rng.choice(
        (
            rng.choice(_NUMBERS), rng.choice(_NUMBERS), rng.choice(_TEXTS), rng.choice(_TEXTS),
            None, True, False, [], {}, [[]], 0.5, -1.5, 1e308, float('nan'), float('inf'),
            {'type': 'Replace', 'pattern': {'String': rng.choice(_TEXTS)}, 'content': 'xx'},
            {'type': 'Split', 'pattern': {'Regex': rng.choice(('a*', '(a+)+$', '(', ''))},
             'behavior': 'Isolated', 'invert': False},
        )
    )  # fmt: skip


def _in_one_file(change: Callable[[bytes, Rng], bytes]) -> Callable[[Files, Rng], None]:
    def mutate(files: Files, rng: Rng) -> None:
        name = rng.choice([*files])
        files[name] = change(files[name], rng)

    return mutate


def _by_name(files: Files, rng: Rng) -> None:
    """Changes JSON as such, and other files as bytes."""
    name = rng.choice([*files])
    change = mutate_json if name.endswith('.json') else mutate_bytes
    files[name] = change(files[name], rng)


# --- arrays --------------------------------------------------------------------------------------

_DTYPES = ('|u1', '<f4', '>f8', '|b1', '<i8', '<U4', '|S3', '|O', '<c16', '<M8[ns]', '<f2')


def _saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=(1, 0))
    return file.getvalue()


def _hostile_npy(rng: Rng) -> bytes:
    """A header of our own making, and fewer or more bytes than it tells of."""
    shape = tuple(
        rng.choice((0, 1, 3, 8, 3, 8, rng.choice(_NUMBERS))) for _ in range(rng.randrange(6))
    )
    filled = f"'descr': '{rng.choice(_DTYPES)}', 'fortran_order': {rng.choice((True, False))}"
    text = f"{{{filled}, 'shape': {shape}}}"
    if rng.random() < 0.3:
        text = rng.choice(
            ('(' * 9_000, '-' * 9_000 + '1', '', text[:-1], f'[{text}]', 'a' * 60_000)
        )
    version = rng.choice((1, 1, 2, 3, 9))
    form = '<H' if version == 1 else '<I'
    length = len(text) if rng.random() < 0.8 else rng.choice(_NUMBERS)
    packed = struct.pack(form, length % 256 ** struct.calcsize(form))
    return (
        b'\x93NUMPY'
        + bytes([version, 0])
        + packed
        + text.encode()
        + rng.randbytes(rng.randrange(300))
    )


def _npy(rng: Rng) -> Files:
    if rng.random() < 0.4:
        return {'a.npy': _hostile_npy(rng)}
    kind = rng.choice(('u1', '?', 'f4', '<U5', 'i8'))
    return {'a.npy': _saved(np.zeros(rng.choice(((3, 4), (7,), (2, 2, 2), ())), kind))}


def _read_npy(folder: Path) -> object:
    found = array_files.array(str(folder / 'a.npy'), remedy='it')
    return found.size and found.reshape(-1)[0], str(found[:1] if found.ndim else found)


def _npz(rng: Rng) -> Files:
    count = rng.choice((2, 6))
    arrays = {
        rng.choice(('images', 'images', 'x_train', 'X')): np.zeros(
            rng.choice(((count, 8, 8, 3), (count, 3, 8, 8), (count, 8, 8))),
            rng.choice(('u1', 'f4', '?', 'i8')),
        ),
        rng.choice(('labels', 'labels', 'y_train', 'y')): rng.choice(
            (np.arange(count), np.eye(count), np.array(['a', 'b'] * (count // 2)))
        ),
    }
    if rng.random() < 0.3:
        arrays['names'] = np.array(['n'] * count)
        arrays['ids'] = np.arange(count)
    file = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(file, 'w', method) as archive:
        for name, array in arrays.items():
            content = _saved(array)
            if rng.random() < 0.15:
                content = _hostile_npy(rng)
            elif rng.random() < 0.15:
                content = mutate_bytes(content, rng)
            elif rng.random() < 0.002:  # a bomb
                size = 2**26
                text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size},)}}"
                content = b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)) + text.encode()
                content += bytes(size)
            archive.writestr(f'{name}.npy', content)
    return {'a.npz': file.getvalue()}


def _mutate_npz(files: Files, rng: Rng) -> None:
    """The fields of directory and local headers, and bytes."""
    content = bytearray(files['a.npz'])
    signature, fields = rng.choice(
        (
            (b'PK\x03\x04', ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2))),
            (b'PK\x01\x02', ((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2),
                             (32, 2), (42, 4))),
            (b'PK\x05\x06', ((4, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2))),
        )
    )  # fmt: skip
    places = [found.start() for found in re.finditer(re.escape(signature), content)]
    if rng.random() < 0.4 or not places:
        files['a.npz'] = mutate_bytes(bytes(content), rng)
        return
    offset, width = rng.choice(fields)
    at = rng.choice(places) + offset
    number = rng.choice((99, 12, 14, 9, *_NUMBERS)) % 256**width
    content[at : at + width] = number.to_bytes(width, 'little')
    files['a.npz'] = bytes(content)


# --- language models -----------------------------------------------------------------------------

_CONFIG = GPTNeoConfig(vocab_size=12, hidden=8, layers=2, heads=2, max_positions=16)


def _config(rng: Rng) -> Files:
    return {'config.json': json.dumps(_CONFIG.to_hugging_face()).encode()}


def _mutate_config(files: Files, rng: Rng) -> None:
    if rng.random() < 0.5:
        files['config.json'] = mutate_json(files['config.json'], rng)
        return
    try:
        fields = json.loads(files['config.json'])
        name = rng.choice([*fields])
    except (ValueError, TypeError, IndexError, RecursionError):
        files['config.json'] = mutate_bytes(files['config.json'], rng)
        return
    fields[name] = rng.choice(_NUMBERS) if rng.random() < 0.6 else _hostile(rng)
    if rng.random() < 0.3:
        times = rng.choice(_NUMBERS)
        fields['attention_types'] = [[rng.choice((['global'], [], ['local', 'global'])), times]]
        fields['num_layers'] = times
    files['config.json'] = json.dumps(fields).encode()


def _tensors(rng: Rng, names: tuple[str, ...] = ('a', 'b', 'c')) -> bytes:
    header, data = {}, b''
    for name in names:
        shape = rng.choice(([2, 3], [4], [], [0, 3]))
        kind, width = rng.choice((('F32', 4), ('F16', 2), ('BF16', 2), ('F64', 8)))
        content = bytes(width * int(np.prod(shape)))
        header[name] = {
            'dtype': kind,
            'shape': shape,
            'data_offsets': [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(header).encode()
    return struct.pack('<Q', len(text)) + text + data


def _mutate_tensors(files: Files, rng: Rng) -> None:
    name = rng.choice([*files])
    content = files[name]
    if name.endswith('.json'):
        files[name] = mutate_json(content, rng)
    elif rng.random() < 0.4 or len(content) < 8:
        files[name] = mutate_bytes(content, rng)
    else:  # the header's tree, with a length that mostly fits
        (length,) = struct.unpack('<Q', content[:8])
        text = mutate_json(content[8 : 8 + length], rng)
        told = len(text) if rng.random() < 0.9 else rng.choice(_NUMBERS) % 2**64
        files[name] = struct.pack('<Q', told) + text + content[8 + length :]


def _index(rng: Rng) -> Files:
    files = {'model-1.safetensors': ('a', 'b'), 'model-2.safetensors': ('c',)}
    weights = {name: file for file, names in files.items() for name in names}
    index = {'metadata': {'total_size': 10}, 'weight_map': weights}
    return {
        'model.safetensors.index.json': json.dumps(index).encode(),
        **{file: _tensors(rng, names) for file, names in files.items()},
    }


def _read_tensors(folder: Path) -> object:
    found = stored_tensors.find(folder)
    return [tensor.sum() for _, tensor in stored_tensors.read(found)]


def _checkpoint(rng: Rng) -> Files:
    """A whole checkpoint, whose tensors are as its config says."""
    with tempfile.TemporaryDirectory() as folder:
        params = _params()
        hugging_face.save(folder, _CONFIG, params, end=0)
        return {
            name: (Path(folder) / name).read_bytes()
            for name in ('config.json', 'model.safetensors')
        }


def _params() -> Any:
    import jax

    from influence_jax.models.gpt_neo.network import abstract

    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), abstract(_CONFIG))


def _mutate_checkpoint(files: Files, rng: Rng) -> None:
    if rng.random() < 0.5:
        config = {'config.json': files['config.json']}
        _mutate_config(config, rng)
        files |= config
    else:
        weights = {'model.safetensors': files['model.safetensors']}
        _mutate_tensors(weights, rng)
        files |= weights


_TRAINED: list[Files] = []


def _tokenizer(rng: Rng) -> Files:
    if not _TRAINED:
        trained = tokenizer.train_byte_bpe(['the cat and the hat sat'], 280)
        with tempfile.TemporaryDirectory() as folder:
            trained.save(folder)
            _TRAINED.append({path.name: path.read_bytes() for path in Path(folder).iterdir()})
    files = dict(_TRAINED[0])
    fields = json.loads(files['tokenizer.json'])
    if rng.random() < 0.4:
        fields['model'] = rng.choice(
            (
                {'type': 'WordLevel', 'vocab': {'<|endoftext|>': 0, 'the': 1}, 'unk_token': 'the'},
                {'type': 'WordPiece', 'vocab': {'<|endoftext|>': 0, 'a': 1, '##b': 2},
                 'unk_token': 'a', 'continuing_subword_prefix': '##',
                 'max_input_chars_per_word': 100},
                {'type': 'Unigram', 'vocab': [['<|endoftext|>', 0.0], ['a', -1.0], ['b', -2.0]],
                 'unk_id': 1, 'byte_fallback': False},
            )
        )  # fmt: skip
    if rng.random() < 0.6:
        step = {'type': 'Replace', 'pattern': {'String': 'a'}, 'content': 'aa'}
        fields['normalizer'] = {
            'type': 'Sequence',
            'normalizers': [step, {'type': 'NFKD'}, {'type': 'Prepend', 'prepend': '_'}],
        }
        fields['pre_tokenizer'] = {
            'type': 'Sequence',
            'pretokenizers': [
                {'type': 'Split', 'pattern': {'Regex': r'\s+(?!\S)|\p{N}{1,3}'},
                 'behavior': 'Isolated', 'invert': False},
                fields['pre_tokenizer'],
                {'type': 'FixedLength', 'length': 5},
            ],
        }  # fmt: skip
    if rng.random() < 0.2:
        fields['truncation'] = {'direction': 'Right', 'max_length': 5, 'strategy': 'LongestFirst',
                                'stride': 0}  # fmt: skip
        fields['padding'] = {'strategy': {'Fixed': 8}, 'direction': 'Right', 'pad_id': 0,
                             'pad_to_multiple_of': None, 'pad_type_id': 0,
                             'pad_token': '<|endoftext|>'}  # fmt: skip
    files['tokenizer.json'] = json.dumps(fields).encode()
    return files


def _mutate_tokenizer(files: Files, rng: Rng) -> None:
    if rng.random() < 0.25:
        _by_name(files, rng)
        return
    # Its vocabulary is large: most changes would be there, and not at what a tokenizer does.
    try:
        fields = json.loads(files['tokenizer.json'])
        part = rng.choice(
            ['normalizer', 'pre_tokenizer', 'decoder', 'model', 'added_tokens', 'padding']
        )
        changed = mutate_json(json.dumps(fields[part]).encode(), rng)
        if part == 'model' and rng.random() < 0.5:
            name = rng.choice([*fields['model']])
            fields['model'][name] = _hostile(rng)
        else:
            fields[part] = json.loads(changed)
        files['tokenizer.json'] = json.dumps(fields).encode()
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        _by_name(files, rng)


_READ = 'The cat\'s 42 h\u00e4ts \U0001f600 "aaaaaaaaaa"\n\n  end \x00 ' * 5


def _use(opened: tokenizer.Tokenizer) -> object:
    return opened.decode(opened.encode(_READ)), opened.vocab_size, opened.unknown_characters(_READ)


# --- records -------------------------------------------------------------------------------------


def _jsonl(rng: Rng) -> Files:
    records = [
        {'text': 'a plain one', 'id': 3},
        {'prompt': 'Once', 'completion': ' upon'},
        {'question': 'who', 'answer': ['me', 'you'], 'more': {'a': [1.5, None]}},
    ]
    return {'a.jsonl': b'\n'.join(json.dumps(one).encode() for one in records)}


def _mutate_jsonl(files: Files, rng: Rng) -> None:
    lines = files['a.jsonl'].split(b'\n')
    at = rng.randrange(len(lines))
    lines[at] = mutate_json(lines[at], rng)
    files['a.jsonl'] = b'\n'.join(lines)


def _ids(rng: Rng) -> Files:
    name = rng.choice(('ids.json', 'ids.npy', 'ids.txt'))
    ids = ['a', 'b\u00e9', 'c\u2028']
    content = {
        'ids.json': json.dumps(rng.choice((ids, [1, 2, 3]))).encode(),
        'ids.npy': _saved(np.array(rng.choice((ids, [1, 2, 3])))),
        'ids.txt': '\n'.join(ids).encode(),
    }
    return {name: content[name]}


def _read_ids(folder: Path) -> object:
    (path,) = folder.iterdir()
    return array_files.ids(str(path), what='example', expected=3)


def _cifar(rng: Rng) -> Files:
    return {'data_batch_1.bin': b''}


def _mutate_cifar(files: Files, rng: Rng) -> None:
    """Sizes around that of a batch; within one, bytes that are labels or pixels."""
    whole = 10_000 * 3_073
    size = rng.choice((0, 1, 3_073, whole - 1, whole, whole, whole, whole + 1, whole - 3_073))
    content = bytearray(size)
    for _ in range(rng.randrange(3)):
        if size:
            content[rng.randrange(size) // 3_073 * 3_073] = rng.choice((0, 9, 10, 255))
    files['data_batch_1.bin'] = bytes(content)


_PREPARED: list[Files] = []


def _prepared(rng: Rng) -> Files:
    """What TFDS writes for a few questions."""
    if not _PREPARED:
        import tensorflow_datasets as tfds
        from array_record.python import array_record_module

        text = tfds.features.Text()
        features = tfds.features.FeaturesDict(
            {'question': text, 'answer': tfds.features.Sequence(text)}
        )
        name = 'natural_questions_open-train.array_record-00000-of-00001'
        with tempfile.TemporaryDirectory() as folder:
            writer = array_record_module.ArrayRecordWriter(f'{folder}/{name}', 'group_size:1')
            for i in range(5):
                writer.write(
                    features.serialize_example({'question': f'q{i}', 'answer': ['a', 'b']})
                )
            writer.close()
            features.save_config(folder)
            info = {
                'name': 'natural_questions_open',
                'fileFormat': 'array_record',
                'version': '1.0.0',
                'splits': [{'name': 'train', 'numBytes': '9', 'shardLengths': ['5']}],
            }
            _PREPARED.append(
                {
                    'dataset_info.json': json.dumps(info).encode(),
                    'features.json': (Path(folder) / 'features.json').read_bytes(),
                    name: (Path(folder) / name).read_bytes(),
                }
            )
    return dict(_PREPARED[0])


def _mutate_prepared(files: Files, rng: Rng) -> None:
    """The descriptions; now and then a byte of the records, which C++ reads."""
    names = [name for name in files if name.endswith('.json')]
    if rng.random() < 0.1:
        (shard,) = files.keys() - set(names)
        files[shard] = mutate_bytes(files[shard], rng)
        return
    name = rng.choice(names)
    files[name] = mutate_json(files[name], rng)
    if rng.random() < 0.3:
        try:
            fields = json.loads(files['features.json'])
            place = rng.choice((fields, fields['featuresDict']['features']['question']))
            place[rng.choice(('type', 'python_class_name', 'pythonClassName'))] = 'antigravity.X'
            files['features.json'] = json.dumps(fields).encode()
        except (ValueError, TypeError, KeyError, RecursionError):
            return


READERS: dict[str, Reader] = {
    'npy': Reader(_npy, _in_one_file(mutate_bytes), _read_npy, 0.18),
    'npz': Reader(_npz, _mutate_npz, lambda folder: npz.load(folder / 'a.npz'), 0.18),
    'config.json': Reader(
        _config, _mutate_config, lambda folder: hugging_face.load_config(folder), 0.14
    ),
    'safetensors': Reader(
        lambda rng: {'model.safetensors': _tensors(rng)}, _mutate_tensors, _read_tensors, 0.12
    ),
    'safetensors index': Reader(_index, _mutate_tensors, _read_tensors, 0.05),
    'checkpoint': Reader(
        _checkpoint, _mutate_checkpoint, lambda folder: hugging_face.load(folder), 0.01
    ),
    'tokenizer.json': Reader(
        _tokenizer, _mutate_tokenizer, lambda folder: _use(tokenizer.load(folder)), 0.10
    ),
    'tokenizer by transformers': Reader(
        _tokenizer, _mutate_tokenizer, lambda folder: _use(tokenizer.from_pretrained(folder)), 0.02
    ),
    'jsonl': Reader(_jsonl, _mutate_jsonl, lambda folder: jsonl.load(folder / 'a.jsonl'), 0.09),
    'ids': Reader(_ids, _by_name, _read_ids, 0.07),
    'features.json': Reader(_prepared, _mutate_prepared, nq_open.load, 0.035),
    'CIFAR-10 binary': Reader(_cifar, _mutate_cifar, cifar10.load, 0.005),
}
