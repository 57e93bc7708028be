import dataclasses
import errno
import fcntl
import io
import itertools
import os
import re
import threading
from pathlib import Path

import numpy as np
import pytest
from pages import Page, contents
from PIL import Image
from rich.console import Console

from influence_jax import report
from influence_jax.formatting import MISSING
from influence_jax.report import Results
from influence_jax.report import directory as directory_module
from influence_jax.report.results import ShownExamples
from influence_jax.store import files as store_files


def test_writes_page_figures_and_table(written):
    assert written.name == 'index.html'
    files = contents(written.parent)
    figures = {name for name in files if name.startswith('figures/')}
    rest = {name for name in files if not name.startswith(('figures/', 'results.zarr/'))}
    assert rest == {'index.html', 'pairs.csv', 'targets.csv'}
    assert 'results.zarr/zarr.json' in files
    assert figures == {
        f'figures/{name}.png'
        for name in (
            'influence-matrix',
            'distribution-1',
            'distribution-2',
            'distribution-3',
            'self-influence-and-margin',
            'off-diagonal',
            'convergence',
        )
    }
    for name in figures:
        with Image.open(written.parent / name) as image:
            pixels = np.asarray(image.convert('RGB'))
        assert pixels.std() > 5, f'{name} is blank'


def test_page_needs_nothing_but_itself_and_runs_nothing(written):
    text = written.read_text()
    page = Page(text)
    assert not page.all('script', 'iframe', 'object', 'embed', 'link', 'base', 'form')
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith('on')]
        for name in {'src', 'srcset'} & set(attributes):
            assert attributes[name].startswith('data:image/png;base64,')
    links = {attributes['href'] for attributes in page.all('a')}
    beside = {'targets.csv', 'pairs.csv', 'figures/', 'results.zarr/'}
    assert {link for link in links if not link.startswith('#')} == beside
    anchors = {attributes['id'] for _, attributes in page.elements if 'id' in attributes}
    assert {link[1:] for link in links - beside} <= anchors
    style = text[text.index('<style>') : text.index('</style>')]
    assert 'url(' not in style
    assert '@import' not in style


def test_text_from_data_is_escaped(written, hostile):
    text = written.read_text()
    assert hostile not in text
    page = Page(text)
    names = {attributes.get('alt') for attributes in page.all('img')}
    assert hostile in names  # unescaped by the parser: whole, as text


