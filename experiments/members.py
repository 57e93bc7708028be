"""Trains the members that a run still lacks, and records each as soon as it is done."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Float

from experiments.processes import Directory, agreed
from experiments.progress import Progress
from experiments.settings import MachineSettings
from influence_jax import store, training
from influence_jax.analysis.convergence import Check, SequentialStopping
from influence_jax.training import large
from influence_jax.training.ensemble import Trained
from influence_jax.training.member import begin
from influence_jax.training.mesh import MeshShape
from influence_jax.training.processes import is_first
from influence_jax.training.sharding import Rules
from influence_jax.types import Batch, Params, PRNGKey

if TYPE_CHECKING:  # orbax is slow to import
    from influence_jax.training.checkpoint import InTraining

Extra = Callable[[Trained], Mapping[str, Float[np.ndarray, 'C T']]]
"""More measurements of members, from their parameters."""

_PARAMS, _IN_TRAINING = 'params', 'in_training'
_LARGE = 2**26
"""Bytes of parameters from which on a chunk holds no more members than are trained at once."""


@dataclasses.dataclass(frozen=True)
class Spread:
    """How members too large for one device are trained.

    Attributes:
        shape: of the mesh.
        rules: where parameters lie on it.
        checkpoint_steps: steps from one checkpoint to the next; 0 keeps none.
        checkpoint_minutes: least minutes from one to the next.
    """

    shape: MeshShape
    rules: Rules
    checkpoint_steps: int = 0
    checkpoint_minutes: float = 0.0


def train_missing(
    directory: Directory,
    program: training.Program,
    machine: MachineSettings,
    *,
    key: PRNGKey,
    examples: Batch,
    targets: Batch,
    base: Params | None = None,
    growth: SequentialStopping | None = None,
    extra: Extra | None = None,
    spread: Spread | None = None,
) -> None:
    """Trains members in order: all that are missing, or until the growth has them be enough.

    Args:
        directory: the run.
        program: the task and how to train it.
        machine: how to run.
        key: of the ensemble.
        examples: pytree with a leading axis N.
        targets: pytree with a leading axis T.
        base: what all members share, for a `BasedTask`.
        growth: when to stop before all members are there; None where not to.
        extra: measured of every member besides what the task measures.
        spread: over which devices each member is, where one cannot hold it.

    Raises:
        ValueError: all members diverged, parameters are to be kept of members that were
            trained without, or small members would be trained by several processes.
        RunGone: the run was deleted or replaced while members were trained.
    """
    if jax.process_count() > 1 and not spread:
        raise ValueError(
            f'jax runs in {jax.process_count()} processes, one a host, but members that fit on '
            f'one device are trained by one: use the devices of a single host'
        )
    if machine.keep_params:
        _refuse_lost_params(directory)
    seen, enough = _look(directory, growth)
    if len(directory.missing) and not enough:
        with Progress(
            total=len(directory.masks),
            done=len(directory.masks) - len(directory.missing),
            quiet=not is_first(),
        ) as progress:
            checkpoints = _in_training(directory, spread) if spread else None
            train, how = (
                _spread(directory, program, spread, checkpoints)
                if spread
                else _small(directory, program, machine, examples, targets, base)
            )
            progress.say(f'training on {how}')
            if seen:
                progress.aim(seen.more, f'standard error {seen}')
            for trained in train(
                key=key,
                masks=directory.masks,
                members=directory.missing,
                examples=examples,
                targets=targets,
                base=base,
                keep_params=machine.keep_params or extra is not None,
            ):
                directory.require_in_place()
                if machine.keep_params:  # first, so that a member on record has its parameters
                    from influence_jax.training import checkpoint

                    checkpoint.save_members(
                        directory.directory / _PARAMS, trained.members, trained.result.params
                    )
                more = extra(trained) if extra else {}
                directory.write(trained.members, {**trained.result.measurements, **more})
                progress.advance(len(trained.members))
                del trained  # its parameters make room for those of the next
                seen, enough = _look(directory, growth)
                if seen:
                    progress.aim(seen.more, f'standard error {seen}')
                if enough:
                    if checkpoints:  # nobody goes on from that of these members
                        checkpoints.clear()
                    break
    directory.require_in_place()
    check(directory, machine)


def _look(directory: Directory, growth: SequentialStopping | None) -> tuple[Check | None, bool]:
    """What a check finds when one is due, and whether members are enough, in all processes."""
    if growth is None:
        return None, False
    due = isinstance(directory, store.Run) and growth.is_due(len(directory.complete))
    seen = check_precision(directory, growth) if due else None
    return seen, agreed(seen is not None and seen.enough)


def check_precision(directory: Directory, growth: SequentialStopping | None) -> Check | None:
    """How precise the members at hand are, where training may stop early; None where not."""
    if growth is None or not isinstance(directory, store.Run):
        return None
    losses = directory.measurement('loss')
    return growth.check(directory.masks, losses, missing=len(directory.missing))


def check(directory: Directory, machine: MachineSettings) -> None:
    """Refuses (ValueError) a run whose members all diverged, or that lacks asked-for parameters."""
    if not len(directory.complete):
        number = len(directory.masks)
        who = f'all {number} members' if number > 1 else 'the only member'
        raise ValueError(
            f'{who} of {directory.directory} diverged (losses are not finite); '
            f'lower --learning_rate and choose a new --output_dir'
        )
    if machine.keep_params:
        _refuse_lost_params(directory)


def _refuse_lost_params(directory: Directory) -> None:
    from influence_jax.training import checkpoint  # slow to import, seldom needed

    lost = np.setdiff1d(directory.complete, checkpoint.kept_members(directory.directory / _PARAMS))
    if len(lost):
        raise ValueError(
            f'{len(lost)} members of {directory.directory} were trained without keeping their '
            f'parameters; leave out --keep_params or choose a new --output_dir'
        )


def _small(
    directory: Directory,
    program: training.Program,
    machine: MachineSettings,
    examples: Batch,
    targets: Batch,
    base: Params | None,
) -> tuple[Callable[..., Iterator[Trained]], str]:
    execution = machine.execution()
    assert isinstance(directory, store.Run)  # one process trains small members
    vmapped = machine.vmap or _noted_vmapped(directory)
    if vmapped is None:
        vmapped = training.choose(
            program,
            members=len(directory.missing),
            streams=execution.streams,
            examples=examples,
            targets=targets,
            base=base,
        ).vmapped
    directory.note('vmapped', vmapped)  # a continued run goes on in the same way
    # A few small members in turn hide the cost of a call; more would only delay what is recorded.
    in_turn = 4 if vmapped == 1 and _bytes_of_member(program, base) < _LARGE else 1
    execution = dataclasses.replace(execution, vmapped=vmapped, in_turn=in_turn)
    at_once = f'{vmapped} members at a time' if vmapped > 1 else 'one by one'
    return (
        functools.partial(training.train, program, execution=execution),
        f'{execution.streams} x {jax.devices()[0].device_kind}, {at_once} on each',
    )


def _noted_vmapped(run: store.Run) -> int | None:
    """With how many members at a time the run was begun; None where it says nothing."""
    noted = run.notes.get('vmapped')
    if noted is not None and (type(noted) is not int or noted < 1):
        raise ValueError(
            f'{run.directory / "notes.json"}: vmapped is {noted!r:.40}, which is no number of '
            f'members; delete the file'
        )
    return noted


def _bytes_of_member(program: training.Program, base: Params | None) -> int:
    shapes = jax.eval_shape(lambda b: begin(program.on(b), key=jax.random.key(0)).params, base)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def _in_training(directory: Directory, spread: Spread) -> 'InTraining | None':
    if not spread.checkpoint_steps:
        return None
    from influence_jax.training.checkpoint import InTraining

    return InTraining(
        directory.directory / _IN_TRAINING,
        every=spread.checkpoint_steps,
        least_minutes=spread.checkpoint_minutes,
        configuration=directory.manifest.configuration,
    )


def _spread(
    directory: Directory,
    program: training.Program,
    spread: Spread,
    checkpoints: 'InTraining | None',
) -> tuple[Callable[..., Iterator[Trained]], str]:
    shape = spread.shape
    directory.note('mesh', str(shape))
    return (
        functools.partial(
            large.train, program, shape=shape, rules=spread.rules, checkpoints=checkpoints
        ),
        f'a mesh of {shape} x {jax.devices()[0].device_kind}, {shape.members_at_once} at a time',
    )
