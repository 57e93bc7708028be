"""Sources of columns of an influence matrix, and their blocks as a summary needs them."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from influence_jax.estimators.difference_of_means import StrongestOther, without_self
from influence_jax.estimators.ensemble import Problem, problem
from influence_jax.estimators.estimator import (
    BlockFit,
    Estimator,
    EstimatorLike,
    Fit,
    Method,
    Tiles,
    as_estimator,
    influence_of,
)
from influence_jax.estimators.moments import Moments
from influence_jax.estimators.pairs import PValues
from influence_jax.estimators.scan import (
    Entries,
    SingleEntries,
    SummaryRequest,
    SummaryResult,
    Targets,
    read_columns,
    scan_for,
)
from influence_jax.estimators.self_influence import own_entries
from influence_jax.estimators.tiling import (
    padded,
    standardized_block,
    standardized_tiles,
    tile_slices,
)
from influence_jax.estimators.uncertainty import SURE, p_values
from influence_jax.kernels import matrices as kernel
from influence_jax.threads import IN_CACHE, Piece, in_threads, side_by_side
from influence_jax.types import AnyArray, Influence, Masks, Measurement

EntryReader = Callable[[Int[np.ndarray, ' t'], Int[np.ndarray, ' n']], Influence]
"""From targets and examples to the entries `[n t]` where they cross."""


_NARROWEST = 16
"""Targets of a block, where there are few of them for all cores."""
_IN_REACH = 2**22
"""Entries of a block that is held: arrays larger than 16 MiB are cleared by the system each time,
and farther from the cores."""
_LEAST_HELD = 64
"""Targets of such a block, whatever N is."""


@dataclasses.dataclass(frozen=True, eq=False)
class Columns:
    """A matrix `[N T]` of influences, or of scores of the same sign, read column by column.

    What a summary can be made of besides masks and losses: an attribution method's scores, a matrix
    on disk. Positive where including the example lowers the measurement on the target.

    Attributes:
      examples: N.
      targets: T.
      read: from positions `[t]` of targets to their columns: an Influence of `[N t]`, or values
        alone, where there are no standard errors.
      method: where they come from, in words.
      unit: of the values.
      members: M, how many members standard errors are estimated from; None where from none.
      masks: `[M N]`, and
      losses: `[M T]` of the members behind the columns, where there are some: influences are then
        also tested against the randomness of the masks, see `SignificantPairs`.
    """

    examples: int
    targets: int
    read: Callable[[Int[np.ndarray, ' t']], Influence | Float[AnyArray, 'N t']]
    method: Method
    unit: str = 'nats'
    members: int | None = None
    masks: Masks | None = None
    losses: Measurement | None = None

    @classmethod
    def of_matrix(
        cls,
        values: Float[AnyArray, 'N T'],
        standard_error: Float[AnyArray, 'N T'] | None = None,
        *,
        name: str = 'matrix',
        title: str = '',
        description: str = 'the entry of a given matrix',
        unit: str = 'nats',
        members: int | None = None,
    ) -> 'Columns':
        """A matrix that is there, also one mapped from a .npy file, of which blocks are read.

        Args:
          values: of any floating type.
          standard_error: of each; None where there is none.
          name: of the method, one word.
          title: of the method, for headings; by default the name.
          description: what an entry is, as the end of a sentence.
          unit: of the values.
          members: M behind the standard errors; None for normal errors.

        Raises:
          ValueError: not a matrix of real numbers, or errors of another shape.
        """
        if np.ndim(values) != 2 or 0 in np.shape(values) or values.dtype.kind not in 'fiu':
            raise ValueError(
                f'values must be real numbers [examples targets], '
                f'not {values.dtype} {list(np.shape(values))}'
            )
        if standard_error is not None and np.shape(standard_error) != np.shape(values):
            raise ValueError(
                f'standard_error {list(np.shape(standard_error))} must have the shape of values '
                f'{list(np.shape(values))}: give one for each, or none'
            )

        def read(targets: Int[np.ndarray, ' t']) -> Influence | Float[AnyArray, 'N t']:
            # A block in one piece is read as such.
            whole = targets.size and (np.diff(targets) == 1).all()

            def some(matrix: Float[AnyArray, 'N T']) -> Float[AnyArray, 'N t']:
                if whole:
                    return matrix[:, targets[0] : targets[-1] + 1]
                return matrix.take(targets, axis=1)  # by rows; an index would be by columns

            if standard_error is None:
                return some(values)
            return Influence(some(values), some(standard_error))

        examples, targets = np.shape(values)
        method = Method(name, title or name.replace('_', ' '), description)
        return cls(examples, targets, read, method, unit, members)

    @classmethod
    def of_estimate(
        cls,
        estimator: EstimatorLike,
        masks: Masks,
        losses: Measurement,
        *,
        target_examples: Int[AnyArray, ' T'] | None = None,
        unit: str = 'nats',
    ) -> 'Columns':
        """The estimate from masks and losses, of complete members; columns are computed when read.

        Raises:
          ValueError: as in `difference_in_means`.
        """
        of, method = problem(masks, losses, target_examples), as_estimator(estimator)

        def read(targets: Int[np.ndarray, ' t']) -> Influence:
            return method.of_targets(of.masks, of.losses, targets, target_examples=of.self_index)

        (members, examples), targets = of.masks.shape, of.losses.shape[1]
        return cls(examples, targets, read, method, unit, members, of.masks, of.losses)

    def column(self, targets: Int[AnyArray, ' t']) -> Influence:
        """Influence `[N t]` of these targets, float32; standard errors NaN where there are none.

        Raises:
          ValueError: `read` returned another shape.
        """
        targets = np.asarray(targets)
        shape = self.examples, len(targets)
        found = influence_of(self.read(targets), shape=shape, source=self.method.name)
        return Influence(*(np.asarray(part, np.float32) for part in found))

    def tiles(self, *, tile: int) -> Tiles:
        """Yields all columns by blocks of targets."""
        for block in tile_slices(self.targets, tile):
            yield block, self.column(np.arange(block.start, block.stop))


def entry_reader(estimator: Estimator, of: Problem) -> EntryReader:
    """Returns a reader of a few columns, or of some of their entries, as they are asked for.

    What all columns need is prepared once, so that one takes little time after another.

    Args:
      estimator: one with a `block_fit`: of all others a column depends on which others it is
        estimated with, as where one penalty is chosen for all.
      of: the complete members.

    Raises:
      ValueError: it has none, or as the estimator.
    """
    if estimator.block_fit is None:
        raise ValueError(
            f'a column by the estimator {estimator.name} depends on all others: estimate all'
        )
    fit = estimator.block_fit(*of)

    def fitted(targets: Int[np.ndarray, ' t'], examples: Int[np.ndarray, ' n']) -> Influence:
        centered, scale = standardized_block(of.losses[:, targets], width=len(targets))
        of_targets = fit(centered, of.self_index[targets], targets, scale)
        whole = fit.scan.single.moments_of_all(of_targets.residual)
        found = _entries(fit.scan.single, of_targets, whole)(
            np.repeat(np.arange(len(targets)), len(examples)), np.tile(examples, len(targets))
        )
        shape = len(targets), len(examples)
        return Influence(
            *((part.reshape(shape) * scale[:, None]).T.astype(np.float32) for part in found)
        )

    return fitted


def as_columns(
    source: Masks | Columns,
    losses: Measurement | None,
    *,
    estimator: EstimatorLike,
    target_examples: Int[AnyArray, ' T'] | None,
) -> Columns:
    """Columns as they are, or those of the estimate from masks and losses.

    Raises:
      ValueError: masks without losses, columns with them, or as in `Columns.of_estimate`.
    """
    if isinstance(source, Columns):
        if losses is not None:
            raise ValueError('losses are of no use beside Columns: leave them out')
        return source
    if losses is None:
        raise ValueError('losses are missing: give masks and losses, or Columns alone')
    return Columns.of_estimate(estimator, source, losses, target_examples=target_examples)


def blocks(
    source: Columns,
    of: Problem | None,
    self_index: Int[np.ndarray, ' T'],
    *,
    request: SummaryRequest,
    least_z: float,
    tile: int,
    read: Callable[['Block'], Piece],
) -> Iterator[Piece]:
    """Answers the request about every column, and yields what is read of block after block.

    Args:
      source: of the columns.
      of: the complete members behind them; None where there are none.
      self_index: as in `Problem`.
      request: what is asked about each column.
      least_z: entries of larger |z| are among the candidates.
      tile: how many targets at once, at most.
      read: given a block; of several at once, in threads, where they are scanned side by side.
    """
    method, members = source.method, source.members if of is None else len(of.masks)
    if of is None or not isinstance(method, Estimator):
        tiles = source.tiles(tile=tile)
    elif method.block_fit is not None:
        fit = method.block_fit(*of)
        at_once = fit.scan.blocks_at_once
        if at_once > 1:
            tile = min(tile, max(_NARROWEST, -(-source.targets // at_once)))
        scanned = _scanned_block(fit, of, request=request, least_z=least_z, tile=tile)

        def of_columns(columns: slice) -> Piece:
            return read(scanned(columns))

        several = tile_slices(source.targets, tile)
        return side_by_side(of_columns, several, most=at_once)
    else:
        if method.pooled:  # many passes over blocks that are held
            tile = min(tile, max(_LEAST_HELD, _IN_REACH // source.examples // 16 * 16))
        tiles = method.tiles(of.masks, of.losses, target_examples=self_index, tile=tile)
    return map(
        read,
        _matrix_blocks(
            tiles, of, self_index, members=members, request=request, least_z=least_z, tile=tile
        ),
    )


class Block(NamedTuple):
    """A block of targets.

    columns: which.
    scanned: see there; in units of `scale`.
    null_error: `[t]` see `Targets`; in the same units. NaN without standard errors.
    moment_unit: `[t]` by which entries were divided for `scanned.moments`.
    scale: `[t]` what makes of them the unit of the measurement.
    entries: values and standard errors of single entries, in the same units.
    fitted: `[t F]` examples that were regressed on, candidates all; -1 for none.
    p_values: two-sided p-values of single entries, by the randomness of the masks where the
        estimate is a difference of means; given, besides targets and examples, their z-scores.
    effective_members: `[t]` of self-influence, see `standard_errors.Reliability`.
    other_cross_fitted: `[t]` see `difference_of_means.strongest_other`; in the unit of the
        measurement.
    """

    columns: slice
    scanned: SummaryResult
    null_error: Float[AnyArray, ' t']
    moment_unit: Float[AnyArray, ' t']
    scale: Float[np.ndarray, ' t']
    entries: Entries
    fitted: Int[AnyArray, 't F']
    p_values: PValues
    effective_members: Float[AnyArray, ' t']
    other_cross_fitted: Float[AnyArray, ' t']


def _scanned_block(
    fit: BlockFit, of: Problem, *, request: SummaryRequest, least_z: float, tile: int
) -> Callable[[slice], Block]:
    """Returns what scans a block of differences of means; blocks are filled up to one width."""
    masks, losses, self_index = of
    included = masks.sum(axis=0)
    tile = min(tile, losses.shape[1])

    def scanned(columns: slice) -> Block:
        width = columns.stop - columns.start
        centered, scale = standardized_block(losses[:, columns], width=tile)
        of_block = padded(self_index[columns], tile, fill=-1)
        fitted = fit(centered, of_block, columns, scale).cut(width)
        whole = fit.scan.single.moments_of_all(fitted.residual)
        squares = whole.second + whole.count * whole.mean**2
        null_error = fitted.inflation * _null_error(squares, included, len(masks))
        targets = Targets(
            fitted.residual,
            null_error,
            self_index[columns],
            fitted.inflation * _floor(squares, included, len(masks), least_z),
            fitted.examples,
            fitted.values,
        )
        return Block(
            columns,
            fit.scan.columns(targets, request),
            null_error,
            null_error,
            scale[:width],
            _entries(fit.scan.single, fitted, whole),
            fitted.examples,
            _by_randomization(fit.scan.single, fitted),
            fitted.effective_members,
            fitted.other_cross_fitted * scale[:width],
        )

    return scanned


def _matrix_blocks(
    tiles: Tiles,
    of: Problem | None,
    self_index: Int[np.ndarray, ' T'],
    *,
    members: int | None,
    request: SummaryRequest,
    least_z: float,
    tile: int,
) -> Iterator[Block]:
    """Condenses columns that are computed, or read, by blocks.

    Raises:
      ValueError: a value that is not finite.
    """
    evidence = None if of is None else _evidence(of, tile=tile)
    for columns, influence in tiles:
        values, errors = (np.asarray(part).T for part in influence)
        null_error, largest = _unit_of_entries(values, errors)
        if not np.isfinite(largest).all():
            raise ValueError(
                f'{(~np.isfinite(values)).sum()} influences of the targets {columns.start} .. '
                f'{columns.stop - 1} are NaN or infinite: leave these targets out'
            )
        undefined = np.isnan(null_error)
        moment_unit = np.where(undefined, largest, null_error)

        def entries(
            targets: Int[np.ndarray, ' C'],
            examples: Int[np.ndarray, ' C'],
            values: np.ndarray = values,
            errors: np.ndarray = errors,
        ) -> tuple[np.ndarray, np.ndarray]:
            return values[targets, examples], errors[targets, examples]

        unknown = np.full(len(values), np.nan)
        p, effective, cross_fitted = (
            (_by_student(members), unknown, unknown) if evidence is None else next(evidence)
        )
        yield Block(
            columns,
            read_columns(
                values,
                unit=moment_unit,
                floor=least_z * errors,  # NaN is beyond none
                self_index=self_index[columns],
                request=request,
                counted=~undefined,
            ),
            null_error,
            moment_unit,
            np.ones(len(values)),
            entries,
            np.empty((len(values), 0), int),
            p,
            effective,
            cross_fitted,
        )


def _unit_of_entries(
    values: Float[np.ndarray, 't N'], errors: Float[np.ndarray, 't N']
) -> tuple[Float[np.ndarray, ' t'], Float[np.ndarray, ' t']]:
    """The median error of each target, NaN where one is, and its largest absolute value."""
    if kernel.serves(values.T, errors.T):
        return kernel.medians(errors.T), kernel.largest(values.T)
    null_error, largest = np.full((2, len(values)), np.nan)

    def of_some(targets: slice) -> None:
        known = targets.start + np.flatnonzero(~np.isnan(errors[targets]).any(axis=1))
        null_error[known] = np.median(errors[known], axis=1)
        largest[targets] = np.abs(values[targets]).max(axis=1)

    in_threads(of_some, len(values), step=IN_CACHE)
    return null_error, largest


def _evidence(
    of: Problem, *, tile: int
) -> Iterator[tuple[PValues, Float[np.ndarray, ' t'], Float[np.ndarray, ' t']]]:
    """What masks and losses add to a block: p-values, effective members, cross-fitted values."""
    masks, losses, self_index = of
    scan = scan_for(masks)
    compare = StrongestOther(masks, scan)
    for columns, centered, scale in standardized_tiles(losses, tile=tile):
        index = padded(self_index[columns], len(scale), fill=-1)
        left = without_self(masks, centered, index)
        own = own_entries(scan.single.moments(centered, index).merged(), members=len(masks))
        effective = np.where(index >= 0, own.reliability.effective_members, np.nan)
        found = compare(centered, left, index) * scale
        width = columns.stop - columns.start
        yield _by_both(scan.single, left[:, :width]), effective[:width], found[:width]


def _null_error(
    squares: Float[np.ndarray, ' t'], included: Int[np.ndarray, ' N'], members: int
) -> Float[np.ndarray, ' t']:
    inside = float(np.median(included))
    return np.sqrt(squares / (members - 1) * (1 / inside + 1 / (members - inside)))


def _floor(
    squares: Float[np.ndarray, ' t'], included: Int[np.ndarray, ' N'], members: int, least_z: float
) -> Float[np.ndarray, ' t']:
    """No entry of smaller absolute value can have a |z| of `least_z`.

    Student's error of a difference d between n_1 and n_2 members is least where the squares within
    both are: squares - d^2 n_1 n_2 / M.
    """
    product = float((included * (members - included)).max())
    part = least_z**2 / (members - 2 + least_z**2)
    return np.sqrt(squares * part * members / product)


def _entries(single: SingleEntries, fitted: Fit, whole: Moments) -> Entries:
    of_residual = single.entries_of(fitted.residual, whole)

    def entries(
        targets: Int[np.ndarray, ' C'], examples: Int[np.ndarray, ' C']
    ) -> tuple[Float[np.ndarray, ' C'], Float[np.ndarray, ' C']]:
        values, errors = of_residual(targets, examples)
        errors *= fitted.inflation[targets]
        at, place = np.nonzero(fitted.examples[targets] == examples[:, None])
        values[at] = fitted.values[targets[at], place]
        errors[at] = fitted.errors[targets[at], place]
        return values, errors

    return entries


def _by_randomization(single: SingleEntries, fitted: Fit) -> PValues:
    """Of a regressor with the losses as they would be were it none: what is left, and its part."""

    def of_entries(
        targets: Int[np.ndarray, ' C'],
        examples: Int[np.ndarray, ' C'],
        z: Float[np.ndarray, ' C'],
        *,
        sure: float = SURE,
    ) -> Float[np.ndarray, ' C']:
        part = np.zeros(len(targets), np.float32)
        at, place = np.nonzero(fitted.examples[targets] == examples[:, None])
        part[at] = fitted.values[targets[at], place]
        return single.randomization_p_values(fitted.residual, targets, examples, part, sure=sure)

    return of_entries


def _by_both(single: SingleEntries, left: Float[np.ndarray, 'M t']) -> PValues:
    """By Student's t, but no less than the losses themselves support.

    Values that are no differences of means, as of a linear datamodel: the randomness of the masks
    is applied to what the target's own example leaves of the losses, since of skewed losses
    Student's t alone lists noise.
    """

    def of_entries(
        targets: Int[np.ndarray, ' C'],
        examples: Int[np.ndarray, ' C'],
        z: Float[np.ndarray, ' C'],
        *,
        sure: float = SURE,
    ) -> Float[np.ndarray, ' C']:
        nothing = np.zeros(len(targets), np.float32)
        return np.maximum(
            p_values(z, members=len(left)),
            single.randomization_p_values(left, targets, examples, nothing, sure=sure),
        )

    return of_entries


def _by_student(members: int | None) -> PValues:
    """By Student's t, or the normal distribution."""

    def of_entries(
        targets: Int[np.ndarray, ' C'],
        examples: Int[np.ndarray, ' C'],
        z: Float[np.ndarray, ' C'],
        *,
        sure: float = SURE,
    ) -> Float[np.ndarray, ' C']:
        return p_values(z, members=members)

    return of_entries
