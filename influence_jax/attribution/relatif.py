"""RelatIF: influence relative to what an example does at all (Barshan et al. 2020, 2003.11630)."""

import enum

import numpy as np
from jaxtyping import Array, Float

from influence_jax.attribution.method import Features, Records, by_batches
from influence_jax.types import Batch


class RelatIF(enum.Enum):
    """What influences are divided by, so that examples of large loss do not lead for all targets.

    THETA: the norm of the change of parameters that the example makes.
    LOSS: the square root of the example's influence on itself.
    """

    THETA = 'theta'
    LOSS = 'l'

    @property
    def title(self) -> str:
        """For headings."""
        return f'{self.value}-RelatIF'

    def scales(
        self, gradients: Features, solved: Features, records: Records
    ) -> Float[np.ndarray, ' N']:
        """One over what each example's scores are divided by; 0 where its gradient is 0."""

        def squares(batch: Batch) -> Float[Array, ' b']:
            changes = solved(batch)
            other = changes if self is RelatIF.THETA else gradients(batch)
            return (other * changes).sum(axis=1)

        found = by_batches(squares, records.examples, records.batch, what='self-influence')
        return np.where(found > 0, 1 / np.sqrt(np.where(found > 0, found, 1)), 0)
