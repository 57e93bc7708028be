"""Single entries: from sums of losses, or in numpy from the masks' columns."""

import functools

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators import standard_errors
from influence_jax.estimators.moments import Moments, moments_by_group
from influence_jax.estimators.packed import PackedColumns
from influence_jax.estimators.scan.contract import Entries
from influence_jax.estimators.uncertainty import randomization_p_values
from influence_jax.threads import in_threads
from influence_jax.types import AnyArray

_GATHERED = 2**22  # losses looked up at once
_IN_CACHE = 2**16  # of the masks, that a thread works on at once


def entries_of_sums(
    included: Float[np.ndarray, ' N'],
    whole: Moments,
    targets: Int[np.ndarray, ' C'],
    examples: Int[np.ndarray, ' C'],
    inside: Float[np.ndarray, 'C 2'],
) -> tuple[Float[np.ndarray, ' C'], Float[np.ndarray, ' C']]:
    """Entries as `SingleEntries.entries_of` has them, from sums of the losses of members in.

    Args:
      included: how many members have each example.
      whole: moments `[t]` of the losses of all members.
      targets: positions of the entries.
      examples: likewise.
      inside: sums of the losses of the members with the example, and of their squares.
    """
    count, inside = included[examples], inside.T
    of_all = whole.count * whole.mean
    outside = np.stack([of_all, whole.second + of_all * whole.mean])[:, targets] - inside
    means, within = [], []
    for n, (total, squares) in ((count, inside), (whole.count[targets] - count, outside)):
        means.append(total / n)
        within.append(np.maximum(squares - total * means[-1], 0))
    values = means[1] - means[0]
    of = standard_errors.shape_of(whole)
    return values, standard_errors.standard_error(
        values,
        *within,
        included=count,
        members=whole.count[targets],
        of=standard_errors.Shape(of.skewness[targets], of.kurtosis[targets]),
    )


class ByColumns:
    """`SingleEntries` in numpy."""

    def __init__(self, masks: Bool[np.ndarray, 'M N']) -> None:
        self._masks = masks

    def moments(self, losses: Float[AnyArray, 'M t'], examples: Int[np.ndarray, ' t']) -> Moments:
        """See `SingleEntries`."""
        return moments_by_group(self._masks, losses, examples)

    def moments_of_all(self, losses: Float[AnyArray, 'M t']) -> Moments:
        """See `SingleEntries`."""
        return self.moments(losses, np.full(losses.shape[1], -1)).merged().merged()

    def entries_of(self, losses: Float[AnyArray, 'M t'], whole: Moments) -> Entries:
        """See `SingleEntries`."""
        by_target = np.asarray(losses.T, np.float64)
        powers = np.stack([by_target, by_target**2], axis=-1)
        packed, included = self._packed

        def sums(
            targets: Int[np.ndarray, ' C'], examples: Int[np.ndarray, ' C']
        ) -> Float[np.ndarray, 'C 2']:
            """Sums of the losses of one target, and of their squares, with some examples."""
            return packed.columns(examples).astype(np.float64) @ powers[targets[0]]

        def read(
            targets: Int[np.ndarray, ' C'], examples: Int[np.ndarray, ' C']
        ) -> tuple[Float[np.ndarray, ' C'], Float[np.ndarray, ' C']]:
            inside = np.empty((len(targets), 2))
            order = np.argsort(targets, kind='stable')

            def of_some(these: Int[np.ndarray, ' c'], piece: slice) -> None:
                inside[these[piece]] = sums(targets[these[piece]], examples[these[piece]])

            for these in np.split(order, np.flatnonzero(np.diff(targets[order])) + 1):
                if not these.size:
                    continue
                # Of a whole column, the masks as float64 would take eight times their memory.
                work = functools.partial(of_some, these)
                in_threads(work, len(these), step=max(1, _IN_CACHE // len(losses)))
            return entries_of_sums(included, whole, targets, examples, inside)

        return read

    @functools.cached_property
    def _packed(self) -> tuple[PackedColumns, Float[np.ndarray, ' N']]:
        """The masks, and how many members have each example."""
        return PackedColumns.of(self._masks), self._masks.sum(axis=0).astype(np.float32)

    def differences(
        self,
        losses: Float[np.ndarray, 'M t'],
        examples: Int[np.ndarray, 't K'],
        half: int,
    ) -> Float[np.ndarray, 't K']:
        """See `SingleEntries`."""
        losses = losses[half::2]
        included = self._masks[half::2].T[examples].astype(np.float32)
        inside = np.einsum('tkm,mt->tk', included, losses)
        return differences_of_sums(inside, losses, included.sum(axis=-1))

    def randomization_p_values(
        self,
        losses: Float[AnyArray, 'M t'],
        targets: Int[np.ndarray, ' C'],
        examples: Int[np.ndarray, ' C'],
        taken: Float[np.ndarray, ' C'],
        *,
        sure: float,
    ) -> Float[np.ndarray, ' C']:
        """See `SingleEntries`."""
        p = np.ones(len(targets))
        chunk = max(1, _GATHERED // len(self._masks))
        for start in range(0, len(targets), chunk):
            some = slice(start, start + chunk)
            columns = np.ascontiguousarray(self._masks[:, examples[some]].T)
            of = np.array(losses[:, targets[some]].T)
            of -= taken[some, None] * columns
            p[some] = randomization_p_values(columns, of, sure=sure)
        return p


def differences_of_sums(
    inside: Float[np.ndarray, 't K'],
    losses: Float[np.ndarray, 'm t'],
    included: Float[np.ndarray, 't K'],
) -> Float[np.ndarray, 't K']:
    """Mean without - mean with, from sums of the losses with the example and how many these are."""
    with np.errstate(divide='ignore', invalid='ignore'):
        outside = losses.sum(axis=0)[:, None] - inside
        return outside / (len(losses) - included) - inside / included
