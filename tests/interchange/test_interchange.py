"""Ensembles of others: their layouts, what is certain of masks, names, shards, and refusals."""

import json
import os
import pickle
import zipfile

import numpy as np
import pytest
import scipy.special

from influence_jax import interchange
from influence_jax.analysis import membership

M, N, T, C = 12, 5, 5, 3


@pytest.fixture
def masks():
    return np.random.default_rng(0).permuted(np.arange(M)[:, None] % 2 == np.zeros(N), axis=0)


@pytest.fixture
def losses():
    return np.random.default_rng(1).normal(size=(M, T)).astype(np.float32)


class TestMasks:
    def test_the_usual_ways_say_the_same(self, masks):
        for written in (masks, masks.astype(np.uint8), 2.0 * masks - 1, masks.tolist()):
            np.testing.assert_array_equal(interchange.as_masks(written), masks)
        positions = [np.flatnonzero(row).tolist() for row in masks]
        np.testing.assert_array_equal(interchange.as_masks(positions, examples=N), masks)

    def test_positions_of_one_length(self):
        found = interchange.as_masks(np.array([[3, 0], [1, 2]]), examples=5)
        np.testing.assert_array_equal(found, [[1, 0, 0, 1, 0], [0, 1, 1, 0, 0]])

    @pytest.mark.parametrize(
        ('subsets', 'examples', 'message'),
        [
            (np.array([[3, 0], [1, 2]]), None, r'positions of examples \(0 .. 3\)'),
            ([[0], [1, 2]], None, 'different lengths: give the number'),
            ([[0], [1, 7]], 5, 'member 1 holds position 7, but'),
            ([[0, 0], [1]], 5, 'member 0 holds a position twice'),
            (np.ones((3, 4), int), None, 'holds 1 alone'),
            (np.full((3, 4), 0.5), None, r'float64 with values such as 0.5'),
            (np.array([['a']]), None, 'neither booleans nor numbers'),
            (np.zeros(4, bool), None, r'matrix \[members examples\], not one of \[4\]'),
        ],
    )
    def test_doubt_is_refused(self, subsets, examples, message):
        with pytest.raises(ValueError, match=message):
            interchange.as_masks(subsets, examples=examples)


@pytest.fixture
def lira(tmp_path, masks):
    """A folder as the reference code writes it, two epochs of logits, two augmentations."""
    generator = np.random.default_rng(2)
    labels = generator.integers(0, C, N + 2)  # more than the examples, as of a smaller dataset_size
    np.save(tmp_path / 'y_train.npy', labels)
    logits = generator.normal(size=(M, N, 1, 2, C)).astype(np.float32)
    for member in range(M):
        folder = tmp_path / f'experiment-{member}_{M}'
        (folder / 'logits').mkdir(parents=True)
        np.save(folder / 'keep.npy', masks[member])
        np.save(folder / 'logits' / '0000000009.npy', 0 * logits[member])
        np.save(folder / 'logits' / '0000000010.npy', logits[member])
        (folder / 'hparams.json').write_text('{}')
    (tmp_path / 'notes').mkdir()
    return tmp_path, labels[:N], logits


