"""Static files: the same documents, whole or not at all."""

import json
import re

import pytest
from planted import N

from influence_jax.explorer import Site, export, open_results
from influence_jax.explorer.server import VENDOR
from influence_jax.report.kept import TENSORS


@pytest.fixture
def sharded(saved):
    return Site([open_results(saved)], shard=export.SHARD)


def test_all_documents_and_the_page_are_written(sharded, tmp_path):
    folder = tmp_path / 'exported'
    tracked = []

    def track(addresses):
        tracked.extend(addresses)
        return addresses

    assert export.write(sharded, folder, track=track) == []
    written = {
        str(file.relative_to(folder / 'data')): file.read_bytes()
        for file in (folder / 'data').rglob('*')
        if file.is_file()
    }
    assert set(written) == set(sharded.addresses()) == set(tracked)
    assert written == {address: sharded.get(address) for address in written}
    assert json.loads(written['0/run.json'])['shard'] == export.SHARD
    assert len(json.loads(written['0/targets/0.json'])) == N
    for name in VENDOR:
        assert (folder / 'vendor' / name).stat().st_size > 10_000
    page = (folder / 'index.html').read_text()
    head = page[page.index('<head>') :]
    (policy,) = re.findall('<meta http-equiv="Content-Security-Policy" content="([^"]*)"', head)
    assert "default-src 'none'" in policy.replace('&#x27;', "'") and 'unsafe-eval' not in policy
    assert head.index('Content-Security-Policy') < len('<head>') + 40  # before anything loads
    assert not list(tmp_path.glob('.*'))


def test_an_earlier_export_is_replaced_and_nothing_else(sharded, tmp_path):
    folder = tmp_path / 'exported'
    export.write(sharded, folder)
    (folder / 'data' / '0' / 'targets' / '99.json').write_text('old')
    export.write(sharded, folder)
    assert not (folder / 'data' / '0' / 'targets' / '99.json').exists()
    (folder / 'notes.txt').write_text('mine')
    with pytest.raises(FileExistsError, match=r'notes\.txt'):
        export.write(sharded, folder)
    for name in ('index.html', 'data'):
        other = tmp_path / name
        other.mkdir()
        (other / name).mkdir()
        with pytest.raises(FileExistsError, match=name):
            export.write(sharded, other)
    (tmp_path / 'file').write_text('')
    with pytest.raises(FileExistsError, match='file'):
        export.check_folder(tmp_path / 'file')
    assert (folder / 'notes.txt').read_text() == 'mine'


def test_half_of_an_export_never_passes_for_one(sharded, tmp_path):
    folder = tmp_path / 'exported'
    export.write(sharded, folder)
    before = (folder / 'data' / 'index.json').read_bytes()

    def interrupted(addresses):
        yield addresses[0]
        raise KeyboardInterrupt

    for place in (folder, tmp_path / 'new'):
        with pytest.raises(KeyboardInterrupt):
            export.write(sharded, place, track=interrupted)
    assert (folder / 'data' / 'index.json').read_bytes() == before
    assert (folder / 'data' / '0' / 'run.json').exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['exported', 'saved']


def test_a_damaged_document_is_its_error(planted_run, tmp_path):
    import shutil

    directory = shutil.copytree(planted_run, tmp_path / 'copy')
    for file in (directory / 'examples.zarr').glob('c*'):
        file.unlink()
    failed = export.write(Site([open_results(directory)], shard=export.SHARD), tmp_path / 'out')
    assert sorted(line.partition(':')[0] for line in failed) == [
        '0/examples/0.json',
        '0/sheets/0.png',
    ]
    damaged = json.loads((tmp_path / 'out/data/0/examples/0.json').read_text())
    assert 'examples.zarr' in damaged['error']
    assert json.loads((tmp_path / 'out/data/0/targets/0.json').read_text())[3]['histogram']
    assert not (tmp_path / 'out/data/0/sheets/0.png').exists()
    assert TENSORS not in {path.name for path in (tmp_path / 'out').rglob('*')}
