"""TPU slices that can be compiled for: their names, memory and speed."""

import dataclasses
import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jax.experimental import topologies

_FLAT = ('2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_CUBIC = ('2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8', '8x8x8')


@dataclasses.dataclass(frozen=True)
class Generation:
    """A kind of chip.

    Attributes:
        memory_gib: HBM of a chip that programs can use, as libtpu's compiler says it.
        peak_tflops: bfloat16, of a chip, as published by its maker.
        gigabytes_per_second: bandwidth of a chip's HBM, likewise; 1e9 bytes.
        slices: arrangements of chips.
        options: what the compiler must be told besides, so that a chip is one device.
    """

    memory_gib: float
    peak_tflops: float
    gigabytes_per_second: float
    slices: tuple[str, ...]
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)


GENERATIONS: Mapping[str, Generation] = {
    'v4': Generation(30.75, 275, 1200, _CUBIC, {'chip_config_name': 'megacore'}),
    'v5e': Generation(15.75, 197, 819, _FLAT),
    'v5p': Generation(95.74, 459, 2765, _CUBIC),
    'v6e': Generation(31.25, 918, 1640, _FLAT),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice of a pod.

    Attributes:
        name: such as v5e:4x4.
        generation: of its chips.
    """

    name: str
    generation: Generation

    @property
    def chips(self) -> int:
        """How many it has; each is one device."""
        return math.prod(map(int, self.name.split(':')[1].split('x')))

    def devices(self) -> Sequence[Any]:
        """Devices that programs can be compiled for, but not run on.

        Raises:
            ValueError: libtpu is not installed.
        """
        if importlib.util.find_spec('libtpu') is None:
            raise ValueError(
                'compiling for TPUs needs libtpu, which is not installed: '
                "pip install 'influence_jax[tpu]'"
            )
        described = topologies.get_topology_desc(
            platform='tpu', topology_name=self.name, **self.generation.options
        )
        return described.devices


def find(name: str) -> Topology:
    """The slice of this name, such as v5e:4x4.

    Raises:
        ValueError: there is none.
    """
    kind, _, chips = name.partition(':')
    generation = GENERATIONS.get(kind)
    if generation is None or chips not in generation.slices:
        known = '; '.join(f'{k}: {", ".join(g.slices)}' for k, g in GENERATIONS.items())
        raise ValueError(f'no TPU topology {name!r} is known; write one as v5e:4x4 ({known})')
    return Topology(name, generation)
