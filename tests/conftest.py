"""Strictness for every test, four CPU devices for the mesh paths, and quicker compilation.

Compiling is most of what the tests do. So LLVM optimises less, here and in the launches that tests
start, which makes it twice as quick. (Not at all, level 0, has trained members to NaN.)
"""

import os

os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=1')

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.devices()  # now: the library would set another number as it begins to train


@pytest.fixture(scope='module')
def compiled_once(tmp_path_factory):
    """Keeps what is compiled, for modules that train runs of the same shapes again and again."""
    wanted = {
        'jax_compilation_cache_dir': str(tmp_path_factory.mktemp('compiled')),
        'jax_persistent_cache_min_compile_time_secs': 0.0,
        'jax_persistent_cache_min_entry_size_bytes': -1,
    }
    before = {name: getattr(jax.config, name) for name in wanted}

    def use(settings):
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()

    use(wanted)
    yield
    use(before)
