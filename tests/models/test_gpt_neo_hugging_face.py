"""Checkpoints there and back, and what is refused."""

import json
import os
import shutil
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from influence_jax.models import stored_tensors
from influence_jax.models.gpt_neo import hugging_face
from influence_jax.trees import named
from tests.models.gpt_neo_cases import SMALL, params


@pytest.fixture
def folder(tmp_path):
    hugging_face.save(tmp_path / 'checkpoint', SMALL, params())
    return tmp_path / 'checkpoint'


@pytest.fixture
def sharded(tmp_path):
    hugging_face.save(tmp_path / 'sharded', SMALL, params(), max_shard_bytes=4000)
    return tmp_path / 'sharded'


def _rewrite(folder, change):
    """Changes the dictionary of tensors in the one file."""
    path = folder / 'model.safetensors'
    tensors = change(safetensors.numpy.load_file(path))
    safetensors.numpy.save_file(tensors, path, metadata={'format': 'pt'})


def _assert_loads(folder, expected=None):
    config, loaded = hugging_face.load(folder)
    assert config == SMALL
    for path, leaf in named(expected or params()).items():
        found = named(loaded)[path]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, leaf, err_msg=path)


def test_there_and_back(folder):
    _assert_loads(folder)
    assert {path.name for path in folder.iterdir()} == {'config.json', 'model.safetensors'}


def test_how_the_network_is_to_compute_is_the_callers_choice(folder):
    config, _ = hugging_face.load(str(folder), compute_dtype=jnp.bfloat16, remat=True)
    assert config.compute_dtype == jnp.bfloat16
    assert config.remat


def test_shards_there_and_back(sharded):
    _assert_loads(sharded)
    files = sorted(sharded.glob('*.safetensors'))
    assert len(files) > 3
    assert files[0].name == f'model-00001-of-{len(files):05}.safetensors'
    index = json.loads((sharded / 'model.safetensors.index.json').read_text())
    total = 0
    for file in files:
        tensors = safetensors.numpy.load_file(file)
        size = sum(tensor.nbytes for tensor in tensors.values())
        assert size <= 4000
        total += size
        assert all(index['weight_map'][name] == file.name for name in tensors)
    assert total == index['metadata']['total_size']
    assert total == sum(leaf.nbytes for leaf in named(params()).values())


def test_names_without_prefix_masks_and_a_tied_head(folder):
    def change(tensors):
        bare = {name.removeprefix('transformer.'): tensor for name, tensor in tensors.items()}
        bare['h.0.attn.attention.bias'] = np.tri(16, dtype=bool)[None, None]
        bare['h.1.attn.attention.masked_bias'] = np.float32([-1e9])
        bare['lm_head.weight'] = bare['wte.weight']
        return bare

    _rewrite(folder, change)
    _assert_loads(folder)


@pytest.mark.parametrize('dtype', [np.float16, jnp.bfloat16], ids=['f16', 'bf16'])
def test_half_precision_is_read_to_float32(folder, dtype):
    _rewrite(folder, lambda tensors: {n: t.astype(dtype) for n, t in tensors.items()})
    _, loaded = hugging_face.load(folder)
    for path, leaf in named(params()).items():
        found = named(loaded)[path]
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.asarray(leaf).astype(dtype).astype(np.float32))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda tensors: {n: t for n, t in tensors.items() if 'h.1.mlp' not in n},
            r'4 of 30 tensors are missing, the first is h\.1\.mlp\.c_fc\.weight',
        ),
        (
            lambda tensors: tensors | {'transformer.wpe.weight': np.zeros((16, 15), np.float32)},
            r'wpe\.weight has the shape \(16, 15\), but by config\.json it should be \(16, 16\)',
        ),
        (
            lambda tensors: (
                tensors | {'transformer.h.0.mlp.c_fc.weight': np.zeros((16, 24), np.float32)}
            ),
            r'h\.0\.mlp\.c_fc\.weight has the shape \(16, 24\).*should be \(24, 16\)',
        ),
        (
            lambda tensors: tensors | {'transformer.h.2.ln_1.bias': np.zeros(16, np.float32)},
            r'tensor h\.2\.ln_1\.bias has no place',
        ),
        (
            lambda tensors: tensors | {'lm_head.weight': np.ones((31, 16), np.float32)},
            r'lm_head\.weight is not the token embedding',
        ),
        (
            lambda tensors: tensors | {'transformer.ln_f.bias': np.zeros(16, np.int8)},
            r'ln_f\.bias holds I8; only floating-point',
        ),
    ],
    ids=['missing', 'shape', 'transposed', 'unknown', 'untied', 'quantized'],
)
def test_tensors_that_do_not_fit_are_refused(folder, change, message):
    _rewrite(folder, change)
    with pytest.raises(ValueError, match=message) as error:
        hugging_face.load(folder)
    assert str(folder) in str(error.value)
    assert '\n' not in str(error.value)


