"""Anyone's tensors: from flags to the page."""

import csv
import dataclasses
import html
import json
import sys

import numpy as np
import pytest

from experiments import estimate
from experiments.estimate import TensorSettings
from influence_jax import estimators, tensors
from influence_jax.analysis import Convergence
from influence_jax.estimators import adjusted
from influence_jax.explorer import open_results
from influence_jax.report import matrix, theme
from influence_jax.report.theme import Theme
from tests import reference

M, N, T = 40, 6, 6
IDS = ['=cmd()', 'two', '<b>three</b>', 'four\x1b[2J', 'five', 'six']


def drawn(members=M, examples=N, targets=T):
    """Masks with every example on both sides, and losses that each own example lowers by 2."""
    rng = np.random.default_rng(0)
    masks = rng.random((members, examples)) < 0.5
    masks[:2], masks[2:4] = True, False
    losses = rng.normal(3, 0.1, (members, targets))
    shared = min(examples, targets)
    losses[:, :shared] -= 2 * masks[:, :shared]
    return masks, losses.astype(np.float32)


@pytest.fixture
def saved(tmp_path):
    """Saves arrays under names and gives the settings that ask for them."""

    def save(masks=None, losses=None, **settings):
        good = drawn()
        for name, value, default in (
            ('masks', masks, good[0]),
            ('losses', losses, good[1]),
        ):
            np.save(tmp_path / f'{name}.npy', default if value is None else value)
        return TensorSettings(
            **{
                'masks': str(tmp_path / 'masks.npy'),
                'losses': str(tmp_path / 'losses.npy'),
                'output_dir': str(tmp_path / 'report'),
                **settings,
            }
        )

    return save


@pytest.fixture
def listed(tmp_path):
    """A file of ids, in the form that its ending says."""

    def save(ids, name='ids.json'):
        path = tmp_path / name
        if path.suffix == '.json':
            path.write_text(json.dumps(ids))
        elif path.suffix == '.npy':
            np.save(path, np.array(ids))
        else:
            path.write_text(''.join(f'{one}\n' for one in ids), newline='')
        return str(path)

    return save


@pytest.fixture
def undrawn(monkeypatch):
    """Spares tests that look at no figure the drawing, and the curve of convergence."""
    half = np.array([0.5])
    curve = Convergence(np.array([16]), half, half, half, half, half)
    monkeypatch.setattr(
        sys.modules['influence_jax.analysis.views'], 'split_half', lambda *_, **__: curve
    )
    blank = matrix.matrix_pixels(np.zeros((1, 1)), limit=1.0, theme=Theme.light())
    monkeypatch.setattr(theme, 'png', lambda _: blank)


def rows_of(directory, name='targets.csv'):
    with (directory / name).open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def changed(array, at, value):
    array = array.copy()
    array[at] = value
    return array


MASKS, LOSSES = drawn()
NAN = float('nan')


@pytest.mark.parametrize('unit', ['', ' ', '$x$', 'a\x1b[2J'])
def test_a_unit_that_is_no_label(saved, unit):
    with pytest.raises(ValueError, match='unit='):
        estimate.run(saved(unit=unit))


def test_what_stops_it_is_said_in_one_line(monkeypatch):
    def stop(error):
        def run(settings):
            raise error

        return run

    monkeypatch.setattr(estimate.flags, 'read', lambda settings: settings())
    for error, message in (
        (KeyboardInterrupt(), 'stopped; nothing was written'),
        (MemoryError('Unable to allocate 9 TiB'), r'error: out of memory \(Unable'),
    ):
        monkeypatch.setattr(estimate, 'run', stop(error))
        with pytest.raises(SystemExit, match=message):
            estimate.run_from_flags()


@pytest.mark.parametrize('name', ['masks', 'losses', 'output_dir'])
def test_what_must_be_given(saved, name):
    with pytest.raises(ValueError, match=f'{name}=? is missing: give .*{name}='):
        estimate.run(dataclasses.replace(saved(), **{name: ''}))


