"""A run as its users know it: what was measured, and what follows from it."""

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from influence_jax import store
from influence_jax.data.dataset import Dataset
from influence_jax.estimators import (
    Estimator,
    EstimatorLike,
    Summary,
    adjusted,
    as_estimator,
    difference_in_means,
    summarize,
)
from influence_jax.estimators.ensemble import complete_members, examples_by_id
from influence_jax.estimators.uncertainty import largest_of_noise
from influence_jax.formatting import count, measured
from influence_jax.types import Influence, Params

if TYPE_CHECKING:
    import xarray


class Column(NamedTuple):
    """The influence distribution of one target.

    target_id: its id.
    values: `[N]` influence of every example on it, in the unit of the measurement; positive where
        including the example lowers the measurement.
    standard_errors: `[N]` of each value; NaN where the estimator has none.
    self_index: position of the example that the target is; None where it is none.
    example_ids: `[N]`.
    z_threshold: how many standard errors above zero noise alone reaches once in such a column.
        Of what is beyond, `Summary.stands_out` knows what stands out of the whole matrix.
    """

    target_id: str
    values: Float[np.ndarray, ' N']
    standard_errors: Float[np.ndarray, ' N']
    self_index: int | None
    example_ids: tuple[str, ...]
    z_threshold: float = math.nan

    def __repr__(self) -> str:
        own = ''
        if self.self_index is not None:
            i = self.self_index
            own = f', itself {measured(self.values[i], self.standard_errors[i])}'
        return f'Column({self.target_id!r}: influence of {count(len(self.values), "example")}{own})'

    def _repr_html_(self) -> str:
        """What a notebook shows: the strongest influences, with errors."""
        from influence_jax import notebook

        title = f'{count(len(self.values), "example")} on {self.target_id}, strongest first'
        return notebook.strongest(
            title,
            self.example_ids,
            self.values,
            self.standard_errors,
            self.self_index,
            z_threshold=self.z_threshold,
        )

    def strongest(self, count: int = 10) -> list[tuple[str, float, float]]:
        """Returns (example id, influence, standard error) of the largest influences."""
        order = np.argsort(-self.values, kind='stable')[:count]
        return [
            (self.example_ids[i], float(self.values[i]), float(self.standard_errors[i]))
            for i in order
        ]


class Status(NamedTuple):
    """How far a run is.

    members: M, how many it is to have.
    complete: how many were measured.
    diverged: how many have a loss that is not finite, and are left out of estimates.
    missing: how many are still to be trained.
    measurements: what is recorded of each.
    examples: N.
    targets: T.
    keeps_params: whether parameters of members are there.
    """

    members: int
    complete: int
    diverged: int
    missing: int
    measurements: tuple[str, ...]
    examples: int
    targets: int
    keeps_params: bool


