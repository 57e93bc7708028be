"""How members share the machine; which way is chosen changes results by rounding alone.

On a CPU, members in turn and in streams are bitwise the same as alone. `vmap` rounds otherwise,
which many steps of an adaptive optimiser amplify: keep to one width within an ensemble.
"""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Int

from influence_jax.training.member import Member, Program, train_member
from influence_jax.types import Batch, Params, PRNGKey

ChunkProgram = Callable[
    [PRNGKey, Int[Array, ' C'], Bool[Array, 'C N'], Batch, Batch, Params | None], Member
]
"""Trains the C members of a chunk: (key, members, masks, examples, targets, base) -> stacked."""

Outputs = TypeVar('Outputs')

_AXIS = 'member'


@dataclasses.dataclass(frozen=True)
class Execution:
    """The shape of a chunk of members.

    Attributes:
        streams: devices, each of which trains its share of a chunk by itself.
        vmapped: members of a stream that are trained by the same operations, under `vmap`.
        in_turn: how many such groups a stream trains one after another in one call.
    """

    streams: int = 1
    vmapped: int = 1
    in_turn: int = 1

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value < 1:
                raise ValueError(f'{name} must be at least 1, not {value}')

    @property
    def chunk(self) -> int:
        """C, the members of one call."""
        return self.streams * self.vmapped * self.in_turn

    def mesh(self) -> Mesh:
        """The devices of the streams, along one axis.

        Raises:
            ValueError: where there are fewer devices than streams.
        """
        devices = jax.local_devices()
        if self.streams > len(devices):
            raise ValueError(
                f'{self.streams} streams need as many devices, but jax sees {len(devices)}; '
                f'use fewer streams'
            )
        kinds = (AxisType.Auto,)
        return jax.make_mesh(
            (self.streams,), (_AXIS,), axis_types=kinds, devices=devices[: self.streams]
        )

    def over_streams(
        self, stream: Callable[..., Outputs], split: Sequence[bool]
    ) -> Callable[..., Outputs]:
        """Jits what one stream does with its share of a chunk, to be called on whole chunks.

        Args:
            stream: of arrays whose leading axis is the stream's members, and of shared ones;
                returns arrays of the first kind.
            split: for each of its arguments, whether it is of the first kind.

        Raises:
            ValueError: where there are fewer devices than streams.
        """
        mesh = self.mesh()
        own = PartitionSpec(_AXIS)
        return jax.jit(
            jax.shard_map(
                stream,
                mesh=mesh,
                in_specs=tuple(own if is_own else PartitionSpec() for is_own in split),
                out_specs=own,
                check_vma=False,  # nothing crosses streams, so there is nothing to check
            ),
            compiler_options=_compiler_options(mesh.devices.flat[0].platform),
        )

    def replicate(self, rows: Batch) -> Batch:
        """Rows on every stream's device, so that no call has to copy them there."""
        return jax.device_put(rows, NamedSharding(self.mesh(), PartitionSpec()))

    def fitted_to(self, members: int) -> 'Execution':
        """With as many in turn as waste least on a last chunk that is not full."""
        calls = -(-members // self.chunk)
        in_turn = -(-members // (calls * self.streams * self.vmapped))
        return dataclasses.replace(self, in_turn=in_turn)


def compile_chunk(
    program: Program, execution: Execution, *, keep_params: bool = False
) -> ChunkProgram:
    """The jitted program that trains one chunk; traced at its first call.

    Args:
        program: the same for every member.
        execution: how the chunk's members are laid over devices, `vmap` and time.
        keep_params: also return the trained parameters, else None in their place.

    Raises:
        ValueError: where there are fewer devices than streams.
    """

    def stream(
        key: PRNGKey,
        members: Array,
        masks: Array,
        examples: Batch,
        targets: Batch,
        base: Params | None,
    ) -> Member:
        def one(member: Array, mask: Array) -> Member:
            trained = train_member(
                program,
                key=jax.random.fold_in(key, member),
                mask=mask,
                examples=examples,
                targets=targets,
                base=base,
            )
            return trained if keep_params else trained._replace(params=None)

        return _in_groups(one, execution.vmapped, members, masks)

    return execution.over_streams(stream, split=(False, True, True, False, False, False))


def _in_groups(one: Callable, vmapped: int, *rows: Array) -> Member:
    if vmapped == 1:  # a vmap over one member would still group its convolutions
        return lax.map(lambda row: one(*row), rows)
    if vmapped == len(rows[0]):
        return jax.vmap(one)(*rows)
    return lax.map(lambda row: one(*row), rows, batch_size=vmapped)


def _compiler_options(platform: str) -> dict[str, bool]:
    # On a CPU the streams are what uses the cores: threads within operations get in their way,
    # and make sums depend on how many there are.
    return {'xla_cpu_multi_thread_eigen': False} if platform == 'cpu' else {}


def choose(
    program: Program,
    *,
    members: int,
    streams: int,
    examples: Batch,
    targets: Batch,
    base: Params | None = None,
    widths: Sequence[int] = (1, 4, 16, 64, 256),
    steps: int = 4,
) -> Execution:
    """Measures ever wider `vmap`s over a few steps and takes the one that trains fastest.

    Stops at the first width that is not a tenth faster than the one before, or that does not
    fit into the device's memory, or that there are not members enough to fill.
    """
    short = program._replace(steps=steps)
    first_targets = jax.tree.map(lambda leaf: leaf[: program.measure_batch], targets)
    best, best_rate = Execution(streams), 0.0
    for width in widths:
        if width > 1 and streams * width > members:
            break
        execution = Execution(streams, width)
        try:
            rate = _members_per_second(short, execution, examples, first_targets, base)
        except jax.errors.JaxRuntimeError as error:
            if width > widths[0] and 'RESOURCE_EXHAUSTED' in str(error):
                break
            raise
        if rate < 1.1 * best_rate:
            break
        best, best_rate = execution, rate
    return best


def _members_per_second(
    program: Program, execution: Execution, examples: Batch, targets: Batch, base: Params | None
) -> float:
    count = jax.tree.leaves(examples)[0].shape[0]
    examples, targets, base = execution.replicate((examples, targets, base))
    run = functools.partial(
        compile_chunk(program, execution),
        jax.random.key(0),
        jnp.arange(execution.chunk),
        jnp.ones((execution.chunk, count), bool),
        examples,
        targets,
        base,
    )
    jax.block_until_ready(run())
    times = []
    for _ in itertools.repeat(None, 2):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return execution.chunk / min(times)