@pytest.mark.usefixtures('undrawn')
def test_what_is_written_is_what_the_estimator_says(saved, listed, tmp_path, capsys):
    masks, losses = drawn(members=64)
    losses[6] = NAN
    page = estimate.run(saved(masks, losses, ids=listed(IDS), unit='points'))
    assert page == tmp_path / 'report' / 'index.html'
    rows = rows_of(page.parent)
    shown = [one.replace('\x1b', '\ufffd') for one in IDS]
    assert [row['id'] for row in rows] == ["'=cmd()", *shown[1:]]
    expected = estimators.adjusted(masks, losses)
    for column, values in (
        ('self_influence', np.diag(expected.values)),
        ('self_influence_standard_error', np.diag(expected.standard_error)),
        ('margin', reference.top1_margin(expected.values)),
        ('mean_loss', np.delete(losses, 6, axis=0).mean(axis=0)),
    ):
        np.testing.assert_allclose([float(row[column]) for row in rows], values, rtol=1e-3)
    text, printed = page.read_text(), ' '.join(capsys.readouterr().out.split())
    for shown in (text, printed):
        assert 'Left out of every estimate: 1 of 64 members' in shown
        assert 'by difference of means: for' not in shown
    assert 'estimator: adjusted' in printed
    assert '<b>three</b>' not in text
    assert '&lt;b&gt;three&lt;/b&gt;' in text
    assert '\x1b[2J' not in printed
    assert 'not trained yet' not in text
    for shown in (text, printed):
        assert 'points' in shown
        assert 'nats' not in shown


@pytest.mark.usefixtures('undrawn')
@pytest.mark.parametrize('keep', [True, False])
def test_tensors_are_kept_for_the_explorer_unless_they_are_not_wanted(saved, keep):
    page = estimate.run(saved(keep_tensors=keep))
    if keep:
        for kept, given in zip(open_results(page.parent).tensors(), drawn(), strict=True):
            np.testing.assert_array_equal(kept, given)
    assert open_results(page.parent).has_tensors == keep


def test_too_few_members_for_the_estimator_are_said_and_estimated_otherwise(saved, capsys):
    page = estimate.run(saved(estimator=adjusted))
    expected = estimators.difference_in_means(MASKS, LOSSES)
    found = [float(row['self_influence']) for row in rows_of(page.parent)]
    np.testing.assert_allclose(found, np.diag(expected.values), rtol=1e-4)
    for shown in (page.read_text(), ' '.join(capsys.readouterr().out.split())):
        assert 'by difference of means: for the estimator adjusted at least 48' in shown
        assert 'there are 40' in shown


@pytest.mark.parametrize('before', ['file', 'thesis.txt'])
def test_a_directory_of_something_else_is_refused_before_anything_is_read(
    saved, tmp_path, monkeypatch, before
):
    monkeypatch.setattr(tensors, 'as_run', lambda *_, **__: pytest.fail('read'))
    output = tmp_path / 'report'
    if before == 'file':
        output.write_text('mine')
    else:
        output.mkdir()
        (output / before).write_text('mine')
    with pytest.raises(FileExistsError, match=r'choose (another|a) directory'):
        estimate.run(saved())
    with pytest.raises(FileExistsError, match=r'masks\.npy is a file'):
        estimate.run(saved(output_dir=str(tmp_path / 'masks.npy' / 'deep' / 'er')))


@pytest.mark.usefixtures('undrawn')
def test_losses_beyond_float32_are_left_out_by_name(saved):
    settings = saved(losses=changed(LOSSES.astype(np.float64), (9, 2), 2.8e306))
    page = estimate.run(settings)
    text = html.unescape(page.read_text())
    assert '1 of 40 members' in text and "'9'" in text
    rows = rows_of(page.parent)
    assert max(float(row['mean_loss']) for row in rows) < 10


@pytest.mark.usefixtures('undrawn')
@pytest.mark.parametrize(
    ('masks', 'losses', 'words'),
    [
        (~MASKS, LOSSES, 'masks are inverted'),
        (MASKS, np.exp(-LOSSES), 'better the larger'),
        (MASKS, np.roll(LOSSES, 1, axis=1), 'No own influence stands out'),
        (MASKS, np.full_like(LOSSES, 0.1), 'the same for all members'),
        (MASKS, LOSSES, None),
    ],
    ids=['inverted', 'probability', 'order', 'constant', 'right'],
)
def test_inputs_that_mean_something_else_are_told_by_their_numbers(
    saved, capsys, masks, losses, words
):
    page = estimate.run(saved(masks=masks, losses=losses)).read_text()
    printed = ' '.join(capsys.readouterr().out.split())
    assert ('Caution: ' in printed) == (words is not None)
    for shown in (page, printed):
        assert words is None or words in ' '.join(shown.split())


