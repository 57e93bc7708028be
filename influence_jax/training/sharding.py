"""Where parameters lie: rules over their paths, which the optimiser's state follows."""

import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec

from influence_jax.training.member import State
from influence_jax.training.mesh import MeshShape
from influence_jax.types import Params

Rules = Sequence[tuple[str, PartitionSpec]]
"""(pattern, where): the first pattern that is found in a parameter's path holds.

A path is written `layers/mlp/up`. The specs are of one member: no axis of members.
"""

REPLICATED: Rules = ((r'', PartitionSpec()),)
"""Every device of a member has all of its parameters."""


def specs(params: Params, rules: Rules, shape: MeshShape) -> Params:
    """A `PartitionSpec` for each parameter.

    Args:
        params: arrays or shapes of one member.
        rules: where each goes.
        shape: of the mesh.

    Raises:
        ValueError: a parameter that no rule knows, a rule with more axes than the parameter, or
            an axis that does not divide over the devices.
    """

    def of(path: tuple, leaf: Any) -> PartitionSpec:
        name = path_name(path)
        for pattern, spec in rules:
            if re.search(pattern, name):
                _check(name, leaf.shape, spec, shape)
                return spec
        raise ValueError(
            f'no rule says where the parameter {name} {list(leaf.shape)} lies; '
            'add a (pattern, PartitionSpec) to the sharding rules'
        )

    return jax.tree_util.tree_map_with_path(of, params)


def state_specs(state: State, rules: Rules, shape: MeshShape) -> State:
    """The same for a member in training.

    What the optimiser keeps of a parameter, in its shape and under its path, lies where the
    parameter lies; all else (counts, sums over rows or columns) is on every device.

    Args:
        state: arrays or shapes of one member.
        rules: where parameters go.
        shape: of the mesh.

    Raises:
        ValueError: as for `specs`.
    """
    params = specs(state.params, rules, shape)
    shapes = jax.tree_util.tree_leaves_with_path(state.params)
    found = {
        path_name(path): (leaf.shape, spec)
        for (path, leaf), spec in zip(shapes, jax.tree.leaves(params), strict=True)
    }

    def of(path: tuple, leaf: Any) -> PartitionSpec:
        parts = path_name(path).split('/')
        # The longest ending that is a parameter's path: `layer/w` is followed, not `w`. A single
        # array, which is all the parameters there are, has an empty one.
        endings = ('/'.join(parts[start:]) for start in range(len(parts) + 1))
        size, spec = next((found[name] for name in endings if name in found), ((), None))
        return spec if spec is not None and leaf.shape == size else PartitionSpec()

    return State(params, jax.tree_util.tree_map_with_path(of, state.optimizer_state))


def path_name(path: tuple) -> str:
    """`layers/mlp/up` for a leaf's path in a pytree; of an `nnx.Param`, not of its value."""
    if path and isinstance(path[-1], jax.tree_util.GetAttrKey) and path[-1].name == 'value':
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator='/')


def _check(name: str, sizes: Sequence[int], spec: PartitionSpec, shape: MeshShape) -> None:
    if len(spec) > len(sizes):
        raise ValueError(
            f'the sharding rule of {name} has {len(spec)} axes, but the parameter has {len(sizes)}'
        )
    for axis, (size, over) in enumerate(zip(sizes, spec, strict=False)):
        if size % shape.size(over):
            names = over if isinstance(over, str) else ' x '.join(over)
            raise ValueError(
                f'axis {axis} of {name}, {size} long, does not divide over {names} = '
                f'{shape.size(over)} of the mesh {shape}; choose a mesh that divides it'
            )
