"""Blocks of columns by any estimator: scanned, and with an answer about single entries."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators import difference
from influence_jax.estimators.adjusted import Fit, Fitting, check_members
from influence_jax.estimators.kinds import Estimator, tiles
from influence_jax.estimators.scan import EDGES, Asked, Scan, Scanned, Targets, scan_for
from influence_jax.types import AnyArray

Entries = Callable[
    [Int[np.ndarray, 'C'], Int[np.ndarray, 'C']],
    tuple[Float[np.ndarray, 'C'], Float[np.ndarray, 'C']],
]
"""From positions in the block and examples to values and standard errors."""


class Block(NamedTuple):
    """A block of targets.

    columns: which.
    scanned: see there; in units of `scale`.
    null_error: `[t]` see `Targets`; in the same units.
    scale: `[t]` what makes of them the unit of the measurement.
    entries: values and standard errors of single entries, in the same units.
    fitted: `[t F]` examples of which the errors are not Welch's, candidates all; -1 for none.
    """

    columns: slice
    scanned: Scanned
    null_error: Float[AnyArray, 't']
    scale: Float[np.ndarray, 't']
    entries: Entries
    fitted: Int[AnyArray, 't F']


def blocks(
    estimator: Estimator,
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    own: Int[np.ndarray, 'T'],
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
    own: Int[np.ndarray, 'T'],
    asked: Asked,
    least_z: float,
    tile: int,
) -> Iterator[Block]:
    scan = scan_for(masks, targets=losses.shape[1])
    fit = Fitting(masks, scan) if estimator is Estimator.ADJUSTED else _nothing_fitted
    included = masks.sum(axis=0)
    for columns, centred, scale in difference.standardized_tiles(losses, tile=tile):
        width = columns.stop - columns.start
        of_block = difference.padded(own[columns], len(scale), fill=-1)
        fitted = _cut(fit(centred, of_block), width)
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
        )


def _nothing_fitted(losses: Float[np.ndarray, 'M t'], own: Int[np.ndarray, 't']) -> Fit:
    none = np.empty((len(own), 0), np.float32)
    return Fit(losses, none.astype(np.int32), none, none, np.ones(len(own), np.float32))


def _null_error(
    squares: Float[np.ndarray, 't'], included: Int[np.ndarray, 'N'], members: int
) -> Float[np.ndarray, 't']:
    inside = float(np.median(included))
    return np.sqrt(squares / (members - 1) * (1 / inside + 1 / (members - inside)))


def _floor(
    squares: Float[np.ndarray, 't'], included: Int[np.ndarray, 'N'], members: int, least_z: float
) -> Float[np.ndarray, 't']:
    """No entry of smaller absolute value d can have a Welch |z| of `least_z`.

    Of all ways to share the squares that are left within the two groups of members, n_1 >= n_2,
    Welch's variance is least where all lie in the larger: (squares - d^2 n_1 n_2 / M) divided by
    n_1 (n_1 - 1).
    """
    larger = float(np.maximum(included, members - included).max())
    return least_z * np.sqrt(squares / (larger * (larger - 1) + least_z**2 * members / 4))


def _entries(scan: Scan, fitted: Fit) -> Entries:
    def entries(
        targets: Int[np.ndarray, 'C'], examples: Int[np.ndarray, 'C']
    ) -> tuple[Float[np.ndarray, 'C'], Float[np.ndarray, 'C']]:
        values, errors = scan.entries(fitted.residual, targets, examples)
        errors *= fitted.inflation[targets]
        at, place = np.nonzero(fitted.examples[targets] == examples[:, None])
        values[at] = fitted.values[targets[at], place]
        errors[at] = fitted.errors[targets[at], place]
        return values, errors

    return entries


def _cut(fit: Fit, width: int) -> Fit:
    residual, *others = fit
    return Fit(residual[:, :width], *(part[:width] for part in others))


def _of_matrices(
    estimator: Estimator,
    masks: Bool[np.ndarray, 'M N'],
    losses: Float[np.ndarray, 'M T'],
    own: Int[np.ndarray, 'T'],
    asked: Asked,
    least_z: float,
    tile: int,
) -> Iterator[Block]:
    for columns, influence in tiles(estimator, masks, losses, target_examples=own, tile=tile):
        values, errors = (np.asarray(part).T for part in influence)
        null_error = np.median(errors, axis=1).astype(np.float64)

        def entries(
            targets: Int[np.ndarray, 'C'],
            examples: Int[np.ndarray, 'C'],
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
        )


def _scanned(
    values: Float[np.ndarray, 't N'],
    errors: Float[np.ndarray, 't N'],
    null_error: Float[np.ndarray, 't'],
    own: Int[np.ndarray, 't'],
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
