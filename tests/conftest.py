"""Strictness for every test, four CPU devices for the mesh paths, and quicker compilation.

Every annotation of the package is checked when a test calls it, as jaxtyping understands it. What
gives wrong types on purpose, to see them refused, is marked `wrong_types` and runs unchecked.

Compiling is most of what the tests do. So LLVM optimises less, here and in the launches that tests
start, which makes it twice as quick. (Not at all, level 0, has trained members to NaN.)
"""

import os

os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=1')

import jax
import jaxtyping
import pytest

# An int passes for a float, as it does for type checkers (PEP 484).
jaxtyping.install_import_hook(
    'influence_jax', 'beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))'
)
jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_numpy_rank_promotion', 'raise')
jax.devices()  # fixes their number, which `use_cores` would change


@pytest.fixture(autouse=True)
def _unchecked(request, monkeypatch):
    if request.node.get_closest_marker('wrong_types'):
        monkeypatch.setattr(jaxtyping.config, 'jaxtyping_disable', True)
