"""The task of adapting a frozen language model: each member trains a LoRA adapter alone."""

import dataclasses
from collections.abc import Mapping

from jaxtyping import Array, Float

from influence_jax.models.language_modeling import LanguageModeling, TokenBatch
from influence_jax.models.lora import Adapters, LoRA
from influence_jax.types import Params, PRNGKey, Task


@dataclasses.dataclass(frozen=True)
class AdapterModeling:
    """A `BasedTask`: the members' parameters are adapters, their base is shared and frozen.

    Attributes:
        modeling: what is trained and measured.
        lora: which matrices are adapted.
    """

    modeling: LanguageModeling
    lora: LoRA

    @property
    def measurements(self) -> tuple[str, ...]:
        """Those of the modeling."""
        return self.modeling.measurements

    def on(self, base: Params) -> Task:
        """The task of adapting this base."""
        return _Adapted(self.modeling, self.lora, base)


@dataclasses.dataclass(frozen=True, eq=False)
class _Adapted:
    modeling: LanguageModeling
    lora: LoRA
    base: Params

    @property
    def measurements(self) -> tuple[str, ...]:
        return self.modeling.measurements

    def init(self, *, key: PRNGKey) -> Adapters:
        return self.lora.init(self.base, key=key)

    def train_loss(
        self, params: Adapters, batch: TokenBatch, *, key: PRNGKey
    ) -> Float[Array, ' B']:
        scaled = self.lora.scaled(params)
        return self.modeling.train_loss(self.base, batch, key=key, adapters=scaled)

    def measure(self, params: Adapters, batch: TokenBatch) -> Mapping[str, Float[Array, ' B']]:
        return self.modeling.measure(self.base, batch, adapters=self.lora.scaled(params))
