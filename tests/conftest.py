"""Strictness for every test, and four CPU devices for the mesh paths."""

import jax

jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_numpy_rank_promotion', 'raise')