_INDEX = 'model.safetensors.index.json'
_SECOND = 'model-00002-of-00006.safetensors'


def _replace(path, make):
    path.unlink()
    make(path)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-10])


@pytest.mark.parametrize(
    ('damage', 'kind', 'message'),
    [
        (lambda f: _cut(f / 'model-00002-of-00006.safetensors'), ValueError, r'00002.*damaged'),
        (
            lambda f: (f / 'model-00002-of-00006.safetensors').unlink(),
            FileNotFoundError,
            r'1 of 6 files of the checkpoint are missing, the first is model-00002',
        ),
        (
            lambda f: (f / 'model.safetensors.index.json').write_text('{"weight'),
            ValueError,
            r'index\.json: not an index',
        ),
        (
            lambda f: (f / 'model.safetensors.index.json').write_text('[]'),
            ValueError,
            r'index\.json: not an index',
        ),
        (
            lambda f: (f / 'model.safetensors.index.json').write_text(
                '{"weight_map": {"wte.weight": "../other.safetensors"}}'
            ),
            ValueError,
            r"names '\.\./other\.safetensors'",
        ),
        (
            lambda f: (f / 'model.safetensors.index.json').unlink(),
            FileNotFoundError,
            r'neither model\.safetensors nor',
        ),
        (lambda f: (f / 'config.json').unlink(), FileNotFoundError, r'no config\.json'),
        (lambda f: (f / 'config.json').write_text('{'), ValueError, r'config\.json: not JSON'),
        (lambda f: (f / 'config.json').write_text('[]'), ValueError, r'config\.json: not an obj'),
        (
            lambda f: (f / 'config.json').write_text('{"model_type": "llama"}'),
            ValueError,
            r"config\.json: model_type is 'llama', but only gpt_neo",
        ),
        (lambda f: (f / 'config.json').write_text('[' * 100_000), ValueError, r'json: .*nested'),
        (lambda f: (f / _INDEX).write_text('[' * 100_000), ValueError, r'index\.json: .*nested'),
        (
            lambda f: (f / _INDEX).write_text('{"weight_map": {"a": "\\u001b[2J.safetensors"}}'),
            FileNotFoundError,
            r'first is \\x1b\[2J',
        ),
        (
            lambda f: (f / _INDEX).write_text(
                json.dumps({'weight_map': {'a': 'x' * 5_000 + '.safetensors'}})
            ),
            ValueError,
            r"names 'xxx",
        ),
        (lambda f: _replace(f / 'config.json', os.mkfifo), ValueError, r'config\.json is a pipe'),
        (lambda f: _replace(f / 'config.json', os.mkdir), ValueError, r'is a directory'),
        (lambda f: _replace(f / _INDEX, os.mkfifo), ValueError, r'index\.json is a pipe'),
        (lambda f: _replace(f / _SECOND, os.mkfifo), ValueError, r'00002.* is a pipe'),
        (lambda f: _replace(f / _SECOND, os.mkdir), ValueError, r'00002.* is a directory'),
        (shutil.rmtree, FileNotFoundError, r'no such folder'),
    ],
)
def test_what_cannot_be_read_is_refused(sharded, damage, kind, message):
    assert len(list(sharded.glob('*.safetensors'))) == 6
    damage(sharded)
    with pytest.raises(kind, match=message) as error:
        hugging_face.load(sharded)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1_000


def test_pickles_are_refused_with_the_way_out(folder):
    (folder / 'model.safetensors').rename(folder / 'pytorch_model.bin')
    with pytest.raises(ValueError, match=r'pickle.*save_pretrained\(.*safe_serialization=True\)'):
        hugging_face.load(folder)


