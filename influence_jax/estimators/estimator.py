"""What an estimator of influence is: a callable with a name and a least number of members."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from influence_jax.estimators.ensemble import problem
from influence_jax.estimators.scan import Scan
from influence_jax.estimators.tiling import TILE, tile_slices, whole
from influence_jax.types import AnyArray, Influence, Masks, Measurement

_LEAST_MEMBERS = 4

Tiles: TypeAlias = Iterator[tuple[slice, Influence]]
"""Blocks of targets: which, and their Influence `[N t]`."""

EstimatorLike: TypeAlias = Callable[..., Any]
"""An `Estimator`, or a function of masks and losses: see `as_estimator`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Method:
    """Where influences come from, in words.

    Attributes:
      name: for flags and tables; one word.
      title: for headings and sentences.
      description: what an entry is, as the end of a sentence.
    """

    name: str
    title: str
    description: str


class Fit(NamedTuple):
    """Regressions of a block of targets, in the unit of the losses given.

    residual: `[M t]` what of the losses the regressors leave.
    examples: `[t F]` the regressors, own example first where there is one, and what nearly equals
        them; -1 where there are fewer.
    values: `[t F]` their influences.
    errors: `[t F]` the standard errors of these.
    inflation: `[t]` by which errors of the residual's differences of means grow, since the
        regressors took up degrees of freedom.
    effective_members: `[t]` of self-influence, see `standard_errors.Reliability`; NaN without.
    other_cross_fitted: `[t]` see `difference_of_means.strongest_other`.
    """

    residual: Float[AnyArray, 'M t']
    examples: Int[AnyArray, 't F']
    values: Float[AnyArray, 't F']
    errors: Float[AnyArray, 't F']
    inflation: Float[AnyArray, ' t']
    effective_members: Float[AnyArray, ' t']
    other_cross_fitted: Float[AnyArray, ' t']

    def cut(self, width: int) -> 'Fit':
        """The first targets alone, without what the block was filled up with."""
        residual, *others = self
        return Fit(residual[:, :width], *(part[:width] for part in others))


@runtime_checkable
class BlockFit(Protocol):
    """Regressions of block after block of one ensemble's targets, see `Fit`."""

    @property
    def scan(self) -> Scan:
        """The scan of the ensemble's masks."""

    def __call__(
        self,
        losses: Float[np.ndarray, 'M t'],
        self_index: Int[np.ndarray, ' t'],
        columns: slice | Int[np.ndarray, ' _'],
        scale: Float[np.ndarray, ' t'],
    ) -> Fit:
        """Fits losses that are centered and within [-1, 1], of the targets `columns`."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Estimator(Method):
    """Estimates influence from masks and losses; called like a function.

    Attributes:
      least_members: from how many members its standard errors can be relied upon.
      tiles: `tiles(masks, losses, *, target_examples=None, tile=512)` yields the estimate by blocks
        of targets, so that the matrix need never exist. Arguments are checked at the call.
      block_fit: for estimates that are differences of means of what a regression leaves: makes
        of `(masks, losses, self_index)` that regression, so that a summary scans columns without
        holding them. None for all others.
      pooled: whether a column depends on all targets, as where a prior is learnt from them.
    """

    least_members: int
    tiles: Callable[..., Tiles]
    block_fit: Callable[..., BlockFit] | None = None
    pooled: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, '__doc__', self.tiles.__doc__)  # what help() shows

    def __call__(
        self,
        masks: Masks,
        losses: Measurement,
        *,
        target_examples: Int[AnyArray, ' T'] | None = None,
        **options: Any,
    ) -> Influence:
        """Estimates the whole matrix: float32 numpy `[N T]`; see the estimator's own docstring."""
        blocks = self.tiles(masks, losses, target_examples=target_examples, **options)
        return whole(blocks, examples=np.shape(masks)[1], targets=np.shape(losses)[1])

    def of_targets(
        self,
        masks: Masks,
        losses: Measurement,
        targets: Int[np.ndarray, ' t'],
        *,
        target_examples: Int[AnyArray, ' T'],
    ) -> Influence:
        """Estimates the columns `[N t]` of these targets among all `[T]`."""
        if not self.pooled:
            return self(masks, losses[:, targets], target_examples=target_examples[targets])
        values = np.empty((np.shape(masks)[1], len(targets)), np.float32)
        errors = np.empty_like(values)
        for columns, block in self.tiles(masks, losses, target_examples=target_examples):
            at = np.flatnonzero((targets >= columns.start) & (targets < columns.stop))
            place = targets[at] - columns.start
            values[:, at], errors[:, at] = (np.asarray(part)[:, place] for part in block)
        return Influence(values, errors)

    def __repr__(self) -> str:
        return f'<estimator {self.name}: {self.title}>'