class TestLiRA:
    def test_logits_of_the_last_epoch_in_the_order_of_numbers(self, lira, masks):
        folder, labels, logits = lira
        found = interchange.read_lira(folder)
        np.testing.assert_array_equal(found.masks, masks)
        assert found.member_ids[2] == f'experiment-2_{M}'  # and 10 comes after 9
        log_p = scipy.special.log_softmax(logits[:, :, 0].astype(float), axis=-1)
        own = np.take_along_axis(log_p, labels[None, :, None, None], -1)[..., 0]
        np.testing.assert_allclose(found.measurements['loss'], -own.mean(2), rtol=1e-5)
        gap = own - np.log(-np.expm1(own))
        np.testing.assert_allclose(
            found.measurements['logit_gap'], gap.mean(2), rtol=1e-4, atol=1e-5
        )
        assert 'epoch 10' in found.source and '2 augmentations' in found.source

    def test_an_epoch_and_augmentations_on_demand(self, lira):
        folder, *_ = lira
        early = interchange.read_lira(folder, epoch=9)
        np.testing.assert_allclose(early.measurements['loss'], np.log(C), rtol=1e-6)
        kept = interchange.read_lira(folder, keep_augmentations=True).measurements
        both = (kept['loss_augmentation_0'] + kept['loss_augmentation_1']) / 2
        np.testing.assert_allclose(both, kept['loss'], rtol=1e-6)

    def test_scores_alone_say_the_loss(self, lira):
        folder, *_ = lira
        expected = interchange.read_lira(folder, keep_augmentations=True).measurements
        (folder / 'y_train.npy').unlink()
        for member, path in enumerate(sorted(folder.glob('experiment-*'), key=_number)):
            (path / 'scores').mkdir()
            gaps = [expected[f'logit_gap_augmentation_{one}'][member] for one in range(2)]
            np.save(path / 'scores' / '0000000010.npy', np.stack(gaps, axis=1))
        found = interchange.read_lira(folder)
        np.testing.assert_allclose(
            found.measurements['loss'], expected['loss'], rtol=1e-4, atol=1e-6
        )

    def test_it_is_a_run_for_attacks(self, lira):
        folder, *_ = lira
        run = interchange.read_lira(folder).run(drop_inestimable=True)
        attack = membership.lira(run.masks, run.measurement('logit_gap'))
        assert attack.scores.shape[1] == N

    def test_refusals(self, lira, tmp_path):
        folder, *_ = lira
        with pytest.raises(ValueError, match=r'logits of epoch 7; of all there are: 9, 10'):
            interchange.read_lira(folder, epoch=7)
        one = folder / f'experiment-3_{M}'
        np.save(one / 'keep.npy', np.ones(N + 1, bool))
        with pytest.raises(ValueError, match=rf'experiment-3.*\[{N + 1}\]'):
            interchange.read_lira(folder)
        np.save(one / 'keep.npy', np.ones(N, bool))
        for path in (one / 'logits').iterdir():
            path.unlink()
        with pytest.raises(ValueError, match=f'1 of {M} experiments have no logits'):
            interchange.read_lira(folder)
        (tmp_path / 'empty').mkdir()
        with pytest.raises(FileNotFoundError, match='holds no experiments'):
            interchange.read_lira(tmp_path / 'empty')
        with pytest.raises(FileNotFoundError, match='no such folder'):
            interchange.read_lira(tmp_path / 'nowhere')


def _number(path):
    return int(path.name.split('-')[1].split('_')[0])


class TestFeldmanZhang:
    @pytest.fixture
    def archive(self, tmp_path, masks):
        generator = np.random.default_rng(3)
        path = tmp_path / 'infl_mem.npz'
        arrays = {
            'trainset_mask': masks,
            'trainset_correctness': generator.random((M, N)) < 0.7,
            'testset_correctness': (generator.random((M, 7)) < 0.7).astype(int),
        }
        np.savez(path, **arrays)
        return path, arrays

    def test_errors_of_examples_or_of_tests(self, archive, masks):
        path, arrays = archive
        found = interchange.read_feldman_zhang(path)
        np.testing.assert_array_equal(found.masks, masks)
        np.testing.assert_array_equal(found.measurements['loss'], ~arrays['trainset_correctness'])
        tests = interchange.read_feldman_zhang(path, test=True)
        np.testing.assert_array_equal(tests.measurements['loss'], 1 - arrays['testset_correctness'])
        assert (tests.run(drop_inestimable=True).target_examples == -1).all()

    def test_an_influence_is_that_of_the_paper(self, archive, masks):
        path, arrays = archive
        run = interchange.read_feldman_zhang(path, test=True).run()
        correct, target, example = arrays['testset_correctness'], 2, 1
        own = masks[:, example]
        expected = correct[own, target].mean() - correct[~own, target].mean()
        from influence_jax.estimators import difference_in_means

        found = difference_in_means(run.masks, run.measurement('loss')).values[example, target]
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_refusals(self, archive, tmp_path, masks):
        path, arrays = archive
        np.savez(tmp_path / 'lacks.npz', trainset_mask=masks)
        with pytest.raises(ValueError, match='has no testset_correctness'):
            interchange.read_feldman_zhang(tmp_path / 'lacks.npz', test=True)
        arrays['trainset_correctness'] = np.full((M, N), 0.5)
        np.savez(path, **arrays)
        with pytest.raises(ValueError, match='True or 1 where a member is right'):
            interchange.read_feldman_zhang(path)
        with pytest.raises(FileNotFoundError, match=r'nowhere.npz: no such file'):
            interchange.read_feldman_zhang('nowhere.npz')


