"""The stored entries of the influence matrix, to be read by columns and by rows."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators import Summary
from influence_jax.explorer.encoding import numbers, positions

_DIGITS, _DIGITS_OF_ERRORS = 4, 3


class Entries(NamedTuple):
    """Entries of one column or row: positions, values, standard errors, strongest first.

    positions: of examples in a column, of targets in a row.
    values: influences.
    errors: their standard errors.
    stands_out: of each, as `Summary.stands_out`.
    listed: of the significant pairs, low and high end of the interval adjusted for the selection,
        and the cross-fitted value; NaN of all others.
    """

    positions: Int[np.ndarray, ' n']
    values: Float[np.ndarray, ' n']
    errors: Float[np.ndarray, ' n']
    stands_out: Bool[np.ndarray, ' n']
    listed: Float[np.ndarray, 'n 3']

    def strongest(self, most: int, *, sign: int = 0) -> 'Entries':
        """Returns at most so many, largest absolute value first; of one sign, or of both for 0."""
        of_sign = np.flatnonzero(self.values * sign > 0 if sign else self.values != 0)
        order = np.argsort(-np.abs(self.values[of_sign]), kind='stable')[:most]
        return Entries(*(part[of_sign[order]] for part in self))

    def rows(self) -> list[list[float | int | None]]:
        """Returns `[position, value, error, 0 or 1]` of each, as documents have them.

        Those of significant pairs go on with low, high and the cross-fitted value.
        """
        return [
            [*row, *(numbers(listed, _DIGITS) if listed[0] == listed[0] else ())]
            for *row, listed in zip(
                positions(self.positions),
                numbers(self.values, _DIGITS),
                numbers(self.errors, _DIGITS_OF_ERRORS),
                positions(self.stands_out.astype(int)),
                self.listed.tolist(),
                strict=True,
            )
        ]


class StoredEntries:
    """The strongest entries of each target and all significant pairs, each entry once."""

    def __init__(self, summary: Summary) -> None:
        pairs, (targets, kept) = summary.pairs, summary.top_examples.shape
        of_row = np.repeat(np.arange(targets), kept)
        # Of an entry that is there several times, the first is kept.
        target = np.concatenate([pairs.targets, of_row, of_row])
        example, value, error = (
            np.concatenate([first, top.ravel(), bottom.ravel()])
            for first, top, bottom in (
                (pairs.examples, summary.top_examples, summary.bottom_examples),
                (pairs.values, summary.top_values, summary.bottom_values),
                (
                    pairs.standard_errors,
                    summary.top_standard_errors,
                    summary.bottom_standard_errors,
                ),
            )
        )
        width = int(example.max(initial=0)) + 1
        _, once = np.unique(target.astype(np.int64) * width + example, return_index=True)
        self._width = width
        self._targets, self._examples = (c[once].astype(np.int32) for c in (target, example))
        self._values, self._errors = (c[once].astype(np.float32) for c in (value, error))
        self._stands_out = summary.stands_out(self._examples, self._targets)
        # The pairs are first, so that an entry that is one of them has its position.
        self._pair = np.where(once < len(pairs.targets), once, -1).astype(np.int32)
        self._listed = np.full((len(pairs.targets) + 1, 3), np.nan, np.float32)
        self._listed[:-1] = np.stack([pairs.low, pairs.high, pairs.cross_fitted], axis=1)
        # Ascending by target already; a second order is by example.
        self._by_example = np.argsort(self._examples, kind='stable').astype(np.int32)
        self._sorted_examples = self._examples[self._by_example]

    def column(self, target: int) -> Entries:
        """Returns what is stored of a target's column."""
        low, high = np.searchsorted(self._targets, [target, target + 1])
        return self._entries(self._examples, slice(low, high))

    def row(self, example: int) -> Entries:
        """Returns what is stored of an example's row: its influence on targets."""
        low, high = np.searchsorted(self._sorted_examples, [example, example + 1])
        return self._entries(self._targets, self._by_example[low:high])

    def at(
        self, examples: Int[np.ndarray, ' n'], targets: Int[np.ndarray, ' n']
    ) -> Float[np.ndarray, '2 n']:
        """Returns values and errors of single entries, NaN where they are not stored."""
        stored = self._targets.astype(np.int64) * self._width + self._examples  # ascending
        sought = targets.astype(np.int64) * self._width + examples
        place = np.minimum(np.searchsorted(stored, sought), max(len(stored) - 1, 0))
        found = np.full((2, len(sought)), np.nan, np.float32)
        known = np.flatnonzero((stored[place] == sought) & (examples < self._width))
        found[:, known] = self._values[place[known]], self._errors[place[known]]
        return found

    def _entries(
        self, positions: Int[np.ndarray, ' E'], which: slice | Int[np.ndarray, ' n']
    ) -> Entries:
        return Entries(
            positions[which],
            self._values[which],
            self._errors[which],
            self._stands_out[which],
            self._listed[self._pair[which]],
        )
