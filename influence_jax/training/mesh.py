"""A mesh of devices with axes ('member', 'data', 'model'), and where parameters are on it."""

import dataclasses
import enum
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, PartitionSpec

from influence_jax.training.member import State
from influence_jax.trees import map_named, named
from influence_jax.types import Params


class Axis(enum.StrEnum):
    """What is spread over an axis of the mesh."""

    MEMBER = 'member'
    """Members: nothing crosses this axis."""
    DATA = 'data'
    """A member's batch, and its parameters, gathered where they are used."""
    MODEL = 'model'
    """A member's matrices: heads and the width inside the MLP."""


@dataclasses.dataclass(frozen=True)
class MeshShape:
    """How large members share devices.

    Attributes:
        member: groups of devices, each of which trains members of its own.
        data: devices of a group among which a batch is spread.
        model: devices of a group among which matrices are spread.
        vmapped: members that a group trains by the same operations.
    """

    member: int = 1
    data: int = 1
    model: int = 1
    vmapped: int = 1

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ValueError(f'mesh: {name} must be at least 1, not {value}')

    def __str__(self) -> str:
        times = f' x {self.vmapped} vmapped' if self.vmapped > 1 else ''
        return f'({self.member}, {self.data}, {self.model}){times}'

    @classmethod
    def parse(cls, text: str, *, vmapped: int = 1) -> 'MeshShape':
        """From 'MEMBER,DATA,MODEL', such as '4,4,1'.

        Raises:
            ValueError: it is something else.
        """
        parts = [part.strip() for part in text.split(',')]
        if len(parts) != 3 or not all(part.isdecimal() for part in parts):
            raise ValueError(
                f'a mesh is three sizes, members, data and model, such as 4,4,1, not {text!r}'
            )
        member, data, model = map(int, parts)
        return cls(member, data, model, vmapped)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Of the axes, in the order of `Axis`."""
        return self.member, self.data, self.model

    @property
    def devices(self) -> int:
        """How many it takes."""
        return math.prod(self.sizes)

    @property
    def devices_per_member(self) -> int:
        """How many train one member, together with those vmapped with it."""
        return self.data * self.model

    @property
    def members_at_once(self) -> int:
        """C, the members of one chunk."""
        return self.member * self.vmapped

    def size(self, axes: str | Sequence[str] | None) -> int:
        """Into how many parts an entry of a `PartitionSpec` cuts an axis."""
        names = () if axes is None else (axes,) if isinstance(axes, str) else axes
        of = dict(zip(Axis, self.sizes, strict=True))
        return math.prod(of[Axis(name)] for name in names)

    def mesh(self, devices: Sequence[Any] | None = None) -> Mesh:
        """The mesh over these devices, by default the first ones that jax sees.

        Raises:
            ValueError: there are too few devices, or given ones are too many.
        """
        if devices is None:
            devices = jax.devices()[: self.devices]
        if len(devices) != self.devices:
            raise ValueError(
                f'a mesh of {self} takes {self.devices} devices, but there are {len(devices)}'
            )
        try:
            grid = mesh_utils.create_device_mesh(
                self.sizes, list(devices), allow_split_physical_axes=True
            )
        except (AssertionError, NotImplementedError, ValueError):
            # They are no grid, such as 3 of 8 TPU chips: neighbours may then be apart.
            grid = np.array(devices).reshape(self.sizes)
        return Mesh(grid, tuple(Axis), axis_types=(AxisType.Auto,) * len(Axis))


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

    def of(name: str, leaf: Any) -> PartitionSpec:
        for pattern, spec in rules:
            if re.search(pattern, name):
                _check(name, leaf.shape, spec, shape)
                return spec
        raise ValueError(
            f'no rule says where the parameter {name} {list(leaf.shape)} lies; '
            'add a (pattern, PartitionSpec) to the sharding rules'
        )

    return map_named(of, params)


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
    found = {
        name: (leaf.shape, spec)
        for (name, leaf), spec in zip(
            named(state.params).items(), jax.tree.leaves(params), strict=True
        )
    }

    def of(name: str, leaf: Any) -> PartitionSpec:
        parts = name.split('/')
        # The longest ending that is a parameter's path: `layer/w` is followed, not `w`. A single
        # array, which is all the parameters there are, has an empty one.
        endings = ('/'.join(parts[start:]) for start in range(len(parts) + 1))
        size, spec = next((found[end] for end in endings if end in found), ((), None))
        return spec if spec is not None and leaf.shape == size else PartitionSpec()

    of_model_state = jax.tree.map(lambda _: PartitionSpec(), state.model_state)
    optimizer_state = map_named(of, state.optimizer_state)
    return State(params, optimizer_state, of_model_state)


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