def estimator(
    *,
    name: str,
    title: str,
    description: str,
    least_members: int,
    block_fit: Callable[..., BlockFit] | None = None,
    pooled: bool = False,
) -> Callable[[Callable[..., Tiles]], Estimator]:
    """Makes an `Estimator` of a function that yields tiles and has the estimator's docstring."""

    def of_tiles(tiles: Callable[..., Tiles]) -> Estimator:
        return Estimator(name, title, description, least_members, tiles, block_fit, pooled)

    return of_tiles


def as_estimator(function: EstimatorLike) -> Estimator:
    """Wraps a function, so that it is used like the estimators of this package.

    It is called `function(masks, losses, target_examples=...)` with bool `[M N]`, floating `[M t]`
    and int `[t]`, for one block of targets after another, all of complete members (see
    `complete_members`). It returns an Influence of `[N t]`, or values alone: then there are no
    standard errors (NaN), and nothing is called significant. Its `__name__` is the estimator's
    name, its attribute `least_members`, 4 by default, the least number of members.

    Raises:
      TypeError: not callable. While estimating, ValueError: another shape than `[N t]` returned.
    """
    if isinstance(function, Estimator):
        return function
    if not callable(function):
        raise TypeError(
            f'{function!r} is no estimator: give one of estimators.BUILT_IN, or a function of '
            f'(masks, losses, *, target_examples) that returns an Influence or values [N T]'
        )
    name = getattr(function, '__name__', type(function).__name__)

    def tiles(
        masks: Masks,
        losses: Measurement,
        *,
        target_examples: Int[AnyArray, ' T'] | None = None,
        tile: int = TILE,
        **options: Any,
    ) -> Tiles:
        masks, losses, self_index = problem(
            masks, losses, target_examples, tile=tile, both_sides=False
        )

        def blocks() -> Tiles:
            for columns in tile_slices(losses.shape[1], tile):
                found = function(
                    masks, losses[:, columns], target_examples=self_index[columns], **options
                )
                shape = masks.shape[1], columns.stop - columns.start
                yield columns, influence_of(found, shape=shape, source=name)

        return blocks()

    tiles.__doc__ = function.__doc__
    return Estimator(
        name,
        name.replace('_', ' '),
        f'what the function {name} estimates from masks and losses',
        getattr(function, 'least_members', _LEAST_MEMBERS),
        tiles,
    )


def influence_of(found: Influence | AnyArray, *, shape: tuple[int, int], source: str) -> Influence:
    """What a function returned as an Influence of numpy arrays; errors NaN where it gave none.

    Raises:
      ValueError: another shape, naming the source.
    """
    if isinstance(found, tuple):
        values, errors = (np.asarray(part) for part in found)
    else:
        values = np.asarray(found)
        errors = np.full(values.shape, np.nan, np.float32)
    if values.shape != shape or errors.shape != shape:
        raise ValueError(
            f'{source} returned values {list(values.shape)} and standard errors '
            f'{list(errors.shape)}: return [examples targets], here {list(shape)}'
        )
    return Influence(values, errors)
