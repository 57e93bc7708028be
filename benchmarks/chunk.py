"""One chunk of members through the engine's compiled functions, compiled once and called again."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.training import Executor, Program
from influence_jax.training.compiled import compile_program
from influence_jax.training.multihost import place
from influence_jax.types import AnyArray, Batch, Params, PRNGKey


class Chunk:
    """What `training.train` does of a chunk, with all data on the devices.

    Attributes:
        size: C, how many members train in one call.
    """

    def __init__(
        self,
        program: Program,
        executor: Executor,
        *,
        examples: Batch,
        targets: Batch,
        base: Params | None = None,
        key: PRNGKey | None = None,
    ) -> None:
        """Compiles nothing yet; arguments as of `training.train`."""
        self.size, self._steps = executor.chunk, program.steps
        self._compiled = compiled = compile_program(program, executor, base=base)
        self._key, self._examples, self._targets = place(
            (jax.random.key(0) if key is None else key, examples, targets), compiled.everywhere
        )
        self._base = place(base, jax.tree.map(lambda leaf: leaf.sharding, compiled.base))
        self._kept = None if compiled.kept_base is None else self._base

    def train(
        self, members: Sequence[int] | Int[np.ndarray, ' C'], masks: Bool[np.ndarray, 'C N']
    ) -> Mapping[str, Float[AnyArray, 'C T']]:
        """Trains C members and returns their measurements, which may still be on their way."""
        state = self._compiled.advance(*self._arguments(members, masks))
        return self._compiled.measure(state.variables, self._targets, self._kept)

    def stepping(self, masks: Bool[np.ndarray, 'C N']) -> Callable[[int], None]:
        """Returns a function that takes so many more steps of C stepwise members, and waits.

        The first batch of each member comes again and again.
        """
        state, first, stop, *rest = self._arguments(np.arange(self.size), masks)
        kept = [state]
        del state

        def step(count: int) -> None:
            for _ in range(count):
                kept[0] = self._compiled.advance(kept[0], first, stop, *rest)
            jax.block_until_ready(kept[0])

        return step

    def planned_bytes(
        self, members: Sequence[int] | Int[np.ndarray, ' C'], masks: Bool[np.ndarray, 'C N']
    ) -> int:
        """Returns what XLA plans for all steps: arguments, results and all between."""
        lowered = self._compiled.advance.lower(*self._arguments(members, masks))
        plan = lowered.compile().memory_analysis()
        assert plan is not None, 'XLA plans no memory on this kind of device'
        # States are trained in place, and are arguments and results at once.
        return (
            plan.argument_size_in_bytes
            + plan.output_size_in_bytes
            + plan.temp_size_in_bytes
            - plan.alias_size_in_bytes
        )

    def _arguments(self, members: Any, masks: Any) -> tuple:
        compiled, key = self._compiled, self._key
        own, subsets = place((np.asarray(members, np.int32), masks), compiled.by_member)
        schedule = compiled.schedule(key, own, subsets)
        state = compiled.begin(key, own, self._base)
        first, stop = np.int32(0), np.int32(self._steps)
        return state, first, stop, key, own, schedule, self._examples, self._kept
