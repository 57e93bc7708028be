"""Strictness for every test, four CPU devices for the mesh paths, and a cache of compiled programs.

Many tests and the launches that they start compile the same programs: the cache, made anew for
each session, lets them do so once.
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
}

import jax  # noqa: E402, the environment first

jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_numpy_rank_promotion', 'raise')