@pytest.mark.slow
def test_the_report_is_there_when_nobody_reads_what_is_printed(saved, launch, start, tmp_path):
    """`| head -1` reads one line; an ASCII terminal cannot show all."""
    settings = saved(masks=MASKS[:30], losses=LOSSES[:30])
    flags = [f'--{name}={getattr(settings, name)}' for name in ('masks', 'losses', 'output_dir')]
    begun = start(*flags, name='estimate')
    begun.stdout.close()
    assert 'rror' not in begun.stderr.read()
    assert begun.wait(120) == 0
    assert (tmp_path / 'report' / 'index.html').exists()
    begun.stderr.close()


@pytest.mark.parametrize('numbers', [MASKS.astype(np.uint8), np.where(MASKS, 1.0, -1.0)])
def test_masks_of_numbers_in_one_file_are_converted(saved, numbers):
    read = saved(masks=numbers, losses=LOSSES).read()
    np.testing.assert_array_equal(read.masks, MASKS)
    np.testing.assert_allclose(read.measurement('loss'), LOSSES, rtol=1e-6)


@pytest.mark.slow
def test_from_the_command_line(saved, launch, tmp_path, assert_refused):
    settings = saved(masks=MASKS[:30], losses=LOSSES[:30])
    flags = [f'--{name}={getattr(settings, name)}' for name in ('masks', 'losses', 'output_dir')]
    done = launch(*flags, '--estimator=difference', name='estimate')
    assert done.returncode == 0, done.stderr
    assert f'report: {tmp_path}/report/index.html' in done.stdout
    assert len(rows_of(tmp_path / 'report')) == T
    before = sorted(tmp_path.rglob('*'))
    np.save(settings.masks, 3 * MASKS[:30].astype(np.uint8))
    assert_refused(launch(*flags, name='estimate'), 'values such as 0, 3', 'neither 0 and 1')
    assert sorted(tmp_path.rglob('*')) == before


def test_help_of_estimate_reads_well(launch):
    text = launch('--help', name='estimate').stdout
    assert 'python -m experiments.estimate' in text
    for field in TensorSettings.__dataclass_fields__:
        assert f'--{field}: ' in text or f'--[no]{field}: ' in text
    assert '<difference|adjusted|ridge|lasso|shrunk>' in text


def test_other_layouts_give_the_same_report(saved, tmp_path, undrawn):
    settings = saved()
    masks, losses = drawn()
    estimate.run(settings)
    expected = (tmp_path / 'report' / 'targets.csv').read_text()
    np.savez(tmp_path / 'both.npz', masks=2 * masks.astype(int) - 1, losses=losses)
    for folder, others in (
        (
            'archive',
            {'masks': f'{tmp_path}/both.npz:masks', 'losses': f'{tmp_path}/both.npz:losses'},
        ),
        ('scores', {'masks': '', 'losses': '', 'lira': str(tmp_path / 'lira')}),
    ):
        if others.get('lira'):
            for member in range(M):
                one = tmp_path / 'lira' / f'experiment-{member}_{M}'
                (one / 'scores').mkdir(parents=True)
                np.save(one / 'keep.npy', masks[member])
                gap = -np.log(np.expm1(losses[member].astype(float)))
                np.save(one / 'scores' / '0000000001.npy', gap[:, None])
        estimate.run(dataclasses.replace(settings, output_dir=str(tmp_path / folder), **others))
        found = (tmp_path / folder / 'targets.csv').read_text()
        for one, other in zip(
            csv.DictReader(found.splitlines()), csv.DictReader(expected.splitlines()), strict=True
        ):
            np.testing.assert_allclose(
                float(one['self_influence']), float(other['self_influence']), rtol=1e-3
            )
