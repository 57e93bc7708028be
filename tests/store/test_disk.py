"""A disk that is full or read-only: one line, and nothing that passes for a result."""

import errno
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from influence_jax import store
from influence_jax.store import files
from influence_jax.store.arrays import RowArray, RowFormat

# Root may write anywhere, so permissions prove nothing: real file systems, in a mount namespace
# of the child's own, which vanishes with it.
IN_NAMESPACE = ['unshare', '--user', '--map-root-user', '--mount']
CHILD = """
import subprocess, sys, pathlib
import numpy as np
from influence_jax import store

disk = pathlib.Path(sys.argv[1])
kind = sys.argv[2]
subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=400k', 'tmpfs', disk], check=True)
T, M = 5000, 12
manifest = store.Manifest(
    configuration={}, seeds={}, dataset=store.DatasetIdentity('d', 'f'), example_ids=('a', 'b'),
    target_ids=tuple(map(str, range(T))), measurements=('loss', 'correct'), members=M,
)
masks = np.ones((M, 2), bool)
run = store.create_or_resume(disk / 'run', manifest, masks)
rows = lambda m: {n: np.full((1, T), m + k, np.float32) for k, n in enumerate(['loss', 'correct'])}
run.write([0], rows(0))
said = None
if kind == 'full':
    for m in range(1, M):
        try:
            run.write([m], rows(m))
        except store.StorageFailed as error:
            said = error
            break
else:
    run.close()
    subprocess.run(['mount', '-o', 'remount,ro', disk], check=True)
    for directory in (disk / 'run', disk / 'new'):
        try:
            store.create_or_resume(directory, manifest, masks)
        except store.StorageFailed as error:
            said = error
        else:
            sys.exit('no error')
run.close()
found = store.open_run(disk / 'run')
complete = found.complete.tolist()
assert 0 in complete and len(complete) < M, complete
for k, name in enumerate(['loss', 'correct']):
    values = found.measurement(name)
    for m in range(M):
        assert (values[m] == m + k).all() if m in complete else np.isnan(values[m]).all()
print(f'{type(said).__name__}: {said}')
"""


@pytest.mark.parametrize(
    ('kind', 'reason'), [('full', 'No space left on device'), ('readonly', 'Read-only file system')]
)
def test_a_real_full_or_read_only_disk(tmp_path, kind, reason):
    mount = 'mount -t tmpfs -o size=64k tmpfs "$0"'
    if (
        not shutil.which('unshare')
        or subprocess.run(
            [*IN_NAMESPACE, 'sh', '-c', mount, tmp_path], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip('no mount namespaces here')
    done = subprocess.run(
        [*IN_NAMESPACE, sys.executable, '-c', CHILD, tmp_path, kind],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith('StorageFailed: ')
    assert reason in done.stdout
    assert done.stdout.count('\n') == 1


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize('call', ['open', 'fsync', 'ftruncate'])
def test_the_operating_systems_errors_while_making(
    tmp_path, manifest, masks, monkeypatch, code, call, one_line
):
    real = getattr(os, call)

    def failing(target, *arguments, **options):
        if call == 'open' and not str(target).endswith('lock'):
            return real(target, *arguments, **options)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, failing)
    message = one_line(
        store.StorageFailed, store.create_or_resume, tmp_path / 'run', manifest, masks
    )
    assert os.strerror(code) in message
    assert str(tmp_path) in message
    monkeypatch.undo()
    with pytest.raises(store.NotARun):
        store.open_run(tmp_path / 'run')
    with store.create_or_resume(tmp_path / 'run', manifest, masks) as run:
        assert len(run.missing) == 12


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_tensorstores_words_for_an_error_are_understood(
    directory, manifest, masks, record, monkeypatch, code, one_line
):
    def failing(rows, pairs):
        error = ValueError(
            f'UNKNOWN: Error writing "c.8.0": Failed to write: x [os_error_code=\'{code}\']'
        )

        class Future:
            def exception(self):
                return error

        from influence_jax.store import arrays

        arrays._wait([Future()], pairs[0][0].path)

    with store.create_or_resume(directory, manifest, masks) as run:
        monkeypatch.setattr('influence_jax.store.run.write_rows', failing)
        message = one_line(store.StorageFailed, record, run, 8)
        assert os.strerror(code) in message
        monkeypatch.undo()
        np.testing.assert_array_equal(run.missing, [8, 9, 10, 11])
        record(run, 8)
    assert 8 in store.open_run(directory).complete


def test_the_manifest_is_durable_before_it_has_its_name(tmp_path, monkeypatch):
    events = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        events.append(os.fstat(descriptor).st_ino)
        real_fsync(descriptor)

    def replace(self, target):
        events.append('replace')
        real_replace(self, target)

    monkeypatch.setattr(os, 'fsync', fsync)
    monkeypatch.setattr(type(tmp_path), 'replace', replace)
    files.write_atomically(tmp_path / 'manifest.json', 'text')
    manifest = tmp_path / 'manifest.json'
    assert events == [manifest.stat().st_ino, 'replace', tmp_path.stat().st_ino]
    assert manifest.read_text() == 'text'


def test_many_rows_of_one_file_are_named_once(tmp_path, monkeypatch):
    """As columns of a report are: of a million rows, each by itself took half of its time."""
    named = []
    plain = RowArray.file_of

    def file_of(self, row):
        named.append(row)
        return plain(self, row)

    monkeypatch.setattr(RowArray, 'file_of', file_of)
    array = RowArray.create(tmp_path / 'a', RowFormat((1000, 2), 'float32', 'NaN', 400))
    array.write(np.zeros((900, 2), np.float32), start=50)
    assert named == [0, 400, 800]
    assert (array.read_written(range(50, 950)) == 0).all()
