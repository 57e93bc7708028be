"""What methods compute of batches of records, compiled once for all models of one network.

Features are dataclasses that are pytrees: their arrays, those of the model first of all, are
arguments of what is compiled and not constants in it. So the next model, and the next call with the
same model, compile nothing.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, dataclass_transform

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from influence_jax.attribution.model import Model, flat
from influence_jax.trees import register_dataclass
from influence_jax.types import Batch

Features = Callable[[Batch], Float[Array, 'b ...']]
"""From a batch of records to what a method makes of each."""


def static(**options: Any) -> Any:
    """A field of `features` that is no array: another value is compiled anew."""
    return dataclasses.field(metadata={'static': True}, **options)


@dataclass_transform(frozen_default=True, field_specifiers=(static,))
def features(cls: type) -> type:
    """Makes a class a frozen dataclass that is a pytree of its fields but for `static` ones."""
    return register_dataclass(dataclasses.dataclass(frozen=True)(cls))


def compiled(function: Features) -> Features:
    """Returns the same function, compiled; `function` is made by `features`."""
    return functools.partial(_apply, function)


@jax.jit
def _apply(function: Features, batch: Batch) -> Float[Array, 'b ...']:
    return function(batch)


@features
class Losses:
    """What is measured of each record."""

    model: Model
    measurement: str = static()

    def __call__(self, batch: Batch) -> Float[Array, ' b']:
        """By the model's parameters."""
        return self.model.losses(self.model.chosen, batch, self.measurement)


@features
class LabelErrors:
    """1 - p(label); of a text, the mean over its tokens."""

    model: Model

    def __call__(self, batch: Batch) -> Float[Array, ' b']:
        """ValueError where the task has no probabilities of labels."""
        return jax.vmap(lambda row: self.model.margin(self.model.chosen, row).error)(batch)


@features
class GradientsOf:
    """The gradient of what is measured, by all chosen parameters side by side."""

    model: Model
    measurement: str = static()

    def __call__(self, batch: Batch) -> Float[Array, 'b P']:
        """P is `model.size`."""
        network = self.model.network(batch, self.measurement)
        return flat(network.gradients(self.model.chosen, batch))


@features
class Norms:
    """The norm of features."""

    of: Features
    order: int = static(default=2)

    def __call__(self, batch: Batch) -> Float[Array, ' b']:
        """Of each record."""
        return jnp.linalg.norm(self.of(batch), self.order, axis=1)


@features
class Directions:
    """Features of norm 1; 0 where they are 0."""

    of: Features

    def __call__(self, batch: Batch) -> Float[Array, 'b D']:
        """Of each record."""
        found = self.of(batch)
        norm = jnp.linalg.norm(found, axis=1, keepdims=True)
        return found / jnp.where(norm > 0, norm, 1)


@features
class Times:
    """Features times matrices `[d e]`, the first d of them times the first, and so on."""

    of: Features
    matrices: tuple[Array, ...]

    def __call__(self, batch: Batch) -> Float[Array, 'b E']:
        """Of each record."""
        found, parts, first = self.of(batch), [], 0
        for matrix in self.matrices:
            parts.append(found[:, first : first + len(matrix)] @ matrix)
            first += len(matrix)
        return jnp.concatenate(parts, axis=1)
