"""Large members: each spread over several devices, several of them at once on one mesh.

The steps are those of small members. One call is one step, not one chunk, so that there is a
moment between steps in which to keep a checkpoint, and so that a state is never held twice.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from influence_jax.training.ensemble import Trained, check_sizes
from influence_jax.training.large_program import (
    LargeProgram,
    compile_program,
    only_begins_with_base,
)
from influence_jax.training.member import Member, Program, State
from influence_jax.training.mesh import MeshShape
from influence_jax.training.processes import fetch, place
from influence_jax.training.sharding import Rules, path_name
from influence_jax.types import Batch, Masks, Params, PRNGKey

if TYPE_CHECKING:  # orbax is slow to import
    from influence_jax.training.checkpoint import InTraining


def train(
    program: Program,
    *,
    key: PRNGKey,
    masks: Masks,
    members: Sequence[int] | Int[np.ndarray, ' R'],
    examples: Batch,
    targets: Batch,
    shape: MeshShape,
    rules: Rules,
    base: Params | None = None,
    keep_params: bool = False,
    checkpoints: 'InTraining | None' = None,
) -> Iterator[Trained]:
    """Trains large members and yields them as they are done: the counterpart of `training.train`.

    A member's result depends on `key`, its number and its mask alone, to the rounding of sums.
    Where the devices belong to several processes, each calls this with the same arguments and is
    given all measurements.

    Args:
        program: the task and how to train it.
        key: of the ensemble; member m uses `fold_in(key, m)`.
        masks: `[M N]`, the subset of each member.
        members: numbers of those to train, rows of `masks`.
        examples: pytree with a leading axis N.
        targets: pytree with a leading axis T.
        shape: of the mesh.
        rules: where a member's parameters lie, and those of the base.
        base: arrays that all members share, for a `BasedTask`; on the devices all the time, or,
            for a `WarmStart`, while members begin.
        keep_params: yield the trained parameters too, on the devices. They have a row for each of
            `shape.members_at_once`, the first of which are the members'; drop them before the
            next members begin.
        checkpoints: where members are kept while they train, so that those of a run that was
            killed go on from there.

    Raises:
        ValueError: a subset is too small, there are too few devices, the rules cannot place a
            parameter, or the checkpoint is of other members or of another configuration.
    """
    members, masks = np.asarray(members, np.int32), np.asarray(masks)
    if not len(members):
        return
    check_sizes(masks, members, program.smallest_subset)
    run = compile_program(program, shape, rules=rules, base=base)
    if checkpoints:
        checkpoints.open(_identity(program, key, masks, examples, run.state), untrained=members)
    if only_begins_with_base(program):
        base = jax.device_get(base)  # on the devices, a copy of the caller's would stay there
    same_rows = targets is examples
    key, examples = place((key, examples), run.everywhere)
    targets = examples if same_rows else place(targets, run.everywhere)
    stays = None if only_begins_with_base(program) else place(base, _shardings(run.base))
    shared = _Shared(key, examples, base, stays)
    for start in range(0, len(members), shape.members_at_once):
        chunk = members[start : start + shape.members_at_once]
        state = _train_chunk(run, program.steps, shared, chunk, masks, checkpoints, shape)
        measured = fetch(run.measure(state.params, targets, shared.kept_base))
        measured = {name: values[: len(chunk)] for name, values in measured.items()}
        result = Member(measured, state.params if keep_params else None)
        del state  # before the next members' is made
        yield Trained(chunk, result)
        del result
        if checkpoints:  # whoever trains has recorded these by now
            checkpoints.clear()


class _Shared(NamedTuple):
    """What is the same for all members of a run.

    key: of the ensemble, on all devices.
    examples: on all devices.
    base: on the host, where it does not stay on the devices.
    kept_base: what stays of it on the devices.
    """

    key: PRNGKey
    examples: Batch
    base: Params | None
    kept_base: Params | None


def _train_chunk(
    run: LargeProgram,
    steps: int,
    shared: _Shared,
    chunk: np.ndarray,
    masks: np.ndarray,
    checkpoints: 'InTraining | None',
    shape: MeshShape,
) -> State:
    key, examples, base, kept_base = shared
    # A last chunk that is not full is filled up: one shape, so one trace.
    full = np.pad(chunk, (0, shape.members_at_once - len(chunk)), mode='edge')
    members, subsets = place((full, masks[full]), run.by_member)
    schedule = run.schedule(key, members, subsets)
    resumed = checkpoints.resume(chunk, run.state) if checkpoints else None
    if resumed:
        done, state = resumed
    else:
        on_devices = place(base, _shardings(run.base)) if kept_base is None else kept_base
        done, state = 0, run.begin(key, members, on_devices)
        del on_devices
    # On a CPU, steps that are dispatched ahead can wait for each other's collectives for ever.
    one_by_one = run.mesh.devices.flat[0].platform == 'cpu'
    for number in range(done, steps):
        state = run.step(state, np.int32(number), key, members, schedule, examples, kept_base)
        if one_by_one:
            jax.block_until_ready(state)
        if checkpoints and number + 1 < steps:
            checkpoints.keep(chunk, number + 1, state)
    return state


def _shardings(shapes: Params) -> Params:
    return jax.tree.map(lambda leaf: leaf.sharding, shapes)


def _identity(
    program: Program, key: PRNGKey, masks: np.ndarray, examples: Batch, state: State
) -> dict[str, Any]:
    """What a checkpoint must have in common with what goes on from it."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {
        'steps': program.steps,
        'batch_size': program.batch_size,
        'key': np.asarray(jax.random.key_data(key)).tolist(),
        'subsets': hashlib.sha256(np.packbits(masks).tobytes()).hexdigest(),
        'examples': _digest(examples),
        'state': {path_name(path): f'{leaf.dtype}{list(leaf.shape)}' for path, leaf in leaves},
    }


def _digest(tree: Any) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(tree)):
        # Types and shapes too: the same bytes can be other numbers.
        digest.update(f'{path_name(path)} {leaf.dtype}{list(leaf.shape)} '.encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
