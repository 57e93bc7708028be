"""Scores `[N T]` on the disk, written block by block of targets, and continued after a stop.

NAME.npy holds the scores, float32. NAME.json beside it says which examples and targets they are
of, by the digests of their ids and contents, how they were computed, how many targets are there,
the digest of the scores of these, and what computing them took.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from influence_jax.files import check_regular
from influence_jax.json_files import read_json
from influence_jax.resources import Cost, Stopwatch
from influence_jax.store.files import CorruptRun, locked, write_atomically
from influence_jax.store.manifest import Manifest, json_digest
from influence_jax.types import AnyArray

SCORES = 'scores'
"""Name of the directory of scores in that of a run."""

_MOST_BYTES, _MOST_DEPTH = 2**16, 4
_COLUMNS_AT_ONCE = 512


@dataclasses.dataclass(frozen=True)
class ScoreAxes:
    """Which examples are the rows of scores, and which targets the columns.

    Attributes:
        examples: N.
        targets: T.
        example_ids: SHA-256 of the ids of the examples, in order.
        target_ids: SHA-256 of those of the targets.
        contents: SHA-256 of the dataset's contents; '' where it is not known.
    """

    examples: int
    targets: int
    example_ids: str
    target_ids: str
    contents: str

    @classmethod
    def of(cls, manifest: Manifest, targets: Sequence[int] | None = None) -> 'ScoreAxes':
        """Returns the axes of scores of a run's examples for all, or for some, of its targets."""
        ids = manifest.target_ids
        some = ids if targets is None else tuple(ids[target] for target in targets)
        contents = manifest.dataset.fingerprint if manifest.has_digests else ''
        digests = json_digest(manifest.example_ids), json_digest(some)
        return cls(len(manifest.example_ids), len(some), *digests, contents)

    def require(self, found: 'ScoreAxes', path: Path) -> None:
        """Refuses a file of other axes.

        Raises:
            ValueError: naming what differs.
        """
        for what, counts, same in (
            ('examples', (found.examples, self.examples), found.example_ids == self.example_ids),
            ('targets', (found.targets, self.targets), found.target_ids == self.target_ids),
        ):
            if not same:
                raise ValueError(
                    f'{path} has scores of other {what} ({counts[0]:,}, here {counts[1]:,}, or of '
                    f'other ids): give scores of the same run'
                )
        if found.contents and self.contents and found.contents != self.contents:
            raise ValueError(
                f'{path} has scores of examples of the same ids but of other contents (SHA-256): '
                f'give scores of the same dataset'
            )


@dataclasses.dataclass(frozen=True)
class ScoreSource:
    """How scores were computed.

    Attributes:
        identity: of all that determines them besides their axes.
        name: of the method.
        title: of the method, for headings.
        description: what a score is, as the end of a sentence.
        unit: of the scores; empty where only their order means anything.
    """

    identity: str
    name: str
    title: str
    description: str
    unit: str


@dataclasses.dataclass(frozen=True, eq=False)
class KeptScores:
    """Scores of a file.

    Attributes:
        values: `[N T]`, read from the disk where they are used.
        source: how they were computed.
        cost: what that took, all stops included.
    """

    values: Float[np.ndarray, 'N T']
    source: ScoreSource
    cost: Cost