def test_saving_replaces_an_earlier_checkpoint_and_nothing_else(sharded):
    (sharded / 'tokenizer.json').write_text('{}')
    other = params(seed=1)
    hugging_face.save(sharded, SMALL, other)
    names = {path.name for path in sharded.iterdir()}
    assert names == {'config.json', 'model.safetensors', 'tokenizer.json'}
    _assert_loads(sharded, other)


def test_a_save_that_fails_leaves_the_earlier_checkpoint(folder, monkeypatch):
    written = []

    def full_disk(path, tensors):
        path.write_bytes(b'half')
        written.append(path)
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(hugging_face.stored_tensors, 'write', full_disk)
    with pytest.raises(OSError, match='No space'):
        hugging_face.save(folder, SMALL, params(seed=1))
    assert written
    assert {path.name for path in folder.iterdir()} == {'config.json', 'model.safetensors'}
    _assert_loads(folder)


def test_a_save_that_is_killed_between_files_is_no_checkpoint(sharded, monkeypatch):
    real, renamed = hugging_face.Path.rename, []

    def killed(path, target):
        if len(renamed) == 3:
            raise KeyboardInterrupt
        renamed.append(target)
        return real(path, target)

    monkeypatch.setattr(hugging_face.Path, 'rename', killed)
    with pytest.raises(KeyboardInterrupt):
        hugging_face.save(sharded, SMALL, params(seed=1), max_shard_bytes=4000)
    with pytest.raises(FileNotFoundError, match=r'no config\.json'):
        hugging_face.load(sharded)


def test_parameters_of_many_members_are_refused(tmp_path):
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params())
    with pytest.raises(ValueError, match=r'has the shape \(2, 16\), .*asks for \(16,\)'):
        hugging_face.save(tmp_path / 'new', SMALL, stacked)
    assert not (tmp_path / 'new').exists()


def _tensor(shape=(2,), offsets=(0, 8), dtype='F32', **more):
    return {'dtype': dtype, 'shape': shape, 'data_offsets': offsets} | more


@pytest.mark.parametrize(
    ('header', 'size', 'message'),
    [
        ({'a': _tensor()}, 7, 'take 8 bytes, but it holds 7'),
        ({'a': _tensor()}, 9, 'take 8 bytes, but it holds 9'),
        ({'a': _tensor(shape=[10**6, 10**6])}, 8, 'takes 8 bytes'),
        ({'a': _tensor(shape=[2**62, 2**62, 0], offsets=[0, 8])}, 8, 'takes 8 bytes'),
        ({'a': _tensor(shape=[1] * 9)}, 8, 'the header tells'),
        ({'a': _tensor(shape=[-2])}, 8, 'the header tells'),
        ({'a': _tensor(shape=[True, 2])}, 8, 'the header tells'),
        ({'a': _tensor(shape=[2**70])}, 8, 'the header tells'),
        ({'a': _tensor(offsets=[8, 0])}, 8, 'takes -8 bytes'),
        ({'a': _tensor(offsets=[0, 8, 9])}, 8, 'the header tells'),
        ({'a': _tensor(), 'b': _tensor()}, 8, 'begins at 0, but the one before ends at 8'),
        ({'a': _tensor(), 'b': _tensor(offsets=[9, 17])}, 17, 'begins at 9'),
        ({'a': _tensor(more=1)}, 8, 'the header tells'),
        ({'\x1b' * 10**5: 3}, 8, 'the header tells 3'),
        ([], 8, 'no object'),
        ([[[[[[]]]]]], 8, '4 levels'),
    ],
)
def test_headers_of_safetensors_that_lie(tmp_path, header, size, message):
    text = json.dumps(header).encode()
    path = tmp_path / 'model.safetensors'
    path.write_bytes(struct.pack('<Q', len(text)) + text + bytes(size))
    with pytest.raises(ValueError, match=f'damaged or incomplete .*{message}') as refused:
        stored_tensors.find(tmp_path)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize('length', [9, 2**31, 2**63, 2**64 - 1])
def test_a_header_longer_than_the_file(tmp_path, length):
    (tmp_path / 'model.safetensors').write_bytes(struct.pack('<Q', length) + bytes(8))
    with pytest.raises(ValueError, match=f'its header claims {length:,} bytes'):
        stored_tensors.find(tmp_path)
