"""Which examples a member sees, and when."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Int

from influence_jax.types import AnyArray, PRNGKey


def batches(
    mask: Bool[AnyArray, ' N'], *, key: PRNGKey, steps: int, batch_size: int, smallest: int
) -> Int[Array, 'steps B']:
    """Indices of the examples of every training step, all of them from the member's subset.

    The subset is shuffled anew for each epoch and the epochs follow each other without a gap,
    so that every member takes the same number of steps whatever the size of its subset, every
    batch is full, and no example is seen twice before all are seen once.

    What is shuffled is an example's rank within the subset. So the order of a member that
    trains under a mask is the order of one that trains on the subset's examples alone.

    Args:
        mask: the member's subset.
        key: of the member.
        steps: number of training steps.
        batch_size: B.
        smallest: a lower bound on the subset's size; memory grows with
            `N * steps * B / smallest`.
    """
    subset_size = mask.sum()
    subset = jnp.flatnonzero(mask, size=mask.size, fill_value=0)
    rank = jnp.arange(mask.size)

    def shuffled(epoch: Array) -> Array:
        # The bits of rank r do not depend on how many ranks there are (partitionable threefry).
        bits = jax.random.bits(jax.random.fold_in(key, epoch), (mask.size,))
        *_, order = lax.sort((rank >= subset_size, bits, rank), num_keys=2)
        return order

    epochs = -(-steps * batch_size // smallest)
    orders = lax.map(shuffled, jnp.arange(epochs))
    position = jnp.arange(steps * batch_size)
    ranks = orders[position // subset_size, position % subset_size]
    return subset[ranks].reshape(steps, batch_size)
