"""What XLA computes far slower than a machine can, each beside a form in JAX or numpy.

On CPUs some steps lose half of their time in passes over memory that a compiler of array programs
does not join: these are in C++, compiled by the machine's own compiler at their first use; where
there is none, the other form computes the same. On NVIDIA GPUs attention is by cuDNN
(`cudnn_attention`). `use` is about those in C++.
"""

from influence_jax.kernels.library import use

__all__ = ['use']
