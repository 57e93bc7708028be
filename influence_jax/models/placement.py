"""Where a large member's activations are on its devices; nothing for members on one device.

The axis 'data' is that of the mesh within which the model is traced (`training.mesh`).
"""

import jax
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Shaped

_DATA = 'data'


def over_data(rows: Shaped[Array, 'B ...']) -> Shaped[Array, 'B ...']:
    """The same rows, spread over the axis 'data', each whole.

    Left to itself the compiler follows the matrices, which are cut along the same axis: it would
    spread features instead, and add up whole batches after every product.
    """
    if len(rows) == 1 or jax.sharding.get_abstract_mesh().shape.get(_DATA, 1) == 1:
        return rows
    return lax.with_sharding_constraint(rows, PartitionSpec(_DATA))
