"""Kernels for CPUs in C++, compiled by the machine's own compiler at their first use.

XLA serves TPUs and GPUs well. On CPUs some steps lose half of their time in passes over memory
that a compiler of array programs does not join; those few are here, each beside a form in JAX or
numpy that computes the same and is used where there is no compiler.
"""

from influence_jax.kernels.library import use

__all__ = ['use']
