"""How members share devices.

An executor is a mesh of devices with the axes ('member', 'data', 'model') and the number of members
that each group of devices trains in one call, under `vmap` or one after another. The three that
are meant: `sequential`, one member after another on each device, which is fastest on a CPU;
`vmapped`, for small members on accelerators; `sharded`, for members that take several devices.
Which of them it is changes results by rounding alone. On a CPU, members one after another are
bitwise the same as alone; `vmap` rounds otherwise, which many steps of an adaptive optimizer
amplify, so an ensemble keeps to one width.
"""

import dataclasses
from typing import Any

import jax

from influence_jax.training.mesh import REPLICATED, MeshShape, Rules


@dataclasses.dataclass(frozen=True)
class Executor:
    """How members share devices.

    Attributes:
        shape: of the mesh, with how many members a group of devices trains under `vmap`.
        in_turn: how many such sets a group trains one after another in one call.
        rules: where a member's parameters are on the devices of its group.
        stepwise: whether each step is a call of its own, so that a state is never held twice; for
            large members, which must be if they take several devices.
    """

    shape: MeshShape = dataclasses.field(default_factory=MeshShape)
    in_turn: int = 1
    rules: Rules = REPLICATED
    stepwise: bool = False

    def __post_init__(self) -> None:
        if self.in_turn < 1:
            raise ValueError(f'in_turn must be at least 1, not {self.in_turn}')
        if self.stepwise and self.in_turn > 1:
            raise ValueError(
                f'a call of one step trains one set of members, not {self.in_turn}: in_turn=1'
            )
        if self.shape.devices_per_member > 1 and not self.stepwise:
            raise ValueError(f'members on a mesh of {self.shape} are trained by sharded(...)')

    @property
    def chunk(self) -> int:
        """C, the members of one call."""
        return self.shape.members_at_once * self.in_turn

    def fitted_to(self, members: int) -> 'Executor':
        """Returns the executor that wastes least on a last chunk that is not full.

        It makes as many calls, and no result depends on the difference.
        """
        calls = -(-members // self.chunk)
        in_turn = -(-members // (calls * self.shape.members_at_once))
        return dataclasses.replace(self, in_turn=in_turn)

    def describe(self) -> dict[str, Any]:
        """Returns what a manifest keeps of it, as JSON has it."""
        return {
            'member': self.shape.member,
            'data': self.shape.data,
            'model': self.shape.model,
            'vmapped': self.shape.vmapped,
            'in_turn': self.in_turn,
        }

    def __str__(self) -> str:
        kind = jax.devices()[0].device_kind
        if self.stepwise:
            return f'a mesh of {self.shape} x {kind}, {self.shape.members_at_once} at a time'
        width = self.shape.vmapped
        at_once = f'{width} members at a time' if width > 1 else 'one by one'
        return f'{self.shape.member} x {kind}, {at_once} on each'


def sequential(devices: int | None = None, *, in_turn: int = 4) -> Executor:
    """Returns the executor that trains one member after another on each of so many devices."""
    return Executor(MeshShape(number_of(devices)), in_turn)


def vmapped(width: int, devices: int | None = None) -> Executor:
    """Returns the executor that trains `width` members under `vmap` on each of so many devices."""
    return Executor(MeshShape(number_of(devices), vmapped=width))


def sharded(shape: MeshShape, rules: Rules) -> Executor:
    """Returns the executor of large members: each is spread over devices as the rules say."""
    return Executor(shape, rules=rules, stepwise=True)


def number_of(devices: int | None) -> int:
    """Returns how many devices are meant: all for None."""
    return jax.device_count() if devices is None else devices
