"""The cache of compiled programs: where it is used; what is wrong with it costs time only."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from types import SimpleNamespace

import filelock
import jax
import jax.numpy as jnp
import numpy as np
import platformdirs
import pytest
from flax import nnx
from jax.experimental.compilation_cache import compilation_cache as jax_cache

import influence_jax as ij
from influence_jax import compilation_cache
from influence_jax.ensemble import measure_subsets

SETTINGS = (
    'jax_compilation_cache_dir',
    'jax_compilation_cache_max_size',
    'jax_persistent_cache_min_compile_time_secs',
    'jax_persistent_cache_min_entry_size_bytes',
)


@pytest.fixture(autouse=True)
def without_cache(monkeypatch):
    """Without the cache of the test session; everything that compiles is kept."""
    before = settings()
    jax.config.update('jax_compilation_cache_dir', None)
    jax_cache.reset_cache()
    monkeypatch.setattr(compilation_cache, 'LEAST_SECONDS', 0.0)
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    jax_cache.reset_cache()


@pytest.fixture
def directory(tmp_path):
    return tmp_path / 'compiled'


def settings():
    return {name: getattr(jax.config, name) for name in SETTINGS}


def compute(scale=3.0):
    """Compiles a program anew, as another process would."""
    jax.clear_caches()
    return float(jax.jit(lambda x: jnp.sin(scale * x).sum())(np.arange(5, dtype=np.float32)))


def programs(directory):
    return sorted(directory.glob('jit__lambda*-cache'))


@contextlib.contextmanager
def counting_hits():
    hits = []

    def count(event, **_):
        if event == '/jax/compilation_cache/cache_hits':
            hits.append(event)

    jax.monitoring.register_event_listener(count)
    try:
        yield hits
    finally:
        jax.monitoring.unregister_event_listener(count)


def test_a_program_is_compiled_once(directory):
    with compilation_cache.enabled(directory) as used:
        assert used == directory
        first = compute()
    (program,) = programs(directory)
    with counting_hits() as hits, compilation_cache.enabled(directory):
        assert compute() == first
    assert hits
    assert programs(directory) == [program]


def test_jax_is_left_as_it_was(directory):
    before = settings()
    with compilation_cache.enabled(directory), compilation_cache.enabled(directory / 'other'):
        assert settings() != before
        compute()
    assert settings() == before
    assert not (directory / 'other').exists()
    compute(scale=5.0)
    assert len(programs(directory)) == 1


def test_threads_share_the_first_ones_directory_until_the_last_has_ended(directory, tmp_path):
    before, inside, leave = settings(), threading.Event(), threading.Event()
    found = []

    def other():
        with compilation_cache.enabled(tmp_path / 'another') as used:
            found.append(used)
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    with compilation_cache.enabled(directory):
        thread.start()
        assert inside.wait(60)
    assert settings()['jax_compilation_cache_dir'] == str(directory)
    leave.set()
    thread.join()
    assert found == [directory]
    assert settings() == before


def test_an_error_within_leaves_jax_as_it_was(directory):
    before = settings()
    with pytest.raises(KeyError), compilation_cache.enabled(directory):
        raise KeyError
    assert settings() == before


def test_the_users_own_cache_stays(directory, tmp_path):
    own = tmp_path / 'own'
    jax.config.update('jax_compilation_cache_dir', str(own))
    with compilation_cache.enabled(directory) as used:
        assert used is None
        assert settings()['jax_compilation_cache_dir'] == str(own)
    assert not directory.exists()


def test_a_cache_that_is_chosen_meanwhile_stays(directory, tmp_path):
    with compilation_cache.enabled(directory):
        jax.config.update('jax_compilation_cache_dir', str(tmp_path / 'own'))
    assert settings()['jax_compilation_cache_dir'] == str(tmp_path / 'own')


def test_jaxs_own_switch_turns_it_off(directory, monkeypatch):
    jax.config.update('jax_enable_compilation_cache', False)
    try:
        with compilation_cache.enabled(directory) as used:
            assert used is None
    finally:
        jax.config.update('jax_enable_compilation_cache', True)
    assert not directory.exists()


def test_the_directory_is_the_users_alone(directory):
    with compilation_cache.enabled(directory):
        pass
    assert directory.stat().st_mode & 0o777 == 0o700


def test_the_default_is_in_the_users_cache_directory(monkeypatch, tmp_path):
    monkeypatch.setattr(platformdirs, 'user_cache_path', lambda name, appauthor: tmp_path / name)
    path = compilation_cache.default_directory()
    assert path.parent == tmp_path / 'influence_jax' / 'compiled'
    assert path.name == compilation_cache.kind_of_cpu()


def test_cpus_with_other_instructions_have_other_directories(monkeypatch):
    here, read = compilation_cache.kind_of_cpu(), Path.read_text

    def less(path, **how):
        text = read(path, **how)
        return text.replace(' sse2 ', ' ').replace(' asimd ', ' ')

    monkeypatch.setattr(Path, 'read_text', less)
    assert compilation_cache.kind_of_cpu.__wrapped__() != here


def refused(directory):
    """What is logged of a directory with which programs are computed all the same."""
    lines = []
    with compilation_cache.enabled(directory, log=lines.append) as used:
        assert used is None
        assert compute() == pytest.approx(np.sin(3.0 * np.arange(5)).sum(), abs=1e-5)
    (line,) = lines
    assert '\n' not in line
    return line


@pytest.mark.parametrize('mode', [0o755, 0o770, 0o707, 0o702])
def test_a_directory_that_is_open_to_others_is_not_used(directory, mode):
    directory.mkdir()
    directory.chmod(mode)
    assert f'mode {mode:03o}' in refused(directory)
    assert not list(directory.iterdir())


def test_a_directory_that_others_could_replace_is_not_used(tmp_path):
    loose = tmp_path / 'loose'
    loose.mkdir()
    loose.chmod(0o777)
    assert str(loose) in refused(loose / 'compiled')
    loose.chmod(0o1777)  # as /tmp is: only the owner can replace it
    with compilation_cache.enabled(loose / 'compiled') as used:
        assert used


def test_a_link_to_a_directory_of_somebody_else_is_not_used(tmp_path, directory, monkeypatch):
    directory.mkdir(0o700)
    (tmp_path / 'link').symlink_to(directory)
    with compilation_cache.enabled(tmp_path / 'link') as used:
        assert used == directory
    monkeypatch.setattr(os, 'geteuid', lambda: 12345)
    assert 'another user (number' in refused(tmp_path / 'link')


def test_a_directory_that_cannot_be_made_is_not_used(tmp_path):
    (tmp_path / 'file').write_text('')
    assert 'file' in refused(tmp_path / 'file' / 'compiled')
    (tmp_path / 'nowhere').symlink_to(tmp_path / 'missing' / 'place')
    assert 'nowhere' in refused(tmp_path / 'nowhere')


def test_a_directory_that_cannot_be_written_is_not_used(directory, monkeypatch):
    def full(path, *_, **__):
        raise OSError(28, 'No space left on device', str(path))

    monkeypatch.setattr(Path, 'write_text', full)
    with compilation_cache.enabled(directory):  # nothing has to be written
        compute()
    assert 'No space left' in refused(directory)


def test_a_lock_that_is_not_released_is_waited_for_a_moment_only(directory, monkeypatch):
    monkeypatch.setattr(compilation_cache, '_LONGEST_WAIT', 0.05)
    directory.mkdir(0o700)
    with filelock.FileLock(directory / '.lockfile'):
        assert '.lockfile' in refused(directory)


@pytest.mark.parametrize(
    'damage',
    [
        lambda content: content[: len(content) // 2],
        lambda content: b'',
        lambda content: b'rubbish' * 100,
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content + b'more',
    ],
    ids=['cut', 'empty', 'rubbish', 'bit', 'longer'],
)
def test_a_damaged_program_is_compiled_and_kept_again(directory, damage):
    with compilation_cache.enabled(directory):
        expected = compute()
    (program,) = programs(directory)
    content = program.read_bytes()
    program.write_bytes(damage(content))
    with compilation_cache.enabled(directory):  # a warning would be an error here
        assert compute() == expected
    with counting_hits() as hits, compilation_cache.enabled(directory):
        assert compute() == expected
    assert hits
    assert zlib.decompress(program.read_bytes())


@pytest.mark.parametrize(('has_library', 'kept'), [(True, ['whole']), (False, ['half', 'whole'])])
def test_entries_of_zstandard_are_unpacked_where_jax_can(directory, monkeypatch, has_library, kept):
    """By a library that reads but one text; jax asks for such entries where it has one."""

    def unpack(content):
        if content != b'\x28\xb5\x2f\xfdwhole':
            raise RuntimeError('decompression error')

    library = SimpleNamespace(ZstdDecompressor=lambda: SimpleNamespace(decompress=unpack))
    monkeypatch.setitem(sys.modules, 'compression', None)
    monkeypatch.setitem(sys.modules, 'zstandard', library if has_library else None)
    directory.mkdir(0o700)
    for name in ('whole', 'half'):
        (directory / f'{name}-cache').write_bytes(b'\x28\xb5\x2f\xfd' + name.encode())
        (directory / f'{name}-atime').write_bytes(b'12345678')
    compilation_cache.prepare(directory)
    assert sorted(path.name for path in directory.glob('*-cache')) == [f'{k}-cache' for k in kept]


def test_half_an_entry_does_not_keep_others_from_being_written(directory):
    with compilation_cache.enabled(directory):
        compute()
    (program,) = programs(directory)
    program.with_name(program.name.replace('-cache', '-atime')).unlink()
    (directory / 'jit_gone-00-atime').write_bytes(b'12345678')
    (directory / 'no entry').write_text('of anybody')
    with compilation_cache.enabled(directory):
        compute(scale=7.0)
    assert len(programs(directory)) == 1
    assert not (directory / 'jit_gone-00-atime').exists()
    assert (directory / 'no entry').exists()


@pytest.mark.parametrize('content', ['', '[1]', '{"jit": 3', '{"jit": 3}', '\x00'])
def test_a_damaged_list_of_entries_is_made_again(directory, content):
    with compilation_cache.enabled(directory):
        compute()
    (directory / 'checked.json').write_text(content)
    with counting_hits() as hits, compilation_cache.enabled(directory):
        compute()
    assert hits
    known = json.loads((directory / 'checked.json').read_text())
    assert {f'{key}-cache' for key in known} == {path.name for path in directory.glob('*-cache')}


def test_a_directory_in_the_place_of_a_program_is_named(directory):
    (directory / 'jit_f-00-cache').mkdir(parents=True)
    directory.chmod(0o700)
    assert 'jit_f-00-cache' in refused(directory)


def test_it_does_not_grow_beyond_its_bound(directory):
    with compilation_cache.enabled(directory):
        compute()
    (program,) = programs(directory)
    bound = 3 * program.stat().st_size
    with compilation_cache.enabled(directory, most_bytes=bound):
        for scale in range(4, 12):
            compute(scale=float(scale))
    sizes = [path.stat().st_size for path in directory.glob('*-cache')]
    assert 0 < sum(sizes) <= bound
    assert not program.exists()  # the one that was used longest ago


PROCESS = """
import sys
from pathlib import Path
from types import SimpleNamespace
import jax, jax.numpy as jnp, numpy as np
import influence_jax as ij
from influence_jax import compilation_cache
from influence_jax.ensemble import measure_subsets
compilation_cache.LEAST_SECONDS = 0.0
with compilation_cache.enabled(Path(sys.argv[1]), log=sys.exit) as used:
    assert used
    for scale in range(5):
        print(float(jax.jit(lambda x: jnp.sin(scale * x).sum())(np.arange(5, dtype=np.float32))))
