"""Masks and losses beside a report: what is read is what was there, or nothing."""

import numpy as np
import pytest

from influence_jax.report import ArrayRun, KeptTensors, check_directory, storage
from influence_jax.report.kept import TENSORS

M, N, T = 9, 13, 5


@pytest.fixture
def run():
    rng = np.random.default_rng(0)
    losses = rng.normal(size=(M, T)).astype(np.float32)
    losses[4, 2] = np.nan
    own = np.array([3, -1, 0, 12, 5])
    return ArrayRun(rng.random((M, N)) < 0.5, losses, target_examples=own)


def test_complete_members_come_back(run, tmp_path):
    KeptTensors.of(run).save(tmp_path)
    kept, complete = KeptTensors.load(tmp_path), np.delete(np.arange(M), 4)
    np.testing.assert_array_equal(kept.masks, run.masks[complete])
    np.testing.assert_array_equal(kept.losses, run.measurement()[complete])
    np.testing.assert_array_equal(kept.target_examples, run.target_examples)
    size = sum(file.stat().st_size for file in (tmp_path / TENSORS / 'mask_bits').glob('c*'))
    assert size <= (M - 1) * 2 + 16  # eight examples a byte


def test_there_are_none(tmp_path):
    with pytest.raises(FileNotFoundError):
        KeptTensors.load(tmp_path)


@pytest.mark.parametrize('examples', [N + 4, 8, -1])
def test_widths_that_do_not_fit_are_refused(run, tmp_path, examples):
    KeptTensors.of(run)._replace(examples=examples).save(tmp_path)
    with pytest.raises(ValueError, match=f'{examples}'):
        KeptTensors.load(tmp_path)


def test_they_are_part_of_a_report(run, tmp_path):
    KeptTensors.of(run).save(tmp_path)
    check_directory(tmp_path)
    (tmp_path / 'mine').write_text('')
    with pytest.raises(FileExistsError, match='mine'):
        check_directory(tmp_path)


def test_large_arrays_are_several_files_and_one_file_is_read_as_well(run, tmp_path, monkeypatch):
    kept = KeptTensors.of(run)
    for name, per_file, files in (('several', 3 * T * 4, 3), ('one', 2**24, 1)):
        monkeypatch.setattr(storage, '_BYTES_PER_FILE', per_file)
        (tmp_path / name).mkdir()
        kept.save(tmp_path / name)
        assert len(list((tmp_path / name / TENSORS / 'losses').glob('c*'))) == files
        monkeypatch.undo()
        np.testing.assert_array_equal(KeptTensors.load(tmp_path / name).losses, kept.losses)
