"""Trains many members, chunk after chunk, through the same compiled functions."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Int

from influence_jax.training import member as one
from influence_jax.training.compiled import compile_program, only_begins_with_base, shardings
from influence_jax.training.executor import Executor
from influence_jax.training.member import Member, Program, State
from influence_jax.training.multihost import fetch, place
from influence_jax.trees import described, named
from influence_jax.types import Batch, Masks, Params, PRNGKey

if TYPE_CHECKING:  # orbax is slow to import
    from influence_jax.training.checkpoint import Checkpointer


class Trained(NamedTuple):
    """Members that have just been trained.

    members: `[C]` their numbers.
    result: their measurements `[C T]` in host memory and, if kept, parameters with a leading axis
        C. Those of stepwise executors stay on the devices, with a row for each member of a full
        chunk, the first C of which are meant; drop them before the next members begin.
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
    executor: Executor,
    base: Params | None = None,
    keep_params: bool = False,
    checkpointer: 'Checkpointer | None' = None,
) -> Iterator[Trained]:
    """Trains members and yields them as they are done.

    A member's result depends on `key`, its number and its mask alone, not on which members are
    trained beside it, before it, or on how many devices. Where the devices belong to several
    processes, each calls this with the same arguments and is given all measurements.

    Args:
        program: the task and how to train it.
        key: of the ensemble; member m uses `fold_in(key, m)`.
        masks: `[M N]`, the subset of each member.
        members: numbers of those to train, rows of `masks`.
        examples: pytree with a leading axis N.
        targets: pytree with a leading axis T.
        executor: how members share the devices.
        base: arrays that all members share, for a `BasedTask`; on the devices all the time, or,
            for a `WarmStart`, while members begin.
        keep_params: yield the trained parameters too.
        checkpointer: keeps members while they train, so that those of a run that was killed go on
            from there. Without one, small members of the next chunk are under way while one is
            handled.

    Raises:
        ValueError: a member's subset is smaller than `program.smallest_subset`, there are too few
            devices, the rules cannot place a parameter, or the checkpoint is of another
            configuration or of another number of members at once.
    """
    members, masks = np.asarray(members, np.int32), np.asarray(masks)
    if not len(members):
        return
    _check_sizes(masks, members, program.smallest_subset)
    # With checkpoints as few at once whatever is missing, so that those in training can go on.
    fit = executor.shape.members_at_once if checkpointer else len(members)
    executor = executor.fitted_to(fit)
    compiled = compile_program(program, executor, base=base)
    in_training = members[:0]
    if checkpointer:
        identity = _identity(program, executor, key, examples, compiled.state)
        in_training = checkpointer.open(identity, masks=masks, untrained=members)
    same_rows = targets is examples
    key, examples = place((key, examples), compiled.everywhere)
    targets = examples if same_rows else place(targets, compiled.everywhere)
    if only_begins_with_base(program):  # on the devices, a copy of the caller's would stay there
        base, kept_base = jax.device_get(base), None
    else:
        base = kept_base = place(base, shardings(compiled.base))
    # Steps of a call: to the next checkpoint, or all of them.
    stride = 1 if executor.stepwise else checkpointer.every if checkpointer else program.steps
    overlaps = checkpointer is None and not executor.stepwise
    under_way: tuple[np.ndarray, Member] | None = None
    for chunk in _chunks(members, in_training, executor.chunk):
        # A last chunk that is not full is filled up: one shape, so one trace.
        full = np.pad(chunk, (0, executor.chunk - len(chunk)), mode='edge')
        numbers, subsets = place((full, masks[full]), compiled.by_member)
        schedule = compiled.schedule(key, numbers, subsets)
        resumed = checkpointer.resume(compiled.state) if checkpointer else None
        done, state = resumed or (
            0,
            compiled.begin(key, numbers, place(base, shardings(compiled.base))),
        )
        del resumed
        while done < program.steps:
            first, done = done, min(program.steps, done + stride - done % stride)
            state = compiled.advance(
                state,
                *(np.int32(first), np.int32(done)),
                *(key, numbers, schedule, examples, kept_base),
            )
            # On a CPU, steps dispatched ahead can wait for each other's collectives for ever.
            if compiled.has_collectives and compiled.platform == 'cpu':
                jax.block_until_ready(state)
            if checkpointer and done < program.steps:
                checkpointer.save(chunk, done, state)
        measured = compiled.measure(state.variables, targets, kept_base)
        ready: tuple[np.ndarray, Member] | None
        ready = chunk, Member(measured, state.variables if keep_params else None)
        del state  # before the next members' is made
        if overlaps:  # these members are trained while those before them are handled
            ready, under_way = under_way, ready
        if ready is not None:
            yield _fetched(*ready, executor)
        del ready
        if checkpointer:  # whoever trains has recorded these by now
            checkpointer.clear()
    if under_way is not None:
        yield _fetched(*under_way, executor)


