"""Columns that are computed once, into a file, and read from it."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax import store
from influence_jax.attribution import Attribution
from influence_jax.estimators import Columns, Method
from influence_jax.resources import Cost
from influence_jax.run import Run
from influence_jax.store import KeptScores, ScoreAxes, ScoreSource

_SHOWN = 12
"""Digits of an identity in the name of a file."""


def scores_identity(method: Attribution, run: Run, members: Sequence[int]) -> str:
    """Returns the SHA-256 of what determines a method's scores besides their axes.

    Args:
        method: with its settings.
        run: whose models it reads.
        members: which of them.
    """
    version = store.versions()['influence_jax']
    owner = f'{run.manifest.identity} {list(members)} {method} {version}'
    return hashlib.sha256(owner.encode()).hexdigest()


def estimate_identity(
    name: str,
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    beside: Sequence[str] = (),
) -> str:
    """Returns the SHA-256 of what determines an estimate: members, estimator, scores beside it."""
    digest = hashlib.sha256(f'{name} {list(beside)} {store.versions()["influence_jax"]}'.encode())
    for array in (masks, losses):
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


def kept_columns(
    columns: Columns, directory: Path, *, axes: ScoreAxes, identity: str, block: int
) -> tuple[Columns, Cost]:
    """Computes columns into NAME-IDENTITY.npy, as far as they are not there, to be read from it.

    Args:
        columns: of scores.
        directory: of the file.
        axes: examples and targets of the scores.
        identity: of all else that determines them.
        block: targets to compute at once; a stop costs at most so many.

    Returns:
        The same columns without standard errors, and what computing them took.

    Raises:
        ValueError: a score is not finite, or as in `store.kept_scores`.
        RunLocked: another process computes them.
    """
    method = columns.method
    # Other targets of the same models are other files.
    identity = hashlib.sha256(f'{identity} {axes}'.encode()).hexdigest()
    source = ScoreSource(identity, method.name, method.title, method.description, columns.unit)
    kept = store.kept_scores(
        directory / f'{method.name}-{identity[:_SHOWN]}.npy',
        lambda some: columns.column(np.arange(some.start, some.stop)).values,
        axes=axes,
        source=source,
        block=block,
    )
    read = dataclasses.replace(columns, read=_reader(kept), members=None, masks=None, losses=None)
    return read, kept.cost


def opened_columns(path: Path, axes: ScoreAxes) -> tuple[Columns, Cost, str]:
    """Opens a file of scores as columns; with what they took, and their identity.

    Raises:
        OSError, ValueError: as `store.open_scores`, which refuses scores of other examples.
    """
    kept = store.open_scores(path, axes)
    source = kept.source
    method = Method(source.name, source.title, source.description)
    columns = Columns(axes.examples, axes.targets, _reader(kept), method, source.unit)
    return columns, kept.cost, source.identity


def _reader(
    kept: KeptScores,
) -> Callable[[Int[np.ndarray, ' t']], Float[np.ndarray, 'N t']]:
    def read(targets: Int[np.ndarray, ' t']) -> Float[np.ndarray, 'N t']:
        return np.asarray(kept.values[:, targets])

    return read
