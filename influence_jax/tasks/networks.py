"""Modules of Flax as pure functions: parameters and state in, outputs and new state out."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Key

from influence_jax.types import Params, PRNGKey, Variables

MakeModule = Callable[[nnx.Rngs], nnx.Module]
"""Builds a module of Flax NNX."""


@runtime_checkable
class Network(Protocol):
    """A network as pure functions."""

    def init(self, inputs: Any, *, key: PRNGKey) -> Params | Variables:
        """Returns fresh parameters, with the state where there is any; `inputs` gives shapes."""

    def train(self, variables: Any, inputs: Any, *, key: PRNGKey) -> tuple[Array, Any]:
        """Returns outputs as in training, Dropout on, and the new state (None without)."""

    def predict(self, variables: Any, inputs: Any) -> Array:
        """Returns outputs as when measuring: Dropout off, BatchNorm by its statistics."""


def as_network(module: 'MakeModule | tuple[Callable, Callable]') -> Network:
    """Returns the functions of a module.

    Args:
        module: builds any module of Flax NNX from its `nnx.Rngs`; or the pair `(init, apply)` of a
            Linen module, or of pure functions of that form.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(module, tuple):
        if len(module) != 2 or not all(map(callable, module)):
            raise ValueError('a pair must be (init, apply), both callable')
        return _Pair(*module)
    if isinstance(module, nnx.Module) or not callable(module):
        raise ValueError(
            f'make_module must be a function that builds a module for each member, such as '
            f'lambda rngs: Network(rngs=rngs), not {type(module).__name__}'
        )
    return _NNX(module)


@dataclasses.dataclass(frozen=True)
class _NNX:
    make: MakeModule

    def init(self, inputs: Any, *, key: PRNGKey) -> Params | Variables:
        del inputs
        _, params, _, state = self._split(self._module(key))
        return Variables(params, state) if jax.tree.leaves(state) else params

    def train(self, variables: Any, inputs: Any, *, key: PRNGKey) -> tuple[Array, Any]:
        module = self._merged(variables, key, training=True)
        outputs = module(inputs)
        nnx.pop(module, nnx.Intermediate)
        has_state = isinstance(variables, Variables)
        return outputs, self._split(module)[3] if has_state else None

    def predict(self, variables: Any, inputs: Any) -> Array:
        return self._merged(variables, jax.random.key(0), training=False)(inputs)

    def _module(self, key: PRNGKey) -> nnx.Module:
        # Whatever a module draws besides its parameters, it draws from a stream of its own.
        return self.make(nnx.Rngs(params=key, default=jax.random.fold_in(key, 1)))

    def _merged(self, variables: Any, key: PRNGKey, *, training: bool) -> Any:
        abstract = nnx.eval_shape(lambda: self._module(jax.random.key(0)))
        if training:
            abstract.train()
        else:
            abstract.eval()
        structure, _, streams, state = self._split(abstract)
        params = variables
        if isinstance(variables, Variables):
            params, state = variables
        return nnx.merge(structure, params, _reseeded(streams, key), state, copy=True)

    def _split(self, module: nnx.Module) -> tuple[Any, ...]:
        """Structure, parameters, random streams and all other state."""
        return nnx.split(module, nnx.Param, nnx.RngState, ...)


def _reseeded(streams: Any, key: PRNGKey) -> Any:
    """The random streams of a module, begun anew from a key."""
    leaves, structure = jax.tree.flatten(streams)

    def anew(number: int, leaf: Any) -> Any:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.zeros(leaf.shape, leaf.dtype)
        own: Key[Array, ...] = jax.random.fold_in(key, number)
        return own if leaf.shape == () else jax.random.split(own, leaf.shape)

    return jax.tree.unflatten(structure, [anew(i, leaf) for i, leaf in enumerate(leaves)])


_TRAINING = ('train', 'training', 'is_training')
_MEASURING = ('deterministic', 'use_running_average')


@dataclasses.dataclass(frozen=True)
class _Pair:
    """`module.init` and `module.apply` of Linen, or functions of that form.

    `init(rngs, inputs)` returns the collections by name, of which 'params' is trained and all
    others are state. `apply(variables, inputs, *, mutable, rngs)` returns the outputs and, where
    `mutable` lists collections, these. Whether the call is for training goes to the argument of
    the module's `__call__` (or of `apply`) that is named for it: train, training, is_training,
    deterministic or use_running_average.
    """

    init_module: Callable
    apply_module: Callable

    def init(self, inputs: Any, *, key: PRNGKey) -> Params | Variables:
        rngs = {'params': key, 'dropout': jax.random.fold_in(key, 1)}
        variables = dict(self.init_module(rngs, inputs, **self._mode(training=False)))
        params = variables.pop('params')
        return Variables(params, variables) if jax.tree.leaves(variables) else params

    def train(self, variables: Any, inputs: Any, *, key: PRNGKey) -> tuple[Array, Any]:
        rngs, mode = {'dropout': key}, self._mode(training=True)
        if not isinstance(variables, Variables):
            return self.apply_module({'params': variables}, inputs, rngs=rngs, **mode), None
        collections = {'params': variables.params, **variables.state}
        mutable = list(variables.state)
        outputs, state = self.apply_module(collections, inputs, mutable=mutable, rngs=rngs, **mode)
        return outputs, dict(state)

    def predict(self, variables: Any, inputs: Any) -> Array:
        collections: Mapping[str, Any] = {'params': variables}
        if isinstance(variables, Variables):
            collections = {'params': variables.params, **variables.state}
        return self.apply_module(collections, inputs, **self._mode(training=False))

    def _mode(self, *, training: bool) -> dict[str, bool]:
        module = getattr(self.apply_module, '__self__', None)
        called = self.apply_module if module is None else type(module).__call__
        names = inspect.signature(called).parameters
        return {
            **{name: training for name in _TRAINING if name in names},
            **{name: not training for name in _MEASURING if name in names},
        }
