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
