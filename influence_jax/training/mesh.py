"""The devices of large members: a mesh with axes ('member', 'data', 'model')."""

import dataclasses
import enum
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh


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