class TestFiles:
    def test_every_kind_holds_the_same(self, tmp_path, masks, losses):
        import pandas
        from safetensors.numpy import save_file

        names = [f'target {number}' for number in range(T)]
        np.save(tmp_path / 'l.npy', losses)
        np.savez(tmp_path / 'l.npz', losses=losses, masks=masks)
        save_file({'losses': losses}, tmp_path / 'l.safetensors')
        frame = pandas.DataFrame(losses, columns=names)
        frame.to_parquet(tmp_path / 'l.parquet', index=False)
        pandas.DataFrame({'loss': list(losses), 'id': [f'm{m}' for m in range(M)]}).to_parquet(
            tmp_path / 'lists.parquet'
        )
        frame.insert(0, 'member', [f'm{m}' for m in range(M)])
        frame.to_csv(tmp_path / 'l.csv', index=False)
        for name in (
            'l.npy',
            'l.npz:losses',
            'l.safetensors',
            'l.parquet',
            'lists.parquet:loss',
            'lists.parquet',
            'l.csv',
        ):
            found = interchange.read_matrix(str(tmp_path / name))
            np.testing.assert_allclose(found.values, losses, rtol=1e-6, err_msg=name)
        assert found.columns == tuple(names) and found.rows[3] == 'm3'
        assert interchange.read_matrix(str(tmp_path / 'lists.parquet')).rows[3] == 'm3'

    def test_a_saved_dataset(self, tmp_path, masks):
        import pyarrow

        folder = tmp_path / 'dataset'
        folder.mkdir()
        (folder / 'state.json').write_text('{}')
        positions = [np.flatnonzero(row).tolist() for row in masks]
        table = pyarrow.table({'subset': positions, 'member': [f'm{m}' for m in range(M)]})
        sink = str(folder / 'data-00000-of-00001.arrow')
        with pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        found = interchange.read_matrix(f'{folder}:subset')
        np.testing.assert_array_equal(interchange.as_masks(found.values, examples=N), masks)
        assert found.rows[0] == 'm0'

    def test_shards(self, tmp_path, losses):
        np.save(tmp_path / 'a.npy', losses[:4])
        np.save(tmp_path / 'b.npy', losses[4:])
        found = interchange.read_matrix(f'{tmp_path}/a.npy,{tmp_path}/b.npy')
        np.testing.assert_array_equal(found.values, losses)
        np.save(tmp_path / 'b.npy', losses[4:, 1:])
        with pytest.raises(ValueError, match=r'b.npy has columns \[4\].*\[5\]'):
            interchange.read_matrix(f'{tmp_path}/a.npy,{tmp_path}/b.npy')

    def test_members_are_matched_by_name(self, tmp_path, masks, losses):
        def save(path, values, order, first):
            lines = [','.join(['member', *(f'{first}{n}' for n in range(values.shape[1]))])]
            lines += [','.join([f'm{m}', *map(str, values[m].astype(float))]) for m in order]
            path.write_text('\n'.join(lines))

        save(tmp_path / 'masks.csv', masks, range(M), 'e')
        save(tmp_path / 'losses.csv', losses, range(M - 1, -1, -1), 't')
        found = interchange.read_ensemble(f'{tmp_path}/masks.csv', f'{tmp_path}/losses.csv')
        np.testing.assert_allclose(found.measurements['loss'], losses, rtol=1e-6)
        assert found.ids == ('e0', 'e1', 'e2', 'e3', 'e4') and found.target_ids[0] == 't0'
        assert (found.run(drop_inestimable=True).target_examples == -1).all()
        save(tmp_path / 'losses.csv', losses, range(M - 1), 't')
        with pytest.raises(ValueError, match="name other members, such as 'm11'"):
            interchange.read_ensemble(f'{tmp_path}/masks.csv', f'{tmp_path}/losses.csv')

    def test_a_member_that_occurs_twice_is_refused(self, tmp_path, masks):
        (tmp_path / 'masks.csv').write_text('member,a,b\nm0,0,1\nm1,1,0\n')
        (tmp_path / 'losses.csv').write_text('member,t\nm0,0.5\nm1,1.5\nm0,99.5\n')
        with pytest.raises(ValueError, match="name other members, such as 'm0'"):
            interchange.read_ensemble(f'{tmp_path}/masks.csv', f'{tmp_path}/losses.csv')

    def test_numbers_of_members_are_no_target(self, tmp_path, losses):
        import pandas

        frame = pandas.DataFrame(losses, columns=[f't{t}' for t in range(T)])
        frame.to_csv(tmp_path / 'l.csv', index_label='member')
        frame.index = np.random.default_rng(0).permutation(M)
        frame.to_parquet(tmp_path / 'l.parquet')
        for name, first in (('l.csv', '0'), ('l.parquet', str(frame.index[0]))):
            found = interchange.read_matrix(str(tmp_path / name))
            assert found.rows[0] == first and len(found.columns) == T
            np.testing.assert_allclose(found.values, losses, rtol=1e-6)

    def test_labels_and_positions_in_tables(self, tmp_path):
        import pandas

        logits = np.random.default_rng(4).normal(size=(3, N, C)).astype(np.float32)
        labels = pandas.DataFrame({'label': np.arange(N) % C})
        labels.to_csv(tmp_path / 'labels.csv', index=False)
        labels.to_parquet(tmp_path / 'labels.parquet')
        np.save(tmp_path / 'logits.npy', logits)
        (tmp_path / 'masks.csv').write_text('first,second\n0,3\n1,2\n4,0\n')
        for name in ('labels.csv', 'labels.parquet', 'labels.parquet:label'):
            found = interchange.read_ensemble(
                f'{tmp_path}/masks.csv',
                logits=f'{tmp_path}/logits.npy',
                labels=f'{tmp_path}/{name}',
                examples=N,
            )
            assert found.ids is None and found.masks.sum(axis=1).tolist() == [2, 2, 2]
            assert found.measurements['loss'].shape == (3, N)

    def test_logits_and_labels(self, tmp_path, masks):
        generator = np.random.default_rng(4)
        logits = generator.normal(size=(M, N, C)).astype(np.float32)
        labels = generator.integers(0, C, N)
        for name, array in (('masks', masks), ('logits', logits), ('labels', labels)):
            np.save(tmp_path / f'{name}.npy', array)
        where = {name: f'{tmp_path}/{name}.npy' for name in ('logits', 'labels')}
        found = interchange.read_ensemble(f'{tmp_path}/masks.npy', **where)
        log_p = scipy.special.log_softmax(logits.astype(float), axis=-1)
        np.testing.assert_allclose(
            found.measurements['loss'], -log_p[:, np.arange(N), labels], rtol=1e-5
        )
        np.save(tmp_path / 'labels.npy', labels + C)
        with pytest.raises(ValueError, match=f'none of the {C} classes'):
            interchange.read_ensemble(f'{tmp_path}/masks.npy', **where)
        with pytest.raises(ValueError, match='logits together with labels'):
            interchange.read_ensemble(f'{tmp_path}/masks.npy', logits=where['logits'])

    @pytest.mark.parametrize(
        ('name', 'content', 'message'),
        [
            ('a.npz', {'x': np.zeros(2), 'y': np.zeros(2)}, "holds 'x', 'y'"),
            ('a.csv', 'a,b\n1,2\n3\n', 'line 3 has 1 cells, and the first 2'),
            ('a.csv', 'a,b\nm,2\nn,two\n', "holds 'two' where"),
            ('a.txt', '1', 'of no kind that is read'),
        ],
    )
    def test_refusals(self, tmp_path, name, content, message):
        path = tmp_path / name
        if isinstance(content, dict):
            np.savez(path, **content)
        else:
            path.write_text(content)
        with pytest.raises(ValueError, match=message):
            interchange.read_matrix(str(path))
        with pytest.raises(FileNotFoundError):
            interchange.read_matrix(str(tmp_path / 'nowhere.csv'))