"""


def test_processes_share_a_directory_at_once(directory):
    environment = {k: v for k, v in os.environ.items() if not k.startswith('JAX_')}
    environment['PYTHONPATH'] = str(Path(__file__).parents[1])
    processes = [
        subprocess.Popen(
            [sys.executable, '-W', 'error', '-c', PROCESS, directory],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(3)
    ]
    ended = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], ended
    assert len({out for out, _ in ended}) == 1
    assert not any(err for _, err in ended), ended


def test_ensembles_are_trained_with_it(monkeypatch, tmp_path):
    monkeypatch.setattr(compilation_cache, 'default_directory', lambda: tmp_path / 'compiled')
    rng = np.random.default_rng(0)
    data = ij.Dataset({'x': rng.normal(size=(12, 2)).astype(np.float32), 'y': np.zeros(12, 'f')})
    task = ij.tasks.Regression(lambda rngs: nnx.Linear(2, 1, rngs=rngs), inputs='x', label='y')
    measure_subsets(task, data, np.eye(12, dtype=bool)[:2] == 0, recipe=ij.Recipe(batch_size=4))
    assert list((tmp_path / 'compiled').glob('jit_advance-*-cache'))
    assert settings()['jax_compilation_cache_dir'] is None
    for train in (ij.train_ensemble, ij.train_full_data_model):
        assert hasattr(train, '__wrapped__')


HEAVY = {
    'matplotlib',
    'sklearn',
    'scipy.special',
    'scipy.sparse',
    'scipy.stats',
    'orbax.checkpoint',
}
HEAVY |= {
    'orbax.checkpoint',
    'transformers',
    'tensorflow_datasets',
    'sacrebleu',
    'jinja2',
    'pandas',
}
HEAVY |= {'influence_jax.attribution', 'influence_jax.judging', 'influence_jax.report.figures'}


def test_a_launch_imports_nothing_that_only_few_need():
    program = 'import sys, experiments.image_ensemble; print(*sys.modules)'
    loaded = subprocess.run(
        [sys.executable, '-c', program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert not HEAVY & set(loaded.stdout.split())
