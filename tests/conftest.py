"""Strictness for every test, four CPU devices for the mesh paths, and quicker compilation.

Every annotation of the package is checked when a test calls it, shapes included (jaxtyping with
beartype). Tests that pass wrong types on purpose, to see them refused, are marked `unchecked`.

Compiling is most of what the tests do. So LLVM optimises less, here and in the launches that tests
start, which makes it twice as quick (not at all, level 0, has trained members to NaN), fusions are
emitted without MLIR and programs in one module, which takes off another third, and what is
compiled is kept in pytest's own cache, for all processes and for the next session: attribution's
tests take half the processor's time then. A process a core leaves none for threads of
BLAS, which wait for one another by turning: they take a fifth more of the processor's time, and
twice the time where the cores are busy.
"""

import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault(
    'XLA_FLAGS',
    '--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false '
    '--xla_cpu_parallel_codegen_split_count=1',
)
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
os.environ.setdefault('OMP_NUM_THREADS', '1')

import jax
import jaxtyping
import pytest

import tests.annotations

# Before anything imports the package.
jaxtyping.install_import_hook('influence_jax', f'{tests.annotations.__name__}.checked')
jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.devices()  # fixes their number, which `use_cores` would change

TESTS = Path(__file__).parent
_MOST_BYTES = 2**30


@pytest.fixture(autouse=True)
def _unchecked(request, monkeypatch):
    if request.node.get_closest_marker('unchecked'):
        monkeypatch.setattr(jaxtyping.config, 'jaxtyping_disable', True)


def _compiled_programs(config):
    """Pytest's directory of them, empty where a session was killed, which may have left a part."""
    if not hasattr(config, 'cache'):  # pytest -p no:cacheprovider
        config.temporary = tempfile.TemporaryDirectory(prefix='compiled-')  # gone with the session
        return config.temporary.name
    directory = config.cache.mkdir('compiled')
    run = [_runs(path.suffix[1:]) for path in directory.glob('session-*')]
    is_full = sum(path.stat().st_size for path in directory.iterdir()) > _MOST_BYTES
    if not all(run) or (is_full and not any(run)):
        shutil.rmtree(directory, ignore_errors=True)
        directory = config.cache.mkdir('compiled')
    config.session_file = directory / f'session-.{os.getpid()}'
    config.session_file.touch()
    return directory


def _runs(process):
    return Path('/proc', process).exists() or not Path('/proc').exists()


def pytest_unconfigure(config):
    if hasattr(config, 'session_file'):
        config.session_file.unlink(missing_ok=True)
    if hasattr(config, 'temporary'):
        config.temporary.cleanup()


def pytest_configure(config):
    if not hasattr(config, 'workerinput'):  # the first process; workers and launches inherit it
        os.environ['JAX_COMPILATION_CACHE_DIR'] = str(_compiled_programs(config))
        os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'
        os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'
    jax.config.update('jax_compilation_cache_dir', os.environ['JAX_COMPILATION_CACHE_DIR'])
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def pytest_collection_modifyitems(items):
    """Files of long tests come first, so that no process has one left when others have ended."""
    long = [TESTS / name for name in ('experiments', 'attribution', 'judging', 'tasks', 'training')]
    items.sort(key=lambda item: item.path.parent not in long)
