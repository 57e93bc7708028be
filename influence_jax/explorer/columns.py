"""Whole influence distributions of single targets, estimated again from masks and losses."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators import BUILT_IN, by_name
from influence_jax.estimators.columns import entry_reader
from influence_jax.estimators.ensemble import Ensemble, Problem, problem
from influence_jax.explorer import encoding
from influence_jax.explorer.entries import Entries
from influence_jax.report.results import Results
from influence_jax.text import clean

_BINS = 160
_AT_ONCE = 32
_CLOSE = 1e-3
_OF_OTHERS = (
    'the stored results are not what the losses of the members give: they are of another '
    'measurement, or of other members; write the report again'
)


class Column(NamedTuple):
    """The whole distribution of a target.

    values: `[N]` influences.
    errors: `[N]` their standard errors.
    """

    values: Float[np.ndarray, ' N']
    errors: Float[np.ndarray, ' N']

    def entries(self, stored: Entries) -> Entries:
        """Returns all entries; those stand out, or are listed, that do among the stored ones."""
        count = len(self.values)
        stands_out, listed = np.zeros(count, bool), np.full((count, 3), np.nan, np.float32)
        stands_out[stored.positions], listed[stored.positions] = stored.stands_out, stored.listed
        return Entries(np.arange(count), self.values, self.errors, stands_out, listed)

    def histogram(self, null_error: float) -> dict[str, Any] | None:
        """Returns counts of 160 bins, evenly spaced in asinh(value / null_error).

        So they are as fine as noise at zero and wide in the tails: edge k is
        null_error sinh(low + (high - low) k / 160). None without any noise.
        """
        if not null_error > 0:
            return None
        counts, edges = np.histogram(np.arcsinh(self.values / null_error), _BINS)
        return {
            'low': encoding.number(edges[0]),
            'high': encoding.number(edges[-1]),
            'scale': encoding.number(null_error),
            'counts': encoding.integers(counts),
        }


class MemberLosses(NamedTuple):
    """What was measured of all members on a target.

    values: `[M]`.
    included: `[M]` whether the member was trained on it; None where it is no example.
    """

    values: Float[np.ndarray, ' M']
    included: Bool[np.ndarray, ' M'] | None

    def document(self, *, exact: bool) -> dict[str, Any]:
        """Returns it as the document of a target has it; rounded it takes half the place."""
        return {
            'values': (encoding.floats if exact else encoding.quantized)(self.values),
            'included': None if self.included is None else encoding.bits(self.included),
        }


def measured(tensors: Ensemble, results: Results) -> Problem:
    """Returns the members behind results, of the tensors that are kept with them.

    Raises:
        ValueError: they cannot be used, or are not those of the results.
    """
    of = problem(*tensors, results.overview.target_examples)
    used, members = results.summary.members_used, len(of.masks)
    if members != used:
        raise ValueError(
            f'the stored results are of {used} members, and there are {members}: write the report '
            f'again'
        )
    known = results.mean_loss
    means = tensors.losses.mean(axis=0, dtype=np.float64)
    if known is not None and not np.allclose(means, known, rtol=_CLOSE):
        raise ValueError(_OF_OTHERS)
    return of


def member_losses(of: Problem, target: int) -> MemberLosses:
    """Returns what was measured of all members on a target."""
    example = int(of.self_index[target])
    included = of.masks[:, example] if example >= 0 else None
    return MemberLosses(np.asarray(of.losses[:, target], np.float64), included)


class WholeColumns:
    """Columns of the influence matrix, by the estimator of the results.

    Args:
        of: the members behind the results.
        results: what was estimated of them.

    Raises:
        ValueError: the estimator is not one of this package that has single columns, or the stored
            results are of other losses: in one line.
    """

    def __init__(self, of: Problem, results: Results) -> None:
        self._examples = np.arange(of.masks.shape[1])
        name = results.method.name
        if name not in {one.name for one in BUILT_IN}:
            raise ValueError(
                f'whole columns are estimated again by the estimators of this package alone, not '
                f'by {clean(name)}: shown is what is stored'
            )
        self._read = entry_reader(by_name(name), of)
        self._check(results)

    def _check(self, results: Results) -> None:
        """Compares columns that are stored whole with those estimated here."""
        overview = results.overview
        for place, target in enumerate(overview.chosen.tolist()):
            # One by one, as pages ask for them: each other width is compiled anew.
            (column,) = self.columns(np.array([target]))
            noise = np.nan_to_num(results.summary.null_standard_error[target])
            stored, tolerance = overview.distributions[:, place], _CLOSE * float(noise) + 1e-12
            if not np.allclose(stored, column.values, rtol=_CLOSE, atol=tolerance):
                raise ValueError(_OF_OTHERS)

    def columns(self, targets: Int[np.ndarray, ' t']) -> list[Column]:
        """Estimates the whole columns of some targets."""
        found = self._read(targets, self._examples)
        return [Column(*parts) for parts in zip(*(part.T for part in found), strict=True)]

    def at(
        self, examples: Int[np.ndarray, ' n'], targets: Int[np.ndarray, ' n']
    ) -> Float[np.ndarray, '2 n']:
        """Estimates values and errors of single entries."""
        found, (once, place) = np.empty((2, len(targets))), np.unique(targets, return_inverse=True)
        for start in range(0, len(once), _AT_ONCE):
            chosen = once[start : start + _AT_ONCE]
            # Of one width, as each other is compiled anew.
            read = self._read(np.resize(chosen, _AT_ONCE), self._examples)
            here = np.flatnonzero(place // _AT_ONCE == start // _AT_ONCE)
            found[:, here] = [part[examples[here], place[here] - start] for part in read]
        return found

    def block(
        self, examples: Int[np.ndarray, ' n'], targets: Int[np.ndarray, ' t']
    ) -> Float[np.ndarray, 'n t']:
        """Estimates the entries where rows of examples cross columns of targets."""
        blocks = [
            self._read(targets[start : start + _AT_ONCE], examples).values
            for start in range(0, len(targets), _AT_ONCE)
        ]
        return np.concatenate(blocks, axis=1)
