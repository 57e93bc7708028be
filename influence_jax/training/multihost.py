"""Large members over the processes of a cluster, one a host: arrays there and back, and consent.

Every process runs the same program on the same data. With one process all of this is what jax
does anyway.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding
from jaxtyping import Shaped

from influence_jax.types import AnyArray


def is_primary() -> bool:
    """Whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def place(tree: Any, shardings: Any) -> Any:
    """The arrays, each spread as its sharding says; those that lie so already stay.

    Args:
        tree: the same arrays, whole, in every process.
        shardings: a sharding for all of them, or a pytree of one each.
    """
    if isinstance(shardings, Sharding):
        return jax.tree.map(functools.partial(_placed, sharding=shardings), tree)
    return jax.tree.map(_placed, tree, shardings)


def _placed(leaf: AnyArray | np.number, sharding: Sharding) -> jax.Array:
    if isinstance(leaf, jax.Array) and leaf.sharding.is_equivalent_to(sharding, leaf.ndim):
        return leaf
    if sharding.is_fully_addressable:
        return jax.device_put(leaf, sharding)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_placed(jax.random.key_data(leaf), sharding))
    host = np.asarray(leaf)  # jax.device_put would compare the values of all processes
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def fetch(tree: Any) -> Any:
    """The arrays, whole, on the host of every process."""
    if jax.process_count() == 1:
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def from_primary(value: Shaped[np.ndarray, '...']) -> Shaped[np.ndarray, '...']:
    """The first process's value, of the same shape and type in all."""
    if jax.process_count() == 1:
        return value
    return np.asarray(multihost_utils.broadcast_one_to_all(value))


def all_equal(number: int) -> bool:
    """Whether all processes have this number."""
    if jax.process_count() == 1:
        return True
    numbers = multihost_utils.process_allgather(np.int32(number))
    return bool((numbers == number).all())


def by_primary(action: Callable[[], object]) -> None:
    """Done by the first process alone, while the others wait."""
    if is_primary():
        action()
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices('by_primary')


@contextlib.contextmanager
def one_after_another() -> Iterator[None]:
    """What is made once, by the first process, and then found by the others."""
    if not is_primary():
        by_primary(_nothing)
    try:
        yield
    finally:
        if is_primary():
            by_primary(_nothing)


def _nothing() -> None:
    """While the others wait."""
