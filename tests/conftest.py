"""Strictness for every test, four CPU devices for the mesh paths, and quicker compilation.

Every annotation of the package is checked when a test calls it, shapes included (jaxtyping with
beartype). Tests that pass wrong types on purpose, to see them refused, are marked `unchecked`.

Compiling is most of what the tests do. So LLVM optimises less, here and in the launches that tests
start, which makes it twice as quick. (Not at all, level 0, has trained members to NaN.)
"""

import os

os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=1')

import jax
import jaxtyping
import pytest
from jax.experimental.compilation_cache import compilation_cache

# Before anything imports the package. An int passes for a float, as for type checkers (PEP 484).
jaxtyping.install_import_hook(
    'influence_jax', 'beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))'
)
jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.devices()  # fixes their number, which `use_cores` would change


@pytest.fixture(autouse=True)
def _unchecked(request, monkeypatch):
    if request.node.get_closest_marker('unchecked'):
        monkeypatch.setattr(jaxtyping.config, 'jaxtyping_disable', True)


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
