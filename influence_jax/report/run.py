"""What a report needs of a run, whoever made it."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.ensemble import examples_by_id, finite_rows
from influence_jax.formatting import count
from influence_jax.store import COMPLETIONS, FULL_DATA_MODEL, Manifest, RunError, Shown, open_run
from influence_jax.types import AnyArray


@runtime_checkable
class ReportedRun(Protocol):
    """What `gather` reads of a run: `store.Run` has it, and so has `ArrayRun`.

    `manifest` and `directory` may be None; a run may also have `shown` (what it keeps of its
    examples) and `target_examples` (`[T]` the example that each target is, -1 where it is none).
    """

    @property
    def masks(self) -> Bool[np.ndarray, 'M N']:
        """Returns the subset of each member."""

    def measurement(self, name: str = 'loss') -> Float[np.ndarray, 'M T']:
        """Returns a measurement; rows of members without one are NaN."""

    @property
    def example_ids(self) -> Sequence[str]:
        """Returns the ids of the N examples."""

    @property
    def target_ids(self) -> Sequence[str]:
        """Returns the ids of the T targets."""

    @property
    def complete(self) -> Int[np.ndarray, ' _']:
        """Returns the members that are trained and measured."""

    @property
    def missing(self) -> Int[np.ndarray, ' _']:
        """Returns the members that have not been trained."""

    @property
    def diverged(self) -> Int[np.ndarray, ' _']:
        """Returns the members that were trained and are left out of every estimate."""

    @property
    def notes(self) -> Mapping[str, Any]:
        """Returns choices kept for whoever continues the run."""


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayRun:
    """A run in memory, of anybody's masks and measurements.

    Attributes:
      masks: `[M N]` bool; row m is the subset on which member m was trained.
      measurements: `[M T]` by name, or the losses alone; members with anything that is not finite
        are left out.
      example_ids: `[N]`, by default their positions.
      target_ids: `[T]`, likewise.
      target_examples: `[T]` the example that each target is, -1 where it is none; as in
        `estimators.summarize` by default.
      shown: what to show of the examples; their ids by default.
    """

    masks: Bool[np.ndarray, 'M N']
    measurements: Any
    example_ids: Sequence[str] = ()
    target_ids: Sequence[str] = ()
    target_examples: Int[np.ndarray, ' T'] | None = None
    shown: Shown | None = None
    manifest: Manifest | None = None
    directory: Path | None = None
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    missing: Int[np.ndarray, ' _'] = dataclasses.field(default_factory=lambda: np.empty(0, int))
    diverged: Int[np.ndarray, ' _'] = dataclasses.field(default_factory=lambda: np.empty(0, int))

    def __post_init__(self) -> None:
        if not isinstance(self.measurements, Mapping):
            object.__setattr__(self, 'measurements', {'loss': np.asarray(self.measurements)})
        targets = next(iter(self.measurements.values())).shape[1]
        for name, size in (('example_ids', self.masks.shape[1]), ('target_ids', targets)):
            object.__setattr__(self, name, getattr(self, name) or tuple(map(str, range(size))))

    def __repr__(self) -> str:
        members, examples = self.masks.shape
        return (
            f'ArrayRun({len(self.complete):,} of {count(members, "member")}, '
            f'{count(examples, "example")}, {count(len(self.target_ids), "target")}: '
            f'{", ".join(self.measurements)})'
        )

    def measurement(self, name: str = 'loss') -> Float[np.ndarray, 'M T']:
        """Returns a measurement.

        Raises:
          ValueError: there is none of that name.
        """
        if name not in self.measurements:
            known = ', '.join(self.measurements)
            raise ValueError(f'no measurement {name!r}; choose one of {known}')
        return self.measurements[name]

    @property
    def complete(self) -> Int[np.ndarray, ' _']:
        """Returns the members all of whose measurements are finite."""
        complete = [finite_rows(values) for values in self.measurements.values()]
        return np.flatnonzero(np.all(complete, axis=0))


def measurement_names(run: ReportedRun) -> tuple[str, ...]:
    """Returns the names of what a run has recorded."""
    return tuple(getattr(run, 'measurements', None) or run.manifest.measurements)  # type: ignore[attr-defined]


def kept_completions(run: ReportedRun) -> tuple[str, ...] | None:
    """Returns what the full-data model of a run wrote after each prompt; None without one."""
    directory = getattr(run, 'directory', None)
    if directory is None or not (directory / FULL_DATA_MODEL).exists():
        return None
    try:
        return open_run(directory / FULL_DATA_MODEL).texts(COMPLETIONS)
    except RunError:  # it is still being trained
        return None


def examples_of_targets(run: ReportedRun) -> Int[np.ndarray, ' T']:
    """Returns the position of the example that each target is: known by the run, or by ids."""
    known: Int[AnyArray, ' T'] | None = getattr(run, 'target_examples', None)
    if known is not None:
        return np.asarray(known)
    return examples_by_id(run.target_ids, run.example_ids)


def groups_of_targets(
    shown: Shown | None, self_index: Int[np.ndarray, ' T']
) -> Int[np.ndarray, ' T'] | None:
    """Returns the group of each target's example, a target that is none in one of its own.

    Args:
      shown: what is known of the examples.
      self_index: `[T]` the example that each target is, -1 where it is none.

    Returns:
      None where no groups are known.
    """
    if shown is None or shown.groups is None:
        return None
    return np.where(self_index >= 0, shown.groups[self_index], -1 - np.arange(len(self_index)))