def test_page_is_accessible(written):
    page = Page(written.read_text())
    assert page.all('html')[0]['lang'] == 'en'
    assert all(attributes.get('alt') for attributes in page.all('img'))
    assert len(page.all('table')) == len(page.all('caption')) == 2
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch('h[1-6]', tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_page_names_members_left_out(written):
    text = written.read_text()
    assert '1 member not trained yet: 3.' in text
    assert '2 members left out of every estimate' in text
    rows = dict(re.findall(r'<th scope="row">(members \w+)</th><td>(\d+)</td>', text))
    assert rows == {'members used': '64', 'members missing': '1', 'members diverged': '2'}


def test_gallery_shows_the_strongest_influencers_in_order(written, overview):
    text = written.read_text()
    target = int(overview.lowest_margin[0])
    first_row = text[text.index('<ol class="strip">') :]
    shown = re.findall(r'<b>([^<]+)</b><span class="error">', first_row)[:5]
    expected = [f'{value:.2f}' for value in overview.summary.top_values[target]]
    assert [value.replace('\N{MINUS SIGN}', '-') for value in shown] == expected
    classes = re.findall(r'<li class="(itself)? ?(noise)?"', first_row)[:5]
    examples = overview.summary.top_examples[target]
    z = overview.summary.top_values[target] / overview.summary.top_standard_errors[target]
    assert [bool(itself) for itself, _ in classes] == [e == target for e in examples]
    assert [bool(noise) for _, noise in classes] == [value <= 3.5 for value in z]


def test_page_shows_the_surest_pairs_of_both_signs(written, overview):
    text = written.read_text()
    section = text[text.index('<section id="pairs">') :]
    section = section[: section.index('</section>')]
    shown = re.findall(
        r'<b class="(\w+) numeric">([^ ]+) .*?z <span class="numeric">([^<]+)', section, re.S
    )
    pairs = overview.summary.pairs
    z = pairs.values / pairs.standard_errors
    surest = [*sorted(z[z > 0], reverse=True)[:12], *sorted(z[z < 0])[:6]]
    assert len(surest) == len(shown) > 2
    assert [float(value.replace('\N{MINUS SIGN}', '-')) for *_, value in shown] == pytest.approx(
        surest, abs=0.06
    )
    assert [sign for sign, *_ in shown] == ['positive' if one > 0 else 'negative' for one in surest]
    assert f'{len(z)} of 132 pairs of an example and another target are (5%' in text
    told = re.findall(r'cross-fitted <span class="numeric">([^<]+)', section)
    fitted = [pairs.cross_fitted[np.flatnonzero(np.isclose(z, one))[0]] for one in surest]
    assert [float(one.replace('\N{MINUS SIGN}', '-')) for one in told] == pytest.approx(
        fitted, abs=0.006
    )


def test_what_stands_out_is_shown_without_the_exaggeration_of_selecting_it(written, overview):
    text = written.read_text()
    section = text[text.index('<section id="lowest-margin">') :]
    told = re.findall(r'cf ([^<]+)</span>', section[: section.index('</section>')])
    summary = overview.summary
    others = summary.top_examples != np.arange(12)[:, None]
    assert len(told) == (summary.top_stands_out & others).sum() > 0
    strongest = summary.other_value[summary.other_stands_out].max()
    assert 0 < max(map(float, told)) <= strongest + 0.005


def test_targets_on_which_nothing_can_be_relied_are_counted(written):
    assert 'The self-influence of 2 targets rests on fewer than 20 effective' in written.read_text()


def test_page_says_how_influence_was_estimated_and_how_reliably(written, overview):
    text = written.read_text()
    assert '<b>adjusted difference of means</b>: the mean loss' in text
    shown = dict(re.findall(r'<dt>([\w -]+)</dt><dd>([^<]+)</dd>', text))
    # Halves of 32 that agree with 0.9 make 64 that are reliable to 2 * 0.9 / (1 + 0.9).
    assert shown['self-influence'] == f'{1.8 / 1.9:.3f}'
    assert shown['all other entries'] == f'{0.04 / 1.02:.3f}'
    assert shown['significant pairs'] == '\N{EN DASH}'


@pytest.mark.usefixtures('unsaved')
def test_no_pairs_no_section(arguments, overview, write):
    none = overview.summary.pairs._replace(
        **{
            name: getattr(overview.summary.pairs, name)[:0]
            for name in overview.summary.pairs._fields[:8]
        }
    )
    summary = overview.summary._replace(pairs=none)
    arguments['overview'] = dataclasses.replace(overview, summary=summary)
    page = write(arguments)
    text = page.read_text()
    assert 'id="pairs"' not in text
    assert '#pairs' not in text
    assert len((page.parent / 'pairs.csv').read_text().splitlines()) == 1
    Page(text)


@pytest.mark.usefixtures('unsaved')
def test_members_that_are_not_needed_are_not_asked_for(arguments, write):
    arguments['stopped_early'] = 'Precise enough: <0.1 nats.'
    text = write(arguments).read_text()
    assert 'Precise enough: &lt;0.1 nats.' in text
    assert 'not trained yet' not in text


@pytest.mark.usefixtures('unsaved')
def test_unit_is_that_of_what_was_measured(arguments, write):
    arguments['unit'] = 'points <b>'
    text = write(arguments).read_text()
    assert 'points <b>' not in text
    assert 'points &lt;b&gt;' in text
    assert 'nats' not in text


@pytest.mark.usefixtures('unsaved')
def test_notes_come_first_and_are_escaped(arguments, hostile, write):
    arguments['notes'] = (f'Left out: {hostile}', 'And this.')
    text = write(arguments).read_text()
    assert hostile not in text
    cautions = text[text.index('id="cautions"') :]
    assert cautions.index('Left out: ') < cautions.index('</summary>')
    assert re.findall(r'<li>(.*?)</li>', cautions, re.S)[0] == 'And this.'
    assert text.index('id="cautions"') < text.index('<table')


@pytest.mark.usefixtures('unsaved')
def test_repeats_of_a_subset_are_counted_as_members(arguments, write):
    text = write(arguments | {'members': 640}).read_text()
    assert '<b>640</b><span>members on 64 subsets</span>' in text
    assert '640 models, each trained on one\nof 64 random parts' in text
    assert 'members used</th><td>640 on 64 subsets</td>' in text
    text = write(arguments | {'members': 64}, 'once').read_text()
    assert '<b>64</b><span>members</span>' in text and 'subsets</' not in text


def test_same_content_gives_same_files(arguments, written, write):
    again = write(arguments, 'again')
    assert contents(again.parent) == contents(written.parent)


@pytest.mark.usefixtures('unsaved')
def test_earlier_report_is_replaced_as_a_whole(tmp_path, arguments, write):
    directory = tmp_path / 'report'
    (directory / 'figures').mkdir(parents=True)
    (directory / 'index.html').write_text('old')
    (directory / 'figures' / 'distribution-9.png').write_bytes(b'old')
    page = write(arguments)
    assert 'A run' in page.read_text()
    assert not (directory / 'figures' / 'distribution-9.png').exists()
    assert list(tmp_path.iterdir()) == [directory]


@pytest.mark.usefixtures('unsaved')
@pytest.mark.parametrize('old', [False, True])
def test_full_disk_leaves_what_was_there(tmp_path, arguments, monkeypatch, old, write):
    directory = tmp_path / 'report'
    if old:
        directory.mkdir()
        (directory / 'index.html').write_text('old')
    before = sorted(tmp_path.rglob('*'))
    synced = 0

    def full(descriptor: int) -> None:
        nonlocal synced
        synced += 1
        if synced == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match=r'cannot write the report to .*: No space left') as caught:
        write(arguments)
    assert '\n' not in str(caught.value)
    assert sorted(tmp_path.rglob('*')) == before
    assert not old or (directory / 'index.html').read_text() == 'old'


