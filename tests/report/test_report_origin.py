"""A report is left as it is only where making it again would change nothing."""

import os
import shutil

import pytest
from pages import contents

import influence_jax
from influence_jax import compilation_cache, report, store
from influence_jax.report import origin as module

SETTINGS = {'estimator': 'difference'}


@pytest.fixture
def run(tmp_path):
    """A directory with files as a run has them."""
    directory = tmp_path / 'run'
    for name in ('manifest.json', 'masks.zarr/c.0.0', 'report/index.html', 'params/0', 'lock'):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(name)
    return directory


@pytest.fixture
def saved(written, tmp_path):
    """A report with its origin."""
    shutil.copytree(written.parent, tmp_path / 'saved')
    module.write_origin(tmp_path / 'saved', 'a digest', contents(written.parent))
    return tmp_path / 'saved'


def test_the_same_has_the_same_origin(run):
    first = report.origin_of(run, SETTINGS)
    assert first == report.origin_of(run, dict(SETTINGS))
    for name in ('report/index.html', 'params/0', 'lock'):
        (run / name).write_text('other')
    assert report.origin_of(run, SETTINGS) == first


def test_what_a_kill_has_left_does_not_count(run):
    first = report.origin_of(run, SETTINGS)
    for name in (
        '.report.partial/index.html',
        '.report.old/index.html',
        '.report.lock',
        'notes.json.partial',
        'masks.zarr/c.0.0.__lock',
    ):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text(name)
        assert report.origin_of(run, SETTINGS) == first, name


def test_whatever_decides_what_is_in_a_report_changes_its_origin(run, monkeypatch, tmp_path):
    found = [report.origin_of(run, SETTINGS), report.origin_of(run, {'estimator': 'ridge'})]
    (run / 'masks.zarr' / 'c.0.0').write_text('masks.zarr/c.0.1')
    found.append(report.origin_of(run, SETTINGS))
    (run / 'masks.zarr' / 'c.1.0').touch()
    found.append(report.origin_of(run, SETTINGS))
    (run / 'masks.zarr' / 'c.1.0').rename(run / 'masks.zarr' / 'c.2.0')
    found.append(report.origin_of(run, SETTINGS))
    monkeypatch.setattr(store, 'versions', lambda: {'jax': '0'})
    found.append(report.origin_of(run, SETTINGS))
    monkeypatch.setattr(compilation_cache, 'kind_of_cpu', lambda: 'another')
    found.append(report.origin_of(run, SETTINGS))
    monkeypatch.setattr(module, 'num_cores', lambda: 77)
    found.append(report.origin_of(run, SETTINGS))
    (tmp_path / 'matplotlibrc').write_text('font.size: 33')
    monkeypatch.setenv('MATPLOTLIBRC', str(tmp_path / 'matplotlibrc'))
    found.append(report.origin_of(run, SETTINGS))
    assert None not in found
    assert len(set(found)) == len(found)


def test_other_code_is_another_origin(run, monkeypatch, tmp_path):
    package = tmp_path / 'package'
    (package / 'report' / '__pycache__').mkdir(parents=True)
    for name in ('__init__.py', 'report/page.py'):
        (package / name).write_text('1')
    monkeypatch.setattr(influence_jax, '__file__', str(package / '__init__.py'))
    first = report.origin_of(run, SETTINGS)
    (package / 'report' / '__pycache__' / 'page.pyc').write_text('compiled')
    assert report.origin_of(run, SETTINGS) == first
    (package / 'report' / 'page.py').write_text('2')
    assert report.origin_of(run, SETTINGS) not in (None, first)
    shutil.rmtree(package)
    assert report.origin_of(run, SETTINGS) is None


@pytest.mark.parametrize('kind', ['pipe', 'link', 'folder'])
def test_what_is_no_file_has_no_origin(run, tmp_path, kind):
    if kind == 'pipe':
        os.mkfifo(run / 'pipe')
    elif kind == 'link':
        (run / 'link').symlink_to(tmp_path / 'nowhere')
    else:
        (run / 'link').symlink_to(tmp_path)
    assert report.origin_of(run, SETTINGS) is None


def test_a_report_is_unchanged_as_long_as_its_files_are(saved):
    assert report.is_unchanged(saved, 'a digest')
    assert not report.is_unchanged(saved, 'another')
    page = (saved / 'index.html').read_bytes()
    for path in (saved / 'index.html', next((saved / 'results.zarr').rglob('c*'))):
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert not report.is_unchanged(saved, 'a digest')
        path.write_bytes(content)
        assert report.is_unchanged(saved, 'a digest')
    (saved / 'index.html').unlink()
    assert not report.is_unchanged(saved, 'a digest')
    (saved / 'index.html').write_bytes(page)
    (saved / 'figures' / 'more.png').touch()
    assert not report.is_unchanged(saved, 'a digest')


@pytest.mark.parametrize('lacking', [True, False])
def test_a_report_that_is_not_what_was_written_does_not_pass_for_unchanged(saved, lacking):
    rendered = {name: data for name, data in contents(saved).items() if '/' not in name}
    if lacking:
        (saved / 'pairs.csv').unlink()
    else:
        (saved / 'pairs.csv').write_text('another')
    module.write_origin(saved, 'a digest', rendered)
    assert not report.is_unchanged(saved, 'a digest')


@pytest.mark.parametrize('content', ['', '[]', '{"origin": "a digest"}', '\x00', '{' * 100])
def test_a_damaged_origin_is_none(saved, content):
    (saved / 'origin.json').write_text(content)
    assert not report.is_unchanged(saved, 'a digest')


def test_no_report_is_not_unchanged(tmp_path, saved):
    assert not report.is_unchanged(tmp_path / 'nowhere', 'a digest')
    (saved / 'origin.json').unlink()
    assert not report.is_unchanged(saved, 'a digest')


def test_a_report_is_replaced_with_its_origin(saved):
    results = report.Results.load(saved)
    report.save(results, saved, origin='another')
    assert report.is_unchanged(saved, 'another')
    report.save(results, saved)
    assert not (saved / 'origin.json').exists()