def kept_scores(
    path: Path,
    compute: Callable[[slice], Float[AnyArray, 'N t']],
    *,
    axes: ScoreAxes,
    source: ScoreSource,
    block: int = 512,
) -> KeptScores:
    """Computes what is missing of a file of scores, and returns all of it, read from the disk.

    A block counts once it is written, so that after a kill the next call continues, in blocks of
    whatever size. NAME.lock is beside the file meanwhile: two processes that compute the same
    scores would empty the file under one another.

    Args:
        path: of the `.npy` file; its directory is made.
        compute: from a block of targets to their columns, all finite.
        axes: examples and targets.
        source: how the scores are computed.
        block: how many targets at once.

    Raises:
        ValueError: the file has other scores, or a score is not finite.
        CorruptRun: it is damaged.
        RunLocked: another process computes it.
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix('.lock'), what=path):
        return _kept(path, compute, axes, source, block)


def _kept(
    path: Path,
    compute: Callable[[slice], Float[AnyArray, 'N t']],
    axes: ScoreAxes,
    source: ScoreSource,
    block: int,
) -> KeptScores:
    shape = axes.examples, axes.targets
    if _beside(path).exists():
        found, done, digest, cost = _read_beside(path, axes)
        if found.identity != source.identity:
            raise ValueError(
                f'{path} has scores of other models or settings: remove it and '
                f'{_beside(path).name}, or use another directory'
            )
        values = _opened(path, shape)
        hasher = _checked(path, values, done, digest)
        if digest is None:
            _write_beside(path, axes, source, done, hasher.hexdigest(), cost)
    else:
        values, done, cost, hasher = None, 0, Cost(0.0, None), hashlib.sha256()
    for start in range(done, axes.targets, block):
        some = slice(start, min(start + block, axes.targets))
        with Stopwatch() as watch:
            scores = np.asarray(compute(some), np.float32)
        if not np.isfinite(scores).all():
            raise ValueError(
                f'{source.name} has {(~np.isfinite(scores)).sum()} scores that are not finite, of '
                f'targets {start} .. {some.stop - 1}: leave these targets, or its model, out'
            )
        if values is None:
            values = np.lib.format.open_memmap(path, 'w+', np.float32, shape, fortran_order=True)
        values[:, some] = scores
        values.flush()
        cost = cost.plus(watch.cost)
        hasher.update(np.ascontiguousarray(scores.T).data)
        _write_beside(path, axes, source, some.stop, hasher.hexdigest(), cost)
    return KeptScores(_opened(path, shape, 'r'), source, cost)


def open_scores(path: Path, axes: ScoreAxes) -> KeptScores:
    """Opens a file of scores that was finished.

    Raises:
        FileNotFoundError: the file, or the one beside it, is not there.
        ValueError: its rows are not these examples, its columns not these targets, or scores of
            some targets are missing.
        CorruptRun: it is damaged.
    """
    for one in (path, _beside(path)):
        if not one.exists():
            raise FileNotFoundError(
                f'{one}: no such file; scores are two files, NAME.npy and NAME.json, as '
                f'experiments.judge keeps them'
            )
    source, done, digest, cost = _read_beside(path, axes)
    if done < axes.targets:
        raise ValueError(
            f'{path} has the scores of {done} of {axes.targets} targets: repeat the command that '
            f'computes them'
        )
    values = _opened(path, (axes.examples, axes.targets), 'r')
    _checked(path, values, done, digest)
    return KeptScores(values, source, cost)


def _beside(path: Path) -> Path:
    return path.with_suffix('.json')


def _checked(path: Path, values: np.memmap, done: int, digest: str | None) -> 'hashlib._Hash':
    """Returns the hash of the columns that are done; refuses others than were written.

    Files of earlier versions have no digest.
    """
    hasher = hashlib.sha256()
    for start in range(0, done, _COLUMNS_AT_ONCE):
        columns = values[:, start : min(start + _COLUMNS_AT_ONCE, done)]
        hasher.update(np.ascontiguousarray(columns.T).data)
    if digest is not None and hasher.hexdigest() != digest:
        raise CorruptRun(
            f'{path} is damaged: its scores are not those that were written (SHA-256); remove it '
            f'and {_beside(path).name}',
            file=path,
        )
    return hasher


def _write_beside(
    path: Path, axes: ScoreAxes, source: ScoreSource, done: int, digest: str, cost: Cost
) -> None:
    fields = {
        'axes': dataclasses.asdict(axes),
        'source': dataclasses.asdict(source),
        'done': done,
        'sha256': digest,
        'cost': cost._asdict(),
    }
    write_atomically(_beside(path), json.dumps(fields))


def _read_beside(path: Path, axes: ScoreAxes) -> tuple[ScoreSource, int, str | None, Cost]:
    """Reads how scores were computed, of how many targets, their digest, and what it took."""
    beside = _beside(path)
    fields = read_json(beside, most_bytes=_MOST_BYTES, most_depth=_MOST_DEPTH)
    try:
        found = ScoreAxes(**_typed(ScoreAxes, fields['axes']))
        source = ScoreSource(**_typed(ScoreSource, fields['source']))
        cost, done, digest = Cost(**fields['cost']), fields['done'], fields.get('sha256')
        if not isinstance(done, int) or not 0 <= done <= found.targets:
            raise ValueError(f'it counts {done!r:.40} of {found.targets} targets')
        numbers = isinstance(cost.seconds, int | float), isinstance(cost.peak_bytes, int | None)
        if not all(numbers) or not isinstance(digest, str | None):
            raise ValueError('its cost is no number, or its digest no text')
    except (TypeError, KeyError, ValueError) as error:
        raise CorruptRun(f'{beside} is damaged: {error}; remove it', file=beside) from error
    axes.require(found, path)
    return source, done, digest, cost


def _typed(kind: type, fields: Any) -> dict[str, Any]:
    """Returns the fields of a dataclass of integers and texts.

    Raises:
        ValueError: a field is missing, unknown or of another type.
    """
    expected = {field.name: field.type for field in dataclasses.fields(kind)}
    if (
        not isinstance(fields, dict)
        or {name: type(value) for name, value in fields.items()} != expected
    ):
        raise ValueError(f'it needs {", ".join(expected)}')
    return fields


def _opened(path: Path, shape: tuple[int, int], mode: str = 'r+') -> np.memmap:
    try:
        check_regular(path)
        values = np.lib.format.open_memmap(path, mode)
    except (OSError, ValueError) as error:
        raise CorruptRun(
            f'{path} is damaged: {error}; remove it and {_beside(path).name}', file=path
        ) from error
    if values.shape != shape or values.dtype != np.float32:
        raise CorruptRun(
            f'{path} holds {values.dtype} {list(values.shape)}; remove it and {_beside(path).name}',
            file=path,
        )
    return values