@pytest.mark.usefixtures('unsaved')
def test_nothing_is_in_place_before_everything_is_written(tmp_path, arguments, monkeypatch, write):
    directory = tmp_path / 'report'
    seen = []
    monkeypatch.setattr(os, 'fsync', lambda _: seen.append(directory.exists()))
    write(arguments)
    assert len(seen) > 10
    assert not any(seen)


@pytest.mark.usefixtures('unsaved')
def test_failed_move_brings_the_old_report_back(tmp_path, arguments, monkeypatch, write):
    directory = tmp_path / 'report'
    directory.mkdir()
    (directory / 'index.html').write_text('old')
    rename = Path.rename
    monkeypatch.setattr(directory_module, '_exchanged', lambda *_: False)

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith('.partial'):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return rename(self, target)

    monkeypatch.setattr(Path, 'rename', refuse)
    with pytest.raises(OSError, match='Permission denied'):
        write(arguments)
    assert contents(tmp_path) == {'report/index.html': b'old'}


@pytest.mark.usefixtures('unsaved')
def test_a_kill_between_two_renames_loses_no_report(tmp_path, arguments, monkeypatch, write):
    hidden = tmp_path / '.report.old'
    hidden.mkdir()
    (hidden / 'index.html').write_text('old')

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, 'fsync', full)
        with pytest.raises(OSError, match='No space left'):
            write(arguments)
    assert contents(tmp_path) == {'report/index.html': b'old'}
    assert 'A run' in write(arguments).read_text()
    assert not hidden.exists()


