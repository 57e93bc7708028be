"""Which executor to choose: by the kind of device and the shapes or, where asked to, by timing."""

import dataclasses
import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from influence_jax.training.compiled import abstract_state, compile_program, shardings
from influence_jax.training.executor import Executor, number_of, sequential, vmapped
from influence_jax.training.member import Program, State
from influence_jax.training.multihost import place
from influence_jax.types import Batch, Params

_LARGE = 2**26
"""Bytes of parameters from which on a call holds no more members than are trained at once."""
_LONG = 2**28
"""Steps times examples of a batch times parameters from which on, too: a member takes a second or
more, beside which a call costs nothing, and is on disk as soon as it is done."""
_BUDGET = 2**32
"""Bytes of an accelerator's memory that vmapped members' parameters and gradients may take."""
_WIDEST = 256
_CALL = 24
"""So many members more would train in the time that a step of any width takes (an H100's)."""


@dataclasses.dataclass(frozen=True)
class Automatic:
    """Chooses an executor from the kind of device and the shapes alone.

    Sequential on CPUs; elsewhere vmapped, as wide as members' states and gradients fit into 4 GiB:
    a power of two, at most 256 and no more than there are to train, so that what the last call
    computes for nobody does not outweigh what wider calls gain. The width that a run has on record
    is kept to.

    Attributes:
        devices: how many; all by default.
        width: of `vmap`, where it is to be another.
        autotune: instead, time ever wider `vmap`s over a few steps and take the fastest: the width,
            and with it results by rounding, can then differ from run to run.
    """

    devices: int | None = None
    width: int | None = None
    autotune: bool = False

    def choose(
        self,
        program: Program,
        *,
        members: int,
        examples: Batch,
        targets: Batch,
        base: Params | None = None,
        recorded: int | None = None,
    ) -> Executor:
        """Returns the executor.

        Args:
            program: what is to be trained.
            members: how many; no width that they do not fill is chosen.
            examples: pytree with a leading axis N.
            targets: pytree with a leading axis T.
            base: what members share, for a `BasedTask`.
            recorded: the width of the run that is continued.
        """
        width = self.width or recorded
        if width is None and self.autotune:
            return autotune(
                program,
                members=members,
                examples=examples,
                targets=targets,
                base=base,
                devices=self.devices,
            )
        return _of_width(program, base, self.devices, width, members=members)


def _of_width(
    program: Program,
    base: Params | None,
    devices: int | None,
    width: int | None,
    *,
    members: int = _WIDEST,
) -> Executor:
    nbytes = _bytes_of(abstract_state(program, base))
    if width is None:
        each = -(-members // number_of(devices))
        width = 1 if _platform() == 'cpu' else accelerator_width(program, base, members=each)
    if width > 1:
        return vmapped(width, devices)
    # A few small members in turn hide the cost of a call; more would only delay what is recorded.
    work = program.steps * program.batch_size * nbytes // 4
    return sequential(devices, in_turn=4 if nbytes < _LARGE and work < _LONG else 1)


def accelerator_width(program: Program, base: Params | None = None, *, members: int) -> int:
    """Returns how many members an accelerator trains at a time, where nobody says otherwise.

    Args:
        program: what is to be trained.
        base: what members share, for a `BasedTask`; arrays or their shapes.
        members: that there are for one device.
    """
    nbytes = _bytes_of(abstract_state(program, base))
    fits = max(1, min(_WIDEST, members, _BUDGET // max(1, 2 * nbytes)))
    widths = [2**n for n in range(int(np.log2(fits)) + 1)]
    return min(widths, key=lambda width: -(-members // width) * (width + _CALL))


def autotune(
    program: Program,
    *,
    members: int,
    examples: Batch,
    targets: Batch,
    base: Params | None = None,
    devices: int | None = None,
    widths: Sequence[int] = (1, 4, 16, 64, 256),
    steps: int = 4,
) -> Executor:
    """Times ever wider `vmap`s over a few steps and returns the one that trains fastest.

    Stops at the first width that is not a tenth faster than the one before, or that does not
    fit into the device's memory, or that there are not members enough to fill.
    """
    short = program._replace(steps=steps)
    first_targets = jax.tree.map(lambda leaf: leaf[: program.measure_batch], targets)
    best, best_rate = _of_width(program, base, devices, 1), 0.0
    for width in widths:
        if width > 1 and best.shape.member * width > members:
            break
        executor = _of_width(program, base, devices, width)
        try:
            rate = _members_per_second(short, executor, examples, first_targets, base)
        except jax.errors.JaxRuntimeError as error:
            if width > widths[0] and 'RESOURCE_EXHAUSTED' in str(error):
                break
            raise
        if rate < 1.1 * best_rate:
            break
        best, best_rate = executor, rate
    return best


def _platform() -> str:
    return jax.devices()[0].platform


def _bytes_of(state: State) -> int:
    leaves = jax.tree.leaves((state.params, state.model_state))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _members_per_second(
    program: Program, executor: Executor, examples: Batch, targets: Batch, base: Params | None
) -> float:
    compiled = compile_program(program, executor, base=base)
    key, examples, targets = place((jax.random.key(0), examples, targets), compiled.everywhere)
    base = place(base, shardings(compiled.base))
    kept = None if compiled.kept_base is None else base
    count = jax.tree.leaves(examples)[0].shape[0]
    members, masks = place(
        (jnp.arange(executor.chunk), jnp.ones((executor.chunk, count), bool)), compiled.by_member
    )

    def run() -> None:
        schedule = compiled.schedule(key, members, masks)
        state = compiled.begin(key, members, base)
        state = compiled.advance(
            state, np.int32(0), np.int32(program.steps), key, members, schedule, examples, kept
        )
        jax.block_until_ready(compiled.measure(state.variables, targets, kept))

    run()
    times = []
    for _ in range(2):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return executor.chunk / min(times)
