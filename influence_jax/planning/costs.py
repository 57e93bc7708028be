"""What a run on a slice costs."""

import math
from typing import NamedTuple

from influence_jax.planning.topology import Topology
from influence_jax.training.mesh import MeshShape


class Cost(NamedTuple):
    """Of an ensemble, its members filling whole chunks.

    flops: of all its members.
    chip_hours: of one chip; hours times chips.
    hours: on this slice.
    """

    flops: float
    chip_hours: float
    hours: float


class StoreBytes(NamedTuple):
    """What the directory of a run takes, without parameters and report.

    measurements: float32 `[M T]`, as often as there are measurements.
    masks: `[M N]`, compressed: random ones of half of the examples take 1.51 bits an entry
        (docs/results/growth.md).
    """

    measurements: float
    masks: float

    def __str__(self) -> str:
        return (
            f'{(self.measurements + self.masks) / 1e9:,.3g} GB on disk: '
            f'{self.measurements / 1e9:,.3g} of measurements (M T x 4 bytes each), '
            f'{self.masks / 1e9:,.3g} of masks'
        )


def store_bytes(*, members: int, examples: int, targets: int, measurements: int) -> StoreBytes:
    """Returns the bytes of a run's directory.

    Args:
        members: M.
        examples: N.
        targets: T.
        measurements: how many are recorded of each member and target.
    """
    return StoreBytes(4.0 * members * targets * measurements, 1.51 / 8 * members * examples)


def cost(
    topology: Topology,
    shape: MeshShape,
    *,
    members: int,
    flops_per_member: float,
    utilization: float,
) -> Cost:
    """Chip-hours of an ensemble.

    Args:
        topology: the devices.
        shape: of the mesh.
        members: M.
        flops_per_member: that its result needs, training and measuring; what is computed twice
            to save memory does not count.
        utilization: share of the chips' peak at which these are done, in (0, 1]; assumed, not
            known.

    Raises:
        ValueError: the utilization is not in (0, 1].
    """
    if not 0 < utilization <= 1:
        raise ValueError(f'utilization must lie in (0, 1], not {utilization}')
    filled = math.ceil(members / shape.members_at_once) * shape.members_at_once
    seconds = filled * flops_per_member / (topology.generation.peak_tflops * 1e12 * utilization)
    return Cost(members * flops_per_member, seconds / 3600, seconds / 3600 / topology.chips)