@pytest.mark.usefixtures('unsaved')
def test_a_report_has_its_name_at_every_moment(tmp_path, arguments, monkeypatch, write):
    page = write(arguments)
    for name in ('one', 'other'):
        (tmp_path / name).mkdir()
    if not directory_module._exchanged(tmp_path / 'one', tmp_path / 'other'):
        pytest.skip('no exchange of names on this file system')
    seen, rename = [], Path.rename

    def watched(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        seen.append(page.exists())  # where a kill would leave it
        return moved

    monkeypatch.setattr(Path, 'rename', watched)
    write(arguments | {'title': 'Another'})
    assert 'Another' in page.read_text()
    assert all(seen)
    assert {path.name for path in tmp_path.iterdir()} == {'report', 'one', 'other'}


@pytest.mark.usefixtures('unsaved')
@pytest.mark.parametrize('exchanges', [True, False])
def test_of_two_writers_one_waits_for_the_other(tmp_path, arguments, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(directory_module, '_exchanged', lambda *_: False)
    directory = tmp_path / 'report'
    half, save = threading.Event(), Results.save
    waiting = threading.Event()
    monkeypatch.setattr(store_files._log, 'warning', lambda *_: waiting.set())

    def halfway(self: Results, partial: Path) -> None:
        save(self, partial)
        if threading.current_thread() is not threading.main_thread():
            half.set()
            assert waiting.wait(60)

    monkeypatch.setattr(Results, 'save', halfway)
    results = Results(**arguments)
    slower = threading.Thread(
        target=report.save, args=(results, directory), kwargs={'origin': 'slower'}
    )
    slower.start()
    assert half.wait(60)
    report.save(results, directory, origin='faster')
    slower.join(60)
    assert report.is_unchanged(directory, 'faster')
    assert {'index.html', 'pairs.csv', 'results.zarr/zarr.json'} < set(contents(directory))
    assert list(tmp_path.iterdir()) == [directory]


@pytest.mark.usefixtures('unsaved')
def test_a_folder_that_is_taken_away_is_not_made_again(tmp_path, arguments, monkeypatch, write):
    save = Results.save

    def taken(self: Results, partial: Path) -> None:
        save(self, partial)
        partial.rename(tmp_path / 'taken')

    monkeypatch.setattr(Results, 'save', taken)
    with pytest.raises(OSError, match='No such file'):
        write(arguments)
    assert [path.name for path in tmp_path.iterdir()] == ['taken']


@pytest.mark.usefixtures('unsaved')
def test_a_file_system_without_locks_is_one_line(tmp_path, arguments, monkeypatch, write):
    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, 'flock', refused)
    with pytest.raises(OSError, match=r'cannot write the report to .*: No locks') as caught:
        write(arguments)
    assert '\n' not in str(caught.value)


def test_directory_of_something_else_is_refused(tmp_path, arguments, write):
    (tmp_path / 'manifest.json').write_text('{}')
    with pytest.raises(FileExistsError, match=r"holds 'manifest\.json'.*choose a directory"):
        write(arguments, '.')
    assert contents(tmp_path) == {'manifest.json': b'{}'}
    with pytest.raises(FileExistsError, match='is a file'):
        write(arguments, 'manifest.json')
    with pytest.raises(FileExistsError, match='is a file'):
        write(arguments, 'manifest.json/in/it')


@pytest.mark.parametrize(
    'name', ['target_ids', 'example_ids', 'example_names', 'example_labels', 'near_duplicates']
)
@pytest.mark.unchecked
def test_wrong_number_of_names_is_refused(tmp_path, arguments, name, write):
    arguments[name] = arguments[name][:-1]
    with pytest.raises(ValueError, match=f'needs 12 {name}, one for each, got 11'):
        write(arguments)
    assert not list(tmp_path.iterdir())


def test_targets_that_are_no_examples(arguments, foreign_overview, write):
    arguments |= {'overview': foreign_overview, 'near_duplicates': None}
    page = write(arguments)
    text = page.read_text()
    assert 'id="most-memorized"' not in text
    assert 'id="margins"' not in text
    assert not (page.parent / 'figures' / 'self-influence-and-margin.png').exists()
    Page(text)


@pytest.mark.usefixtures('unsaved')
def test_records_of_text_are_not_named_twice(arguments, write):
    names = tuple(f'record <{i}> & co' for i in range(12))
    shown = ShownExamples(np.arange(12), texts=names)
    text = write(arguments | {'example_names': names, 'shown': shown}).read_text()
    assert 'record <0>' not in text
    assert '<p>record &lt;0&gt; &amp; co</p>' in text  # among influencers
    assert '<div class="name" title="record' not in text
    assert '<span class="name">' not in text


@pytest.mark.usefixtures('unsaved')
def test_rows_of_a_table_are_shown_as_such(arguments, write):
    rows = tuple((f'{i}.5', f'<i>{i}</i>') for i in range(12))
    arguments['shown'] = ShownExamples(np.arange(12), columns=('width', '<b>kind'), rows=rows)
    text = write(arguments).read_text()
    assert '<dt>width</dt><dd>0.5</dd>' in text
    assert '<dt>&lt;b&gt;kind</dt><dd>&lt;i&gt;0&lt;/i&gt;</dd>' in text
    Page(text)


@pytest.mark.usefixtures('unsaved')
def test_without_anything_to_show_examples_are_named(arguments, write):
    arguments['shown'] = ShownExamples(np.empty(0, int))
    text = write(arguments).read_text()
    assert '<p>name 7</p>' in text
    Page(text)


@pytest.mark.usefixtures('unsaved')
def test_what_was_changed_stands_before_the_name(arguments, write):
    arguments['example_changes'] = ('', '', 'flipped', *[''] * 9)
    page = write(arguments)
    assert 'title="flipped: name 2' in page.read_text()
    assert 'flipped: name 2' in (page.parent / 'targets.csv').read_text()


@pytest.mark.usefixtures('unsaved')
def test_without_standard_errors_there_are_dashes_and_nothing_is_gray(arguments, overview, write):
    summary = overview.summary
    unknown = {
        name: np.full_like(getattr(summary, name), np.nan)
        for name in summary._fields
        if name.endswith(('standard_error', 'standard_errors', 'cross_fitted', 'effective_members'))
    } | {
        name: np.zeros_like(getattr(summary, name))
        for name in ('top_stands_out', 'other_stands_out', 'z_histogram')
    }
    none = {name: np.empty(0, int) for name in summary.pairs._fields[:2]}
    none |= {name: np.empty(0) for name in summary.pairs._fields[2:8]}
    arguments['overview'] = dataclasses.replace(
        overview,
        summary=summary._replace(**unknown, pairs=summary.pairs._replace(**none)),
        distribution_standard_errors=np.full_like(overview.distributions, np.nan),
    )
    page = write(arguments)
    text = page.read_text()
    assert 'Standard errors are not known' in text
    assert f'± {MISSING}' in text
    assert 'class=" noise"' not in text
    assert 'id="off-diagonal"' not in text
    assert 'nan' not in (page.parent / 'targets.csv').read_text()
    Page(text)


@pytest.mark.usefixtures('unsaved')
def test_a_page_of_columns_alone_counts_no_members(arguments, overview, write):
    summary = overview.summary._replace(members_used=0)
    arguments['overview'] = dataclasses.replace(overview, summary=summary, convergence=None)
    text = write(
        arguments | {'missing': np.empty(0, int), 'diverged': np.empty(0, int)}
    ).read_text()
    assert not re.findall(r'\b0 (?:members|models)|members used|number of members', text)
    assert '<span>members</span>' not in text
    assert '12 examples and\n12 targets. The <b>influence</b>' in text
    assert 'Most entries off the diagonal are noise: their median standard error is 0.1' in text
    Page(text)


STEERING = '\x00\x1b[2J\x07\x7f\x9b31m\u202e\u2066\u200f'
LONG = 'm' * 10**6


@pytest.mark.usefixtures('unsaved')
@pytest.mark.parametrize('own', ['themselves', 'others'])
def test_nothing_that_steers_or_is_endless_leaves(arguments, foreign_overview, own, write):
    if own == 'others':
        arguments['overview'] = foreign_overview
    texts = tuple(f'{STEERING}{i}{LONG}' for i in range(12))
    for name in ('target_ids', 'example_ids', 'example_names', 'example_labels'):
        arguments[name] = texts
    arguments |= {'title': STEERING + LONG, 'unit': STEERING, 'notes': (STEERING + LONG,)}
    arguments |= {
        'facts': {STEERING + LONG: STEERING + LONG},
        'shown': ShownExamples(np.arange(12), texts=texts),
    }
    directory = write(arguments).parent
    for path in (path for path in directory.glob('*.*') if path.is_file()):
        text = path.read_text()
        left = {c for c in text if not c.isprintable()} - {'\n', '\t'}
        assert not left, (path.name, left)
        assert 'm' * 32_000 not in text
        assert len(text) < 10**6


@pytest.mark.usefixtures('unsaved')
def test_a_name_of_the_terminal_is_not_endless(arguments):
    arguments |= {'target_ids': (LONG,) * 12, 'example_names': (STEERING + LONG,) * 12}
    console = Console(file=io.StringIO(), width=10_000)
    console.print(report.terminal(Results(**arguments)))
    assert 'm' * 300 not in console.file.getvalue()
    assert not {'\x1b', '\x07', '\x9b', '\u202e'} & set(console.file.getvalue())
