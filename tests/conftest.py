"""Strictness for every test, four CPU devices for the mesh paths, and quick compilation.

Compiling is most of what the tests do. So LLVM does not optimise, which makes it three to four
times as quick, and a cache, new in each session, serves the launches that tests start as well.
"""

import atexit
import os
import shutil
import tempfile

_CACHE = tempfile.mkdtemp(prefix='compiled-')
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ |= {
    'JAX_COMPILATION_CACHE_DIR': _CACHE,
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.2',
    'XLA_FLAGS': os.environ.get('XLA_FLAGS', '--xla_backend_optimization_level=0'),
}

import jax  # noqa: E402, the environment first

jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_numpy_rank_promotion', 'raise')
