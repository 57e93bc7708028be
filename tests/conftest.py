"""Strictness for every test, four CPU devices for the mesh paths, and quicker compilation.

Every annotation of the package is checked when a test calls it, shapes included (jaxtyping with
beartype). Tests that pass wrong types on purpose, to see them refused, are marked `unchecked`.

Compiling is most of what the tests do. So LLVM optimises less, here and in the launches that tests
start, which makes it twice as quick (not at all, level 0, has trained members to NaN), and all
processes of a session share what they have compiled. A process a core leaves none for threads of
BLAS, which wait for one another by turning: they take a fifth more of the processor's time, and
twice the time where the cores are busy.
"""

import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=1')
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


@pytest.fixture(autouse=True)
def _unchecked(request, monkeypatch):
    if request.node.get_closest_marker('unchecked'):
        monkeypatch.setattr(jaxtyping.config, 'jaxtyping_disable', True)


def pytest_configure(config):
    if not hasattr(config, 'workerinput'):  # the first process; workers and launches inherit it
        config.compiled = tempfile.mkdtemp(prefix='compiled-')
        os.environ['JAX_COMPILATION_CACHE_DIR'] = config.compiled
        os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'
        os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'
    jax.config.update('jax_compilation_cache_dir', os.environ['JAX_COMPILATION_CACHE_DIR'])
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
    jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)


def pytest_collection_modifyitems(items):
    """Files of long tests come first, so that no process has one left when others have ended."""
    long = [TESTS / name for name in ('experiments', 'attribution', 'judging', 'tasks', 'training')]
    items.sort(key=lambda item: item.path.parent not in long)


def pytest_unconfigure(config):
    if hasattr(config, 'compiled'):
        shutil.rmtree(config.compiled, ignore_errors=True)