class Storage:
    """Stands for torch.FloatStorage in a pickle that is written without PyTorch."""

    def __init__(self, name):
        self.name = name


class Tensor:
    def __init__(self, array, key, size=None, strides=None):
        self.array, self.key, self.size = array, key, size or array.shape
        self.strides = strides or tuple(step // array.itemsize for step in array.strides)


class Evil:
    def __reduce__(self):
        return os.system, ('touch evil',)


def save_torch(path, content):
    """Writes what torch.save writes: the instructions of its pickle, by hand."""
    import io

    storages = {}

    class Pickler(pickle._Pickler):
        def save(self, one, save_persistent_id=True):
            if isinstance(one, Storage):
                self.write(b'ctorch\n' + one.name.encode() + b'\n')
            elif isinstance(one, Tensor):
                storages[one.key] = one.array.tobytes('A')
                kind = {'f4': 'FloatStorage', 'b1': 'BoolStorage', 'i8': 'LongStorage'}
                self.write(b'ctorch._utils\n_rebuild_tensor_v2\n(')
                name = kind[one.array.dtype.str[1:]]
                super().save(('storage', Storage(name), one.key, 'cpu', one.array.size))
                self.write(b'Q')
                for part in (0, one.size, one.strides, False, {}):
                    super().save(part)
                self.write(b'tR')
            else:
                super().save(one, save_persistent_id)

    sink = io.BytesIO()
    Pickler(sink, 2).dump(content)
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('archive/data.pkl', sink.getvalue())
        archive.writestr('archive/byteorder', 'little')
        for key, raw in storages.items():
            archive.writestr(f'archive/data/{key}', raw)


class TestTorch:
    def test_tensors_in_lists_and_dictionaries(self, tmp_path, masks, losses):
        path = tmp_path / 'all.pt'
        save_torch(
            path,
            {
                'masks': Tensor(masks, '0'),
                'deep': [Tensor(losses, '1'), 3, 'text', None, (1.5, True)],
                'transposed': Tensor(losses.T, '1'),
            },
        )
        found = interchange.torch_arrays(path)
        assert list(found) == ['masks', 'deep/0', 'transposed']
        np.testing.assert_array_equal(found['masks'], masks)
        np.testing.assert_array_equal(found['transposed'].T, found['deep/0'])
        np.testing.assert_array_equal(interchange.read_matrix(f'{path}:deep/0').values, losses)

    def test_what_torch_itself_writes(self, tmp_path):
        torch = pytest.importorskip('torch')
        values = torch.arange(12, dtype=torch.float64).reshape(3, 4)
        torch.save({'a': values.T, 'b': values.bfloat16(), 'c': values > 3}, tmp_path / 'a.pt')
        found = interchange.torch_arrays(tmp_path / 'a.pt')
        np.testing.assert_array_equal(found['a'], values.numpy().T)
        assert found['b'].dtype == np.float32 and found['c'].dtype == bool

    def test_nothing_in_a_pickle_is_run(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        save_torch(tmp_path / 'evil.pt', {'a': Evil()})
        with pytest.raises(ValueError, match=r"holds 'posix system'.*numpy.save"):
            interchange.torch_arrays(tmp_path / 'evil.pt')
        assert not (tmp_path / 'evil').exists()

    def test_nothing_grows_beyond_the_file(self, tmp_path, losses):
        path = tmp_path / 'a.pt'
        save_torch(path, Tensor(np.zeros(4, np.float32), '0', size=(1000, 4), strides=(0, 1)))
        with pytest.raises(ValueError, match='repeats what it stores'):
            interchange.torch_arrays(path)
        save_torch(path, Tensor(losses, '0'))
        with zipfile.ZipFile(path, 'a', zipfile.ZIP_DEFLATED) as archive, pytest.warns(UserWarning):
            archive.writestr('archive/byteorder', b'little' * 10_000)
        with pytest.raises(ValueError, match='byteorder is too large'):
            interchange.torch_arrays(path)
        nested = []
        for _ in range(40):
            nested = [nested, nested]  # a trillion places, a few bytes
        save_torch(path, nested)
        with pytest.raises(ValueError, match='more than 1,000,000 things'):
            interchange.torch_arrays(path)
        cyclic = []
        cyclic.append(cyclic)
        save_torch(path, cyclic)
        with pytest.raises(ValueError, match='nested more than 200 deep'):
            interchange.torch_arrays(path)

    def test_refusals(self, tmp_path):
        path = tmp_path / 'a.pt'
        save_torch(path, Tensor(np.zeros(3, np.float32), '0', size=(4,)))
        with pytest.raises(ValueError, match='larger than its storage'):
            interchange.torch_arrays(path)
        path.write_bytes(pickle.dumps({'a': 1}))
        with pytest.raises(ValueError, match='older files are pickles'):
            interchange.torch_arrays(path)
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('x', json.dumps(1))
        with pytest.raises(ValueError, match=r'not one of torch.save'):
            interchange.torch_arrays(path)

    def test_damaged_files_are_refused_in_one_line(self, tmp_path, losses):
        path = tmp_path / 'a.pt'
        save_torch(path, {'a': Tensor(losses, '0'), 'b': [1, 2, (3, 'x')]})
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        generator = np.random.default_rng(0)
        for _ in range(200):
            pickled = bytearray(parts['archive/data.pkl'])
            for place in generator.integers(0, len(pickled), 2):
                pickled[place] = generator.integers(256)
            with zipfile.ZipFile(path, 'w') as archive:
                for name, raw in {**parts, 'archive/data.pkl': bytes(pickled)}.items():
                    archive.writestr(name, raw)
            try:
                interchange.torch_arrays(path)
            except ValueError as error:
                assert '\n' not in str(error)
