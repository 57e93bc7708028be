"""What reports show of examples: kept with the run, whole, small, and its own."""

import dataclasses
import shutil

import numpy as np
import pytest

from influence_jax import store
from influence_jax.store import shown as shown_module

N = 10
AWKWARD = ('', 'é', '\ud800', '\0', '</script>', '\n"', '\u202e', '[1]', 'x' * 10_000, ' ')


def _shown(**changes):
    rng = np.random.default_rng(0)
    fields = {
        'names': AWKWARD,
        'labels': tuple(f'class {i % 3}' for i in range(N)),
        'groups': np.arange(N) // 2,
        'changes': ('', 'noise') * (N // 2),
        'texts': AWKWARD[::-1],
        'prompts': ('a prompt',) * N,
        'completions': ('its end',) * N,
        'images': rng.integers(0, 256, (N, 5, 4, 3), np.uint8),
        'columns': ('a', 'b'),
        'rows': tuple((f'{i}', f'{i / 3:.2f}') for i in range(N)),
        'class_names': ('class 0', 'class 1', 'class 2', 'of none'),
        'provenance': 'made up',
        'notes': ('two were left out',),
    }
    return store.Shown(**{**fields, **changes})


def _assert_equal(found, expected):
    for field in dataclasses.fields(expected):
        value = getattr(expected, field.name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(found, field.name), value)
            assert getattr(found, field.name).dtype == value.dtype
        else:
            assert getattr(found, field.name) == value, field.name


@pytest.mark.parametrize(
    'expected',
    [
        _shown(),
        store.Shown(names=AWKWARD),
        _shown(images=np.zeros((N, 64, 1, 1), np.uint8), groups=None, texts=None, rows=None),
    ],
    ids=['all', 'names alone', 'some'],
)
def test_what_is_shown_is_read_again(directory, manifest, masks, expected):
    assert store.open_run(directory).shown is None
    with store.create_or_resume(directory, manifest, masks) as run:
        run.write_shown(expected)
        _assert_equal(run.shown, expected)
    _assert_equal(store.open_run(directory).shown, expected)


def test_pixels_of_several_files(directory, manifest, masks, monkeypatch):
    monkeypatch.setattr(shown_module, '_BYTES_PER_PIXELS_FILE', 3 * 5 * 4 * 3)
    with store.create_or_resume(directory, manifest, masks) as run:
        run.write_shown(_shown())
    assert len(list((directory / 'examples.zarr').glob('c.*'))) == 4
    _assert_equal(store.open_run(directory).shown, _shown())


def test_the_same_is_not_written_again_but_other_or_damaged_is(directory, manifest, masks):
    def write(expected):
        with store.create_or_resume(directory, manifest, masks) as run:
            run.write_shown(expected)
        _assert_equal(store.open_run(directory).shown, expected)
        return (directory / 'examples.json').stat().st_mtime_ns

    first = write(_shown())
    assert write(_shown()) == first
    assert write(_shown(images=255 - _shown().images)) != first
    write(_shown(images=None))
    write(_shown())
    (directory / 'examples.zarr/c.0.0.0.0').write_bytes(b'half of it')
    write(_shown())


@pytest.mark.parametrize('shape', [(200, 100), (100, 200), (65, 65), (3000, 2)])
@pytest.mark.parametrize('channels', [1, 2, 3, 4])
def test_images_are_kept_small_grey_or_rgb(shape, channels):
    image = np.zeros((1, *shape, channels), np.uint8)
    image[:, : shape[0] // 2] = 200
    kept = store.Shown(names=('a',), images=image).images
    assert max(kept.shape[1:3]) == 64 and kept.shape[3] == (3 if channels >= 3 else 1)
    assert kept.shape[1] == max(1, round(64 * shape[0] / max(shape)))
    assert (kept[0, 0] == 200).all() and (kept[0, -1] == 0).all()


def test_small_images_are_kept_as_they_are():
    images = np.random.default_rng(0).integers(0, 256, (N, 64, 64, 3), np.uint8)
    np.testing.assert_array_equal(store.Shown(names=AWKWARD, images=images).images, images)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ('changes', 'match'),
    [
        ({'names': ('a', 'b')}, 'labels'),
        ({'names': (1,) * N}, 'names must be'),
        ({'labels': ('a',)}, '1 labels, expected 10'),
        ({'changes': ('a',)}, '1 changes'),
        ({'texts': 'text'}, 'texts must be'),
        ({'prompts': ('a',)}, '1 prompts'),
        ({'groups': np.zeros(3, int)}, 'groups must be 10'),
        ({'groups': np.zeros(N)}, 'groups must be 10'),
        ({'groups': np.full(N, 2**40)}, 'groups must be'),
        ({'images': np.zeros((N, 5, 4), np.uint8)}, 'images must be'),
        ({'images': np.zeros((N, 5, 4, 3))}, 'images must be'),
        ({'images': np.zeros((N, 0, 4, 3), np.uint8)}, 'images must be'),
        ({'images': np.zeros((3, 5, 4, 3), np.uint8)}, '3 images for 10'),
        ({'rows': (('a', 'b'),)}, '1 rows for 10'),
        ({'rows': (('a',),) * N}, 'a row'),
        ({'provenance': None}, 'provenance must be'),
    ],
)
def test_wrong_fields_are_refused(changes, match, refused):
    with refused(match):
        _shown(**changes)


def test_another_number_of_examples_is_refused(directory, manifest, masks, one_line):
    with store.create_or_resume(directory, manifest, masks) as run:
        message = one_line(ValueError, run.write_shown, store.Shown(names=('a',)))
    assert '1 names for 10 examples' in message
    assert not (directory / 'examples.json').exists()


def test_another_runs_examples_are_noticed(directory, tmp_path, changed_manifest, masks, one_line):
    other = tmp_path / 'other'
    for path, manifest in ((directory, changed_manifest()), (other, changed_manifest(seeds={}))):
        with store.create_or_resume(path, manifest, masks) as run:
            run.write_shown(_shown(images=_shown().images + (path == other)))
    pixels = 'examples.zarr/c.0.0.0.0'
    shutil.copy(other / pixels, directory / pixels)
    assert 'examples.zarr' in one_line(store.CorruptRun, lambda: store.open_run(directory).shown)
    shutil.copy(other / 'examples.json', directory / 'examples.json')
    assert 'examples.json' in one_line(store.CorruptRun, lambda: store.open_run(directory).shown)


@pytest.mark.parametrize('step', ['create', 'write', 'write_atomically'])
def test_stopped_while_it_is_written_there_is_none_or_the_old(
    directory, manifest, masks, monkeypatch, step
):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with store.create_or_resume(directory, manifest, masks) as run:
        run.write_shown(_shown())
    owner = shown_module if step == 'write_atomically' else shown_module.RowArray
    monkeypatch.setattr(owner, step, killed)
    with (
        pytest.raises(KeyboardInterrupt),
        store.create_or_resume(directory, manifest, masks) as run,
    ):
        run.write_shown(_shown(images=255 - _shown().images))
    monkeypatch.undo()
    assert store.open_run(directory).shown is None
    with store.create_or_resume(directory, manifest, masks) as run:
        run.write_shown(_shown())
    _assert_equal(store.open_run(directory).shown, _shown())


def test_pixels_are_not_written_where_a_link_leads(directory, manifest, masks, tmp_path, one_line):
    mine = tmp_path / 'mine'
    mine.mkdir()
    (mine / 'thesis.tex').write_text('dear')
    (directory / 'examples.zarr').symlink_to(mine)
    with store.create_or_resume(directory, manifest, masks) as run:
        assert 'examples.zarr is a link' in one_line(store.NotARun, run.write_shown, _shown())
    assert [path.name for path in mine.iterdir()] == ['thesis.tex']
