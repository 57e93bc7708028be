"""Strictness for every test, four CPU devices for the mesh paths, and quicker compilation.

Compiling is most of what the tests do. So LLVM optimises less, here and in the launches that tests
start, which makes it twice as quick. (Not at all, level 0, has trained members to NaN.)
"""

import os

os.environ.setdefault('XLA_FLAGS', '--xla_backend_optimization_level=1')

import jax

jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_numpy_rank_promotion', 'raise')
