"""Files that are damaged, lost, half made, or somebody else's."""

import numpy as np
import pytest

from influence_jax import store


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    'a flipped bit': _flip,
    'truncated': lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 3]),
    'truncated by a byte': lambda path: path.write_bytes(path.read_bytes()[:-1]),
    'empty': lambda path: path.write_bytes(b''),
    'shifted': lambda path: path.write_bytes(b'\0' + path.read_bytes()),
    'gone': lambda path: path.unlink(),
}
damaged = pytest.mark.parametrize('damage', DAMAGES.values(), ids=DAMAGES.keys())


@damaged
def test_a_damaged_row_names_member_and_file_and_can_be_mended(
    directory, manifest, masks, values, record, damage, one_line
):
    path = directory / 'measurements/loss.zarr/c.3.0'
    damage(path)
    run = store.open_run(directory)
    message = one_line(store.CorruptRun, run.measurement)
    assert f'{path} of member 3' in message
    np.testing.assert_array_equal(run.measurement('correct')[:8], values['correct'][:8])

    # The mend that the message gives.
    status = directory / 'status.zarr/c.3'
    assert f'delete {status}' in message
    status.unlink()
    with store.create_or_resume(directory, manifest, masks) as run:
        np.testing.assert_array_equal(run.missing, [3, 8, 9, 10, 11])
        assert np.isnan(run.measurement()[3]).all()
        record(run, 3)
    np.testing.assert_array_equal(store.open_run(directory).measurement()[:8], values['loss'][:8])


def test_no_flipped_bit_of_a_row_goes_unnoticed(directory):
    run = store.open_run(directory)
    path = directory / 'measurements/loss.zarr/c.3.0'
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(store.CorruptRun, match='checksum'):
            run.measurement()


def test_bytes_after_a_rows_end_are_damage(directory, one_line):
    path = directory / 'measurements/loss.zarr/c.3.0'
    path.write_bytes(path.read_bytes() + bytes(4))
    message = one_line(store.CorruptRun, store.open_run(directory).measurement)
    assert f'{path} of member 3' in message and '36 bytes' in message


@damaged
def test_damaged_masks_name_the_file(directory, manifest, masks, damage, one_line):
    path = directory / 'masks.zarr/c.0.0'
    damage(path)
    assert str(path) in one_line(store.CorruptRun, store.open_run, directory)
    assert str(path) in one_line(
        store.CorruptRun, store.create_or_resume, directory, manifest, masks
    )


@damaged
@pytest.mark.parametrize('part', ['status.zarr/c.5', 'digests.zarr/c.5.0.0'])
def test_a_damaged_status_names_member_and_file_and_can_be_mended(
    directory, manifest, masks, values, record, part, damage, one_line
):
    path, status = directory / part, directory / 'status.zarr/c.5'
    damage(path)
    if path.exists() or path != status:  # a status that is gone is a member that is missing
        message = one_line(store.CorruptRun, store.open_run, directory)
        assert f'{path} of member 5' in message
        assert (f'delete {status} and' if path != status else 'delete it and') in message
        status.unlink()
    with store.create_or_resume(directory, manifest, masks) as run:
        assert run.missing.tolist() == [5, 8, 9, 10, 11]
        record(run, 5)
    run = store.open_run(directory)
    np.testing.assert_array_equal(run.measurement()[:8], values['loss'][:8])


@pytest.mark.parametrize('part', ['masks.zarr', 'status.zarr', 'measurements/loss.zarr'])
@pytest.mark.parametrize('text', [None, '{', '{}', '{"zarr_format": 2}'])
def test_damaged_metadata_names_the_file(directory, part, text, one_line):
    path = directory / part / 'zarr.json'
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    assert str(path) in one_line(store.CorruptRun, store.open_run, directory)


def test_metadata_that_does_not_fit_the_manifest_is_refused(directory, one_line):
    path = directory / 'measurements/loss.zarr/zarr.json'
    path.write_text(path.read_text().replace('[12,7]', '[12,8]'))
    assert str(path) in one_line(store.CorruptRun, store.open_run, directory)


def test_a_foreign_directory_is_refused_and_left_alone(tmp_path, manifest, masks, one_line):
    (tmp_path / 'thesis.tex').write_text('dear')
    message = one_line(store.NotARun, store.create_or_resume, tmp_path, manifest, masks)
    assert "'thesis.tex'" in message
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.tex']
    assert 'is not a run' in one_line(store.NotARun, store.open_run, tmp_path)


def test_other_files_beside_a_run_are_no_matter(directory, manifest, masks):
    (directory / 'index.html').write_text('a report')
    store.create_or_resume(directory, manifest, masks).close()
    assert (directory / 'index.html').exists()


def test_a_file_or_nothing_is_no_run(tmp_path, manifest, masks, one_line):
    file = tmp_path / 'file'
    file.write_text('')
    assert 'is a file' in one_line(store.NotARun, store.create_or_resume, file, manifest, masks)
    assert 'no such directory' in one_line(store.NotARun, store.open_run, file)
    assert 'no such directory' in one_line(store.NotARun, store.open_run, tmp_path / 'none')
    below = file / 'below'
    one_line(store.RunError, store.create_or_resume, below, manifest, masks)
    one_line(store.NotARun, store.open_run, below)


def test_line_breaks_in_names_stay_out_of_messages(tmp_path, one_line):
    one_line(store.NotARun, store.open_run, tmp_path / 'a\nb')


@pytest.mark.parametrize('left', [[], ['lock'], ['lock', 'masks.zarr'], ['lock', 'status.zarr']])
def test_a_half_made_directory_is_no_run_and_is_finished(
    tmp_path, manifest, masks, values, record, left, one_line
):
    whole = tmp_path / 'whole'
    store.create_or_resume(whole, manifest, masks).close()
    half = tmp_path / 'half'
    half.mkdir()
    for name in left:
        (whole / name).rename(half / name)
    if 'masks.zarr' in left:
        (half / 'masks.zarr/c.0.0').write_bytes(b'half of it')
    (half / 'manifest.json.partial').write_text('{"format"')

    assert 'interrupted' in one_line(store.NotARun, store.open_run, half)
    with store.create_or_resume(half, manifest, masks) as run:
        record(run, *range(12))
    run = store.open_run(half)
    np.testing.assert_array_equal(run.masks, masks)
    np.testing.assert_array_equal(run.measurement(), values['loss'])
    assert not (half / 'manifest.json.partial').exists()


def test_members_without_a_manifest_are_not_thrown_away(directory, manifest, masks, one_line):
    (directory / 'manifest.json').unlink()
    message = one_line(store.NotARun, store.create_or_resume, directory, manifest, masks)
    assert 'recorded members but no manifest.json' in message
    assert (directory / 'status.zarr/c.0').exists()