class Run(store.Run):
    """A run, opened for reading: see `influence_jax.open_run` and `train_ensemble`.

    What it says is what was recorded when it was opened; open it again to see more.
    """

    _task: Any = None
    _dataset: Dataset | None = None

    def __getitem__(self, measurement: str) -> Float[np.ndarray, 'M T']:
        """Returns `measurement(name)`."""
        return self.measurement(measurement)

    def _repr_html_(self) -> str:
        """What a notebook shows: how far the run is, and which targets are most memorized."""
        from influence_jax import notebook

        status, measurement = self.status(), self.measurements[0]
        line = notebook.status_line(
            members=status.members,
            complete=status.complete,
            diverged=status.diverged,
            examples=status.examples,
            targets=status.targets,
        )
        names = notebook.escaped(', '.join(status.measurements))
        text = f'<b>{notebook.escaped(str(self.directory))}</b><br>{line}<br>measured: {names}'
        if not status.complete:
            return text
        return text + notebook.memorized(
            self.masks[self.complete],
            self.measurement(measurement)[self.complete],
            self.target_examples,
            self.target_ids,
            unit=self.unit(measurement),
            estimator=self.estimator(),
        )

    @functools.cached_property
    def target_examples(self) -> Int[np.ndarray, ' T']:
        """Position of the example that each target is, by its id; -1 where it is none."""
        return examples_by_id(self.target_ids, self.example_ids)

    def estimator(self, estimator: EstimatorLike | None = None) -> Estimator:
        """Returns the estimator that is asked for.

        By default the adjusted difference of means or, for too few members, the plain one.
        """
        if estimator is not None:
            return as_estimator(estimator)
        # Members that share a mask count once.
        masks = np.unique(np.packbits(self.masks[self.complete], axis=1), axis=0)
        enough = len(masks) >= 2 * adjusted.least_members
        return adjusted if enough else difference_in_means

    def unit(self, measurement: str = 'loss') -> str:
        """Returns the unit of a measurement, and so of influences on it.

        By the task that this process trained, by what the run keeps of it or, in runs of earlier
        versions, by the task's name. A loss of
        which it is not known is in nats; anything else is its own unit.
        """
        from influence_jax import tasks

        manifest = self.manifest
        units = (
            getattr(self._task, 'units', None)
            or manifest.units
            or tasks.units_of(manifest.configuration)
        )
        is_loss = measurement.endswith('loss')
        return units.get(measurement, 'nats' if is_loss else measurement.replace('_', ' '))

    def influence(
        self, measurement: str = 'loss', *, estimator: EstimatorLike | None = None
    ) -> Influence:
        """Estimates the influence of every example on every target: `[N T]`.

        Args:
            measurement: lower is taken for better: an entry is positive where including the
                example lowers it. In its unit, which for losses is nats.
            estimator: see `estimator`; or any function of (masks, losses).

        Raises:
            ValueError: there is no such measurement, or there are too few members.
        """
        return self.estimator(estimator)(
            self.masks, self.measurement(measurement), target_examples=self.target_examples
        )

    def column(
        self,
        target: int | str,
        measurement: str = 'loss',
        *,
        estimator: EstimatorLike | None = None,
    ) -> Column:
        """Estimates one target's whole influence distribution, with errors.

        Args:
            target: its id, or its position.
            measurement: as for `influence`.
            estimator: as for `influence`.

        Raises:
            ValueError: there is no such target.
        """
        index = self.position_of_target(target)
        example = int(self.target_examples[index])
        losses = self.measurement(measurement)
        values, errors = self.estimator(estimator).of_targets(
            self.masks,
            losses,
            np.array([index]),
            target_examples=self.target_examples,
        )
        return Column(
            self.target_ids[index],
            np.asarray(values)[:, 0],
            np.asarray(errors)[:, 0],
            example if example >= 0 else None,
            self.example_ids,
            largest_of_noise(
                members=len(complete_members(self.masks, losses).masks),
                examples=len(self.example_ids),
                targets=1,
            ),
        )

    def summary(
        self,
        measurement: str = 'loss',
        *,
        estimator: EstimatorLike | None = None,
        top_k: int = 16,
    ) -> Summary:
        """Summarizes every target's distribution, never holding `[N T]`; see `summarize`."""
        return summarize(
            self.masks,
            self.measurement(measurement),
            estimator=self.estimator(estimator),
            top_k=top_k,
            target_examples=self.target_examples,
        )

    def params(self, member: int) -> Params:
        """Reads a member's trained parameters (`types.Variables` with state), on the host.

        In the structure of the task where that is known, see `task`; otherwise nested dicts.

        Raises:
            FileNotFoundError: they were not kept: train with `keep_params=True`.
            ValueError: there is no such member, or its files are damaged.
        """
        from influence_jax.training import checkpoint  # orbax is slow to import

        if not 0 <= member < len(self.masks):
            raise ValueError(f'{member=} must be in 0 .. {len(self.masks) - 1}')
        like = None
        if self._task is not None and self._dataset is not None:
            from influence_jax import tasks
            from influence_jax.training.member import abstract_variables

            problem = tasks.bind(self._task, self._dataset)
            like = abstract_variables(problem.task, problem.base)
        directory = self.directory / store.PARAMS
        if not len(checkpoint.kept_members(directory)):
            raise FileNotFoundError(
                f'{self.directory} kept no parameters: train it anew with keep_params=True '
                f'(--keep_params) in another directory'
            )
        return checkpoint.load_member(directory, member, like)

    def task(self, *, base: Params | str | Path | None = None) -> Any:
        """Returns the task that was trained.

        Of a run that this process trained the very object; of an opened one a built-in task made
        again from its description.

        Args:
            base: what members of a `CausalLM` started from, where they did not begin afresh: the
                parameters, or the folder or hub name of their checkpoint; runs keep its checksum.

        Raises:
            ValueError: the task was made by a function of the user's, which no file can hold; or
                the base is absent, or not that of the run.
            store.CorruptRun: its tokenizer is missing or damaged.
        """
        if self._task is not None:
            return self._task
        if self.manifest.task is None:
            raise ValueError(
                f'{self.directory} was trained with a task of its own code: build it again by that '
                f'code, and give it to run.remember(task, dataset)'
            )
        from influence_jax import tasks

        return tasks.recreate(self.manifest.task, read_text=self.text, base=base)

    def remember(self, task: Any, dataset: Dataset | None = None) -> None:
        """Takes the task, and the dataset, that the run was trained with.

        Raises:
            ValueError: the dataset is not the one of the run.
        """
        if dataset is not None and dataset.fingerprint != self.manifest.dataset.fingerprint:
            raise ValueError(
                f'dataset {dataset.name!r} is not the one that {self.directory} was trained on'
            )
        self._task, self._dataset = task, dataset

    def status(self) -> Status:
        """Returns how far the run is."""
        return Status(
            len(self.masks),
            len(self.complete),
            len(self.diverged),
            len(self.missing),
            self.measurements,
            len(self.example_ids),
            len(self.target_ids),
            (self.directory / store.PARAMS).is_dir(),
        )

    def to_xarray(self, *, estimator: EstimatorLike | None = None) -> 'xarray.Dataset':
        """Returns masks, measurements and each target's summary, with their ids as coordinates.

        Needs xarray: `pip install 'influence_jax[tables]'`.
        """
        from influence_jax.interchange import exports  # reports draw, which is slow to import

        enough = len(self.complete) >= difference_in_means.least_members
        return exports.as_xarray(self, self.summary(estimator=estimator) if enough else None)

    def to_parquet(
        self, directory: str | Path, *, estimator: EstimatorLike | None = None
    ) -> tuple[Path, ...]:
        """Writes `targets.parquet` (a line a target) and `pairs.parquet` (the significant entries).

        Needs pyarrow: `pip install 'influence_jax[tables]'`.
        """
        from influence_jax.interchange import exports

        summary = self.summary(estimator=estimator)
        return exports.write_parquet(directory, exports.Entries.of_run(self, summary))

    def position_of_target(self, target: int | str) -> int:
        """Returns the position of the target of this id, or at this position.

        Raises:
            ValueError: there is no such target.
        """
        if isinstance(target, str):
            try:
                return self.target_ids.index(target)
            except ValueError:
                raise ValueError(
                    f'{self.directory} has no target of the id {target!r}: its ids are such as '
                    f'{self.target_ids[0]!r}'
                ) from None
        if not -len(self.target_ids) <= target < len(self.target_ids):
            raise ValueError(f'{target=} must be below the {len(self.target_ids)} targets')
        return target % len(self.target_ids)


def open_run(directory: str | Path) -> Run:
    """Opens a run for reading, also while it is being trained.

    Raises:
        store.NotARun: the directory is absent, or not a run.
        store.RunError: its files are damaged or cannot be read.
    """
    return Run.open(directory)
