"""Many members: chunk after chunk through one compiled program."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from influence_jax.training.execution import Execution, compile_chunk
from influence_jax.training.member import Member, Program
from influence_jax.types import Batch, Masks, Params, PRNGKey


class Trained(NamedTuple):
    """Members that have just been trained, in host memory.

    members: `[C]` their numbers.
    result: their measurements `[C T]` and, if kept, parameters with a leading axis C.
    """

    members: Int[np.ndarray, ' C']
    result: Member


def train(
    program: Program,
    *,
    key: PRNGKey,
    masks: Masks,
    members: Sequence[int] | Int[np.ndarray, ' R'],
    examples: Batch,
    targets: Batch,
    execution: Execution,
    base: Params | None = None,
    keep_params: bool = False,
) -> Iterator[Trained]:
    """Trains members and yields them as they are done, the next chunk being under way already.

    A member's result depends on `key`, its number and its mask alone, not on which members are
    trained beside it, before it, or on how many devices.

    Args:
        program: the task and how to train it.
        key: of the ensemble; member m uses `fold_in(key, m)`.
        masks: `[M N]`, the subset of each member.
        members: numbers of those to train, rows of `masks`.
        examples: pytree with a leading axis N.
        targets: pytree with a leading axis T.
        execution: how members share the devices.
        base: arrays that all members share, for a `BasedTask`.
        keep_params: yield the trained parameters too.

    Raises:
        ValueError: a member's subset is smaller than `program.smallest_subset`, or there are
            fewer devices than streams.
    """
    members, masks = np.asarray(members, np.int32), np.asarray(masks)
    if not len(members):
        return
    check_sizes(masks, members, program.smallest_subset)
    execution = execution.fitted_to(len(members))
    run_chunk = compile_chunk(program, execution, keep_params=keep_params)
    same_rows = targets is examples
    examples = execution.replicate(examples)
    targets = examples if same_rows else execution.replicate(targets)
    base = execution.replicate(base)
    under_way: tuple[np.ndarray, Member] | None = None
    for start in range(0, len(members), execution.chunk):
        chunk = members[start : start + execution.chunk]
        # A last chunk that is not full is filled up: one shape, so one trace.
        full = np.pad(chunk, (0, execution.chunk - len(chunk)), mode='edge')
        dispatched = run_chunk(
            key, jnp.asarray(full), jnp.asarray(masks[full]), examples, targets, base
        )
        if under_way is not None:
            yield _fetched(*under_way)
        under_way = chunk, dispatched
    assert under_way is not None
    yield _fetched(*under_way)


def check_sizes(masks: np.ndarray, members: np.ndarray, smallest: int) -> None:
    """Refuses (ValueError) subsets that are smaller than what the program was made for."""
    # A smaller subset would run out of shuffled epochs, and repeat the last without a word.
    sizes = masks[members].sum(axis=1)
    if sizes.min() < smallest:
        member = members[sizes.argmin()]
        raise ValueError(
            f'the subset of member {member} holds {sizes.min()} examples, fewer than '
            f'smallest_subset={smallest}; lower that to the smallest size'
        )


def _fetched(chunk: np.ndarray, result: Member) -> Trained:
    host = jax.device_get(result)
    return Trained(chunk, jax.tree.map(lambda leaf: leaf[: len(chunk)], host))
