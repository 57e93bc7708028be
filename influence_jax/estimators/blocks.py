"""Blocks of columns by any estimator: scanned, and with an answer about single entries."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.adjusted import Fit, Fitting, check_members, scaled
from influence_jax.estimators.columns import distinct
from influence_jax.estimators.cross_fit import strongest_other, without_own
from influence_jax.estimators.kinds import Estimator, tiles
from influence_jax.estimators.pairs import PValues
from influence_jax.estimators.randomization import p_values as randomization_p_values
from influence_jax.estimators.scan import EDGES, Asked, Scan, Scanned, Targets, scan_for
from influence_jax.estimators.self_error import self_errors, unseen_error
from influence_jax.estimators.tiling import padded, standardized_tiles
from influence_jax.estimators.uncertainty import p_values
from influence_jax.types import AnyArray

Entries = Callable[
    [Int[np.ndarray, ' C'], Int[np.ndarray, ' C']],
    tuple[Float[np.ndarray, ' C'], Float[np.ndarray, ' C']],
]
"""From positions in the block and examples to values and standard errors."""

_COMPARED = 8
_GATHERED = 2**24  # losses looked up at once


class Block(NamedTuple):
    """A block of targets.

    columns: which.
    scanned: see there; in units of `scale`.
    null_error: `[t]` see `Targets`; in the same units.
    scale: `[t]` what makes of them the unit of the measurement.
    entries: values and standard errors of single entries, in the same units.
    fitted: `[t F]` examples that were regressed on, candidates all; -1 for none.
    p_values: two-sided p-values of single entries, by the randomness of the masks where the
        estimate is a difference of means; given, besides targets and examples, their z-scores.
    effective_members: `[t]` of self-influence, see `errors.Reliability`.
    other_cross_fitted: `[t]` see `cross_fit.strongest_other`; in the unit of the measurement.
    """

    columns: slice
    scanned: Scanned
    null_error: Float[AnyArray, ' t']
    scale: Float[np.ndarray, ' t']
    entries: Entries
    fitted: Int[AnyArray, 't F']
    p_values: PValues
    effective_members: Float[AnyArray, ' t']
    other_cross_fitted: Float[AnyArray, ' t']


def blocks(
    estimator: Estimator,
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    own: Int[np.ndarray, ' T'],
    *,
    asked: Asked,
    least_z: float,
    tile: int,
) -> Iterator[Block]:
    """Scans all targets; entries of |z| above `least_z` are among the candidates.

    Masks and losses are those of usable members.
    """
    if estimator in (Estimator.RIDGE, Estimator.LASSO):
        return _of_matrices(estimator, masks, losses, own, asked, least_z, tile)
    if estimator is Estimator.ADJUSTED:
        check_members(len(masks))
    return _of_scans(estimator, masks, losses, own, asked, least_z, tile)


def _of_scans(
    estimator: Estimator,
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    own: Int[np.ndarray, ' T'],
    asked: Asked,
    least_z: float,
    tile: int,
) -> Iterator[Block]:
    scan = scan_for(masks, targets=losses.shape[1])
    fit = (
        Fitting(masks, scan, targets=losses.shape[1])
        if estimator is Estimator.ADJUSTED
        else _NothingFitted(masks, losses, own, scan)
    )
    unseen = unseen_error(masks, losses, own)
    included = masks.sum(axis=0)
    for columns, centred, scale in standardized_tiles(losses, tile=tile):
        width = columns.stop - columns.start
        of_block = padded(own[columns], len(scale), fill=-1)
        if isinstance(fit, Fitting):
            fitted = fit(centred, of_block, unseen=scaled(unseen, columns, scale))
        else:
            fitted = fit(centred, of_block, columns, scale)
        fitted = _cut(fitted, width)
        squares = np.square(fitted.residual, dtype=np.float64).sum(axis=0)
        null_error = fitted.inflation * _null_error(squares, included, len(masks))
        targets = Targets(
            fitted.residual,
            null_error,
            own[columns],
            fitted.inflation * _floor(squares, included, len(masks), least_z),
            fitted.examples,
            fitted.values,
        )
        yield Block(
            columns,
            scan.columns(targets, asked),
            null_error,
            scale[:width],
            _entries(scan, fitted),
            fitted.examples,
            _by_randomization(masks, fitted),
            fitted.effective_members,
            fitted.other_cross_fitted * scale[:width],
        )


class _NothingFitted:
    """The difference of means as a `Fitting` that regresses on nothing, own errors apart."""

    def __init__(
        self,
        masks: Bool[np.ndarray, 'M N'],
        losses: Float[np.ndarray, 'M T'],
        own: Int[np.ndarray, ' T'],
        scan: Scan,
    ) -> None:
        self._compare = _Comparison(masks, scan)
        self._masks, self._of_own = masks, self_errors(masks, losses, own)

    def __call__(
        self,
        losses: Float[np.ndarray, 'M t'],
        own: Int[np.ndarray, ' t'],
        columns: slice,
        scale: Float[np.ndarray, ' t'],
    ) -> Fit:
        """Of losses that are centred and within [-1, 1], of the targets `columns`."""
        included = self._masks[:, own]
        inside = np.maximum(included.sum(axis=0), 1)
        outside = np.maximum(len(losses) - inside, 1)
        total = (losses * included).sum(axis=0, dtype=np.float64)
        value = (losses.sum(axis=0, dtype=np.float64) - total) / outside - total / inside
        error = padded(self._of_own.standard_error[columns], len(own))
        return Fit(
            losses,
            own[:, None],
            value[:, None].astype(np.float32),
            (error / np.where(scale > 0, scale, 1))[:, None].astype(np.float32),
            np.ones(len(own), np.float32),
            padded(self._of_own.effective_members[columns], len(own)),
            self._compare(losses, own),
        )


class _Comparison:
    """The strongest others of a block of targets, cross-fitted by difference of means."""

    def __init__(self, masks: Bool[np.ndarray, 'M N'], scan: Scan) -> None:
        self._masks, self._scan = masks, scan
        self._most = min(_COMPARED, masks.shape[1])
        # What the own example does, those that always go with it do.
        self._are_alone = distinct(masks).trivial

    def __call__(
        self, losses: Float[np.ndarray, 'M t'], own: Int[np.ndarray, ' t']
    ) -> Float[np.ndarray, ' t']:
        left = without_own(self._masks, losses, own) if self._are_alone else losses
        halves = self._scan.suspects(left, own, self._most)[:2]
        return strongest_other(self._masks, left, halves, own)


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


def _entries(scan: Scan, fitted: Fit) -> Entries:
    def entries(
        targets: Int[np.ndarray, ' C'], examples: Int[np.ndarray, ' C']
    ) -> tuple[Float[np.ndarray, ' C'], Float[np.ndarray, ' C']]:
        values, errors = scan.entries(fitted.residual, targets, examples)
        errors *= fitted.inflation[targets]
        at, place = np.nonzero(fitted.examples[targets] == examples[:, None])
        values[at] = fitted.values[targets[at], place]
        errors[at] = fitted.errors[targets[at], place]
        return values, errors

    return entries


def _by_randomization(masks: Bool[np.ndarray, 'M N'], fitted: Fit) -> PValues:
    """Of a regressor with the losses as they would be were it none: what is left, and its part."""

    def of_entries(
        targets: Int[np.ndarray, ' C'], examples: Int[np.ndarray, ' C'], z: Float[np.ndarray, ' C']
    ) -> Float[np.ndarray, ' C']:
        p = np.ones(len(targets))
        chunk = max(1, _GATHERED // len(masks))
        for start in range(0, len(targets), chunk):
            some = slice(start, start + chunk)
            columns = np.ascontiguousarray(masks[:, examples[some]].T)
            losses = np.array(fitted.residual[:, targets[some]].T)
            at, place = np.nonzero(fitted.examples[targets[some]] == examples[some][:, None])
            part = fitted.values[targets[some][at], place][:, None] * columns[at]
            losses[at] -= part
            p[some] = randomization_p_values(columns, losses)
        return p

    return of_entries


def _cut(fit: Fit, width: int) -> Fit:
    residual, *others = fit
    return Fit(residual[:, :width], *(part[:width] for part in others))


def _by_both(masks: Bool[np.ndarray, 'M N'], left: Float[np.ndarray, 'M t']) -> PValues:
    """Of a linear datamodel: by Student's t, but no less than the losses themselves bear out.

    Its values are no differences of means, so the randomness of the masks is asked about what the
    own example leaves of the losses; of skewed ones Student's t alone lists noise.
    """

    def of_entries(
        targets: Int[np.ndarray, ' C'], examples: Int[np.ndarray, ' C'], z: Float[np.ndarray, ' C']
    ) -> Float[np.ndarray, ' C']:
        columns = np.ascontiguousarray(masks[:, examples].T)
        return np.maximum(
            p_values(z, members=len(masks)), randomization_p_values(columns, left[:, targets].T)
        )

    return of_entries


def _of_matrices(
    estimator: Estimator,
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    own: Int[np.ndarray, ' T'],
    asked: Asked,
    least_z: float,
    tile: int,
) -> Iterator[Block]:
    effective = self_errors(masks, losses, own).effective_members
    compare = _Comparison(masks, scan_for(masks, targets=losses.shape[1]))
    both = zip(
        tiles(estimator, masks, losses, target_examples=own, tile=tile),
        standardized_tiles(losses, tile=tile),
        strict=True,
    )
    for (columns, influence), (_, centred, scale) in both:
        values, errors = (np.asarray(part).T for part in influence)
        null_error = np.median(errors, axis=1).astype(np.float64)

        def entries(
            targets: Int[np.ndarray, ' C'],
            examples: Int[np.ndarray, ' C'],
            values: np.ndarray = values,
            errors: np.ndarray = errors,
        ) -> tuple[np.ndarray, np.ndarray]:
            return values[targets, examples], errors[targets, examples]

        yield Block(
            columns,
            _scanned(values, errors, null_error, own[columns], asked, least_z),
            null_error,
            np.ones(len(values)),
            entries,
            np.empty((len(values), 0), int),
            _by_both(masks, without_own(masks, centred[:, : len(values)], own[columns])),
            effective[columns],
            (compare(centred, padded(own[columns], len(scale), fill=-1)) * scale)[: len(values)],
        )


def _scanned(
    values: Float[np.ndarray, 't N'],
    errors: Float[np.ndarray, 't N'],
    null_error: Float[np.ndarray, ' t'],
    own: Int[np.ndarray, ' t'],
    asked: Asked,
    least_z: float,
) -> Scanned:
    """As a `Scan` answers, from entries that are there."""
    order = np.argsort(values, axis=1, kind='stable')
    ranked = np.take_along_axis(values, order[:, list(asked.ranks)], axis=1)
    z = values * np.divide(1, null_error, where=null_error > 0, out=np.zeros(len(values)))[:, None]
    others = z[np.arange(values.shape[1]) != own[:, None]].clip(EDGES[0], EDGES[-1])
    found = np.nonzero(np.abs(values) > least_z * errors)
    return Scanned(
        order[:, ::-1][:, : asked.strongest],
        order[:, : asked.strongest],
        np.stack([(z**power).mean(axis=1) for power in (1, 2, 3, 4)], axis=1),
        ranked,
        found[0],
        found[1],
        np.histogram(others, EDGES)[0],
    )
