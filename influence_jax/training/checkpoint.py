"""Trained parameters of members on disk, through orbax."""

from operator import itemgetter
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Int

from influence_jax.types import Params


def save_members(directory: Path, members: Int[np.ndarray, 'C'], params: Params) -> None:
    """Writes each member's parameters to a checkpoint of its own, whole or not at all.

    Args:
        directory: holds one checkpoint a member.
        members: their numbers.
        params: pytree with a leading axis C.
    """
    with ocp.StandardCheckpointer() as checkpointer:
        for row, member in enumerate(members):
            checkpointer.save(
                _path(directory, int(member)),
                jax.tree.map(itemgetter(row), params),
                force=True,
            )


def kept_members(directory: Path) -> Int[np.ndarray, 'R']:
    """Numbers of the members whose parameters are there, ascending."""
    names = [path.name for path in directory.glob('*') if path.name.isdecimal()]
    return np.array(sorted(map(int, names)), int)


def load_member(directory: Path, member: int, like: Params) -> Params:
    """Reads one member's parameters.

    Args:
        directory: as given to `save_members`.
        member: its number.
        like: arrays or `ShapeDtypeStruct`s of the parameters' shapes, e.g. of `eval_shape`.

    Raises:
        FileNotFoundError: the member's parameters were not kept.
    """
    path = _path(directory, member)
    if not path.exists():
        raise FileNotFoundError(f'no parameters of member {member} in {directory}')
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path, like)


def _path(directory: Path, member: int) -> Path:
    return directory.absolute() / f'{member:06}'
