"""How fast a step could be at most: its FLOPs and bytes against what a chip can do.

A roofline (Williams et al. 2009, doi 10.1145/1498765.1498785) is an estimate, not a measurement:
it takes as long as the slower of two things that a real step never does without a gap, products
at the published peak and memory at the published bandwidth.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from influence_jax.planning.topology import GENERATIONS

_ARRAY = re.compile(r'\b(pred|[suf]\d+|bf16|f8\w*|c\d+)\[([\d,]*)\](\{[^}]*\})?')
_INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.-]+) = (.+?) ([a-z][\w-]*)\((.*)$')
_OPERAND = re.compile(r'%([\w.-]+)')
_ELSEWHERE = re.compile(r'S\([1-9]\d*\)')
_MOVES_NOTHING = {
    'after-all',
    'bitcast',
    'constant',
    'get-tuple-element',
    'parameter',
    'tuple',
    'while',
}


class Chip(NamedTuple):
    """What a chip can do, as its maker publishes it; dense, without sparsity.

    bfloat16_tflops: TFLOP/s of products of bfloat16.
    float32_tflops: of products of float32 as jax computes them there by default: by factors rounded
        to bfloat16 on TPUs, to TF32 on NVIDIA GPUs.
    gigabytes_per_second: of its memory, 1e9 bytes.
    memory_gib: that programs can use.
    source: where this is published.
    """

    bfloat16_tflops: float
    float32_tflops: float
    gigabytes_per_second: float
    memory_gib: float
    source: str


CHIPS: Mapping[str, Chip] = {
    name: Chip(kind.peak_tflops, kind.peak_tflops, kind.gigabytes_per_second, kind.memory_gib, url)
    for name, kind in GENERATIONS.items()
    for url in [f'https://cloud.google.com/tpu/docs/{name}']
} | {
    # 989 and 1,979 TFLOP/s there are with sparsity, which halves them.
    'H100 SXM': Chip(989.4, 494.7, 3350, 79.6, 'https://www.nvidia.com/en-us/data-center/h100/')
}


class StepCost(NamedTuple):
    """What a compiled step takes of one device.

    flops: by the compiler's count.
    accessed_bytes: operands and results of all instructions, wherever they lie.
    memory_bytes: the part of these that crosses the device's main memory: what the compiler keeps
        in the memory of the chip itself (space 1 in its text) is left out.
    loops: how many loops there are. The compiler counts the body of each once, so that a program
        with loops has more of everything.
    """

    flops: float
    accessed_bytes: float
    memory_bytes: float
    loops: int = 0

    def with_layers(self, of_two: 'StepCost', layers: int) -> 'StepCost':
        """Returns the cost of so many layers, this being that of one and the other of two."""

        def extended(one: float, two: float) -> float:
            return one + (layers - 1) * max(two - one, 0)

        return StepCost(
            extended(self.flops, of_two.flops),
            extended(self.accessed_bytes, of_two.accessed_bytes),
            extended(self.memory_bytes, of_two.memory_bytes),
            self.loops,
        )


class Roofline(NamedTuple):
    """The least seconds of a step.

    by_flops: at the peak.
    by_bytes: at the main memory's bandwidth, of the bytes that the compiler lets cross it.
    without_reuse: at that bandwidth, of all bytes that instructions access: were nothing kept in
        the memory of the chip itself, whose speed is not published. No bound, but the more
        cautious figure, and the only one for a chip that the program was not compiled for.
    """

    by_flops: float
    by_bytes: float
    without_reuse: float

    @property
    def seconds(self) -> float:
        """The larger of the first two: no step is faster."""
        return max(self.by_flops, self.by_bytes)

    @property
    def cautious_seconds(self) -> float:
        """With every access going to main memory."""
        return max(self.by_flops, self.without_reuse)

    @property
    def bound(self) -> str:
        """Which of the two it is: 'FLOPs' or 'bytes'."""
        return 'FLOPs' if self.by_flops >= self.by_bytes else 'bytes'

    def members_per_second(self, *, width: int, steps: int, cautious: bool = False) -> float:
        """Returns how many members a device trains in a second at most.

        Args:
            width: members that one step trains.
            steps: of a member; measuring is not counted.
            cautious: by `cautious_seconds`.
        """
        return width / (steps * (self.cautious_seconds if cautious else self.seconds))


def least_time(cost: StepCost, chip: Chip, *, bfloat16: bool = False) -> Roofline:
    """Returns the least time of a step on a chip.

    Args:
        cost: of the step, on one device.
        chip: which.
        bfloat16: whether products are of bfloat16, and not of float32.
    """
    peak = chip.bfloat16_tflops if bfloat16 else chip.float32_tflops
    bandwidth = chip.gigabytes_per_second * 1e9
    return Roofline(
        cost.flops / (peak * 1e12), cost.memory_bytes / bandwidth, cost.accessed_bytes / bandwidth
    )


def step_cost(analysis: Mapping[str, float], text: str) -> StepCost:
    """Returns the cost of a compiled step.

    Args:
        analysis: the compiler's own, of one device: `flops` and `bytes accessed`.
        text: of the compiled program.
    """
    accessed = float(analysis.get('bytes accessed', math.nan))
    return StepCost(
        float(analysis.get('flops', math.nan)),
        accessed,
        # An operand of which a part is read counts as a whole here, and not there.
        min(memory_bytes(text), accessed),
        len(re.findall(r' while\(', text)),
    )


def memory_bytes(text: str) -> int:
    """Counts the bytes that a compiled program's main computation reads and writes in main memory.

    Each instruction reads its operands and writes its results once; what is in another memory
    space costs nothing. Bytes are those of the values, without what layouts pad. Bodies of loops
    are not counted.

    Raises:
        ValueError: the text has no main computation.
    """
    types: dict[str, str] = {}
    total = 0
    for name, kind, operation, rest in _main(text):
        types[name] = kind
        if operation in _MOVES_NOTHING or operation.endswith('-done'):
            continue
        if operation.endswith('-start'):
            total += _of_transfer(kind)
            continue
        inputs = _OPERAND.findall(rest[: _end(rest)])
        total += _bytes(kind) + sum(_bytes(types.get(one, '')) for one in inputs)
    return total


def _main(text: str) -> Iterator[tuple[str, str, str, str]]:
    """Yields name, type, operation and the rest of each instruction of the main computation."""
    _, found, body = text.partition('\nENTRY ') if '\nENTRY ' in text else text.partition('ENTRY ')
    if not found:
        raise ValueError('no main computation (ENTRY) in the text of the program')
    for line in body.splitlines()[1:]:
        if line.startswith('}'):
            return
        if match := _INSTRUCTION.match(line):
            yield match[1], match[2], match[3], match[4]


def _end(rest: str) -> int:
    """Returns where the operands end: at the parenthesis that closes them."""
    depth = 1
    for place, sign in enumerate(rest):
        depth += (sign == '(') - (sign == ')')
        if not depth:
            return place
    return len(rest)


def _arrays(kind: str) -> list[tuple[int, bool]]:
    """Returns bytes of each array of a type, and whether it lies in main memory."""
    return [
        (_itemsize(found[1]) * math.prod(_sizes(found[2])), not _ELSEWHERE.search(found[3] or ''))
        for found in _ARRAY.finditer(kind)
    ]


def _bytes(kind: str) -> int:
    return sum(size for size, here in _arrays(kind) if here)


def _of_transfer(kind: str) -> int:
    """Bytes of a copy or a slice that is under way; no more are moved than its smaller end has."""
    arrays = [(size, here) for size, here in _arrays(kind)[:2] if size]
    if len(arrays) < 2:
        return _bytes(kind)
    moved = min(size for size, _ in arrays)
    return moved * sum(here for _, here in arrays)


def _sizes(text: str) -> list[int]:
    return [int(part) for part in text.split(',') if part]


def _itemsize(name: str) -> int:
    if name == 'pred' or name.startswith('f8'):
        return 1
    return max(1, int(re.sub(r'\D', '', name)) // 8)
