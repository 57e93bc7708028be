"""How much the batches of an ensemble hold, known before anything is trained."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int

from influence_jax.training.member import Program, schedule
from influence_jax.types import Masks, PRNGKey


def largest_batch(
    program: Program, masks: Masks, *, key: PRNGKey, sizes: Int[np.ndarray, ' N']
) -> int:
    """The most that the sizes of a batch's examples add up to, over all steps of all members.

    Batches are drawn from the key, so this is exact. Tasks whose examples differ in size, such
    as texts, need not compute more than this.

    Args:
        program: how members are trained.
        masks: `[M N]`; row m is the subset of member m.
        key: of the ensemble, as for `train`.
        sizes: of each example.
    """

    @jax.jit
    def largest(key: PRNGKey, masks: Bool[Array, 'M N'], sizes: Int[Array, ' N']) -> Array:
        def of_member(row: tuple[Array, Array]) -> Array:
            member, mask = row
            batches = schedule(program, mask, key=jax.random.fold_in(key, member))
            return sizes[batches].sum(axis=1).max()

        return lax.map(of_member, (jnp.arange(len(masks)), masks)).max()

    return int(largest(key, jnp.asarray(masks), jnp.asarray(sizes)))
