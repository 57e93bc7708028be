"""Whole influence distributions of single targets, estimated again from masks and losses."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators import by_name
from influence_jax.estimators.columns import entry_reader
from influence_jax.estimators.ensemble import problem
from influence_jax.explorer import encoding
from influence_jax.explorer.entries import Entries
from influence_jax.report.results import Results
from influence_jax.types import Masks, Measurement

_BINS = 160
_AT_ONCE = 32
_CLOSE = 1e-3


class Column(NamedTuple):
    """The whole distribution of a target.

    values: `[N]` influences.
    errors: `[N]` their standard errors.
    """

    values: Float[np.ndarray, ' N']
    errors: Float[np.ndarray, ' N']

    def entries(self, stored: Entries) -> Entries:
        """Returns all entries; those stand out that do among the stored ones."""
        stands_out = np.zeros(len(self.values), bool)
        stands_out[stored.positions[stored.stands_out]] = True
        return Entries(np.arange(len(self.values)), self.values, self.errors, stands_out)

    def histogram(self, null_error: float) -> dict[str, Any] | None:
        """Returns edges and counts of 160 bins, evenly spaced in asinh(value / null_error).

        So they are as fine as noise at zero and wide in the tails. None without any noise.
        """
        if not null_error > 0:
            return None
        places = np.arcsinh(self.values / null_error)
        counts, edges = np.histogram(places, _BINS)
        edges = np.sinh(edges) * null_error
        return {'edges': encoding.floats(edges), 'counts': encoding.integers(counts)}


class MemberLosses(NamedTuple):
    """What was measured of all members on a target.

    values: `[M]`.
    included: `[M]` whether the member was trained on it; None where it is no example.
    """

    values: Float[np.ndarray, ' M']
    included: Bool[np.ndarray, ' M'] | None

    def document(self) -> dict[str, Any]:
        """Returns it as the document of a target has it."""
        sides = None
        if self.included is not None:
            sides = ''.join('1' if one else '0' for one in self.included.tolist())
        return {'values': encoding.quantized(self.values), 'included': sides}


class WholeColumns:
    """Columns of the influence matrix, by the estimator of the results.

    Args:
        masks: of the run, or kept with the report.
        losses: of the same members.
        results: what was estimated of them.

    Raises:
        ValueError: the estimator is not one of this package that has single columns, or the stored
            results are of other members: in one line.
    """

    def __init__(self, masks: Masks, losses: Measurement, results: Results) -> None:
        summary = results.summary
        estimator = by_name(results.method.name)
        if estimator.pooled:
            raise ValueError(
                f'a column by the estimator {estimator.name} depends on all others: only what is '
                f'stored is shown'
            )
        self._of = problem(masks, losses, results.overview.target_examples)
        members = len(self._of.masks)
        if members != summary.members_used:
            raise ValueError(
                f'the stored results are of {summary.members_used} members, and there are '
                f'{members}: write the report again'
            )
        self._read = entry_reader(estimator, self._of)
        self._check(results)

    def _check(self, results: Results) -> None:
        """Compares columns that are stored whole with those estimated here."""
        overview = results.overview
        noise = np.nan_to_num(results.summary.null_standard_error[overview.chosen])
        for place, column in enumerate(self.columns(overview.chosen)):
            tolerance = _CLOSE * float(noise[place]) + 1e-12
            stored = overview.distributions[:, place]
            if not np.allclose(stored, column.values, rtol=_CLOSE, atol=tolerance):
                raise ValueError(
                    'the stored results are not what the losses of the members give: they are of '
                    'another measurement, or of other members; write the report again'
                )

    def columns(self, targets: Int[np.ndarray, ' t']) -> list[Column]:
        """Estimates the whole columns of some targets."""
        found = self._read(targets, np.arange(self._of.masks.shape[1]))
        return [Column(*parts) for parts in zip(*(part.T for part in found), strict=True)]

    def block(
        self, examples: Int[np.ndarray, ' n'], targets: Int[np.ndarray, ' t']
    ) -> Float[np.ndarray, 'n t']:
        """Estimates the entries where rows of examples cross columns of targets."""
        blocks = [
            self._read(targets[start : start + _AT_ONCE], examples).values
            for start in range(0, len(targets), _AT_ONCE)
        ]
        return np.concatenate(blocks, axis=1)

    def losses(self, target: int) -> MemberLosses:
        """Returns what was measured on a target."""
        example = int(self._of.self_index[target])
        included = self._of.masks[:, example] if example >= 0 else None
        return MemberLosses(np.asarray(self._of.losses[:, target], np.float64), included)
