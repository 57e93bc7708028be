"""Random projections of gradients, made on the fly: the matrix is never there as a whole."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

_ENTRIES = 2**22
"""Of the projection that are there at once."""

_BITS = 32


def project(
    gradients: Mapping[str, Float[Array, 'B ...']], size: int, *, key: Key[Array, '']
) -> Float[Array, 'B D']:
    """Multiplies gradients, side by side, by a matrix of random signs / sqrt(size).

    Inner products keep their expectation (Johnson-Lindenstrauss; Achlioptas 2003). Signs are drawn
    parameter by parameter and in blocks of rows, so that they depend on the key, the order of the
    parameters and `size` alone.

    Args:
        gradients: by path; each is projected by itself.
        size: D.
        key: of the signs.
    """
    parts = []
    for number, leaf in enumerate(gradients.values()):
        parts.append(
            _project_one(leaf.reshape(len(leaf), -1), size, jax.random.fold_in(key, number))
        )
    return sum(parts[1:], parts[0]) / jnp.sqrt(size)


def _project_one(rows: Float[Array, 'B p'], size: int, key: Key[Array, '']) -> Float[Array, 'B D']:
    count = rows.shape[1]
    height = min(count, max(1, _ENTRIES // size))
    blocks = -(-count // height)
    padded = jnp.pad(rows, ((0, 0), (0, blocks * height - count)))

    def add(number: Array, total: Float[Array, 'B D']) -> Float[Array, 'B D']:
        block = jax.lax.dynamic_slice_in_dim(padded, number * height, height, axis=1)
        return total + block @ _signs(jax.random.fold_in(key, number), height, size)

    return jax.lax.fori_loop(0, blocks, add, jnp.zeros((len(rows), size), rows.dtype))


def _signs(key: Key[Array, ''], rows: int, columns: int) -> Float[Array, 'rows columns']:
    """Each random word gives the signs of 32 entries."""
    words = jax.random.bits(key, (rows, -(-columns // _BITS)), jnp.uint32)
    bits = (words[:, :, None] >> jnp.arange(_BITS, dtype=jnp.uint32)[None, None]) & 1
    return 2.0 * bits.reshape(rows, -1)[:, :columns].astype(jnp.float32) - 1