def largest_batch(
    program: Program, masks: Masks, *, key: PRNGKey, sizes: Int[np.ndarray, ' N']
) -> int:
    """Returns the most that the sizes of a batch's examples add up to, over all members' steps.

    Batches are drawn from the key, so this is exact. Tasks whose examples differ in size, such
    as texts, need not compute more than this.

    Args:
        program: how members are trained.
        masks: `[M N]`; row m is the subset of member m.
        key: of the ensemble, as for `train`.
        sizes: of each example.
    """

    @jax.jit
    def largest(key: PRNGKey, masks: Bool[Array, 'M N'], sizes: Int[Array, ' N']) -> Array:
        def of_member(row: tuple[Array, Array]) -> Array:
            member, mask = row
            batches = one.schedule(program, mask, key=jax.random.fold_in(key, member))
            return sizes[batches].sum(axis=1).max()

        return lax.map(of_member, (jnp.arange(len(masks)), masks)).max()

    return int(largest(key, jnp.asarray(masks), jnp.asarray(sizes)))


def _fetched(chunk: Int[np.ndarray, ' R'], result: Member, executor: Executor) -> Trained:
    measured = {name: rows[: len(chunk)] for name, rows in fetch(result.measurements).items()}
    params = result.params
    if params is not None and not executor.stepwise:
        params = jax.tree.map(lambda leaf: leaf[: len(chunk)], fetch(params))
    return Trained(chunk, Member(measured, params))


def _check_sizes(masks: np.ndarray, members: np.ndarray, smallest: int) -> None:
    # A smaller subset would run out of shuffled epochs, and repeat the last without a word.
    sizes = masks[members].sum(axis=1)
    if sizes.min() < smallest:
        member = members[sizes.argmin()]
        raise ValueError(
            f'the subset of member {member} holds {sizes.min()} examples, fewer than '
            f'smallest_subset={smallest}; lower that to the smallest size'
        )


def _chunks(
    members: Int[np.ndarray, ' R'], in_training: Int[np.ndarray, ' S'], size: int
) -> Iterator[Int[np.ndarray, ' C']]:
    """The members of each chunk; those that are in training first, by themselves."""
    if len(in_training):
        yield in_training
    others = members[~np.isin(members, in_training)]
    for start in range(0, len(others), size):
        yield others[start : start + size]


def _identity(
    program: Program, executor: Executor, key: PRNGKey, examples: Batch, state: State
) -> dict[str, Any]:
    """What a checkpoint must have in common with what goes on from it, whichever members."""
    own = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), state)
    return {
        'steps': program.steps,
        'batch_size': program.batch_size,
        'members_at_once': executor.chunk,
        'key': np.asarray(jax.random.key_data(key)).tolist(),
        'examples': _digest(examples),
        'state': described(own),
    }


def _digest(tree: Any) -> str:
    digest = hashlib.sha256()
    for name, leaf in named(jax.device_get(tree)).items():
        # Types and shapes too: the same bytes can be other numbers.
        digest.update(f'{name} {leaf.dtype}{list(leaf.shape)} '.encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
