"""The scan on a CPU with AVX-512 and a C++ compiler: a few columns at a time, all in the cache."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.estimators.moments import Moments
from influence_jax.estimators.scan import host
from influence_jax.estimators.scan.contract import (
    Entries,
    SingleEntries,
    SummaryRequest,
    SummaryResult,
    Targets,
)
from influence_jax.estimators.scan.host import factors, included_in_parts, inverse
from influence_jax.estimators.scan.single_entries import (
    ByColumns,
    differences_of_sums,
    entries_of_sums,
)
from influence_jax.estimators.uncertainty import at_least_one_subset
from influence_jax.kernels import matrices
from influence_jax.kernels import summaries as kernel
from influence_jax.threads import IN_CACHE, in_threads, num_cores
from influence_jax.types import AnyArray

_TARGETS = 16  # of one call
_ENTRIES = 2**10
_P_VALUES = 2**8
_COMPARED = 2**16


class CompiledEntries(ByColumns):
    """`SingleEntries` by `kernels.summaries`."""

    def __init__(self, masks: Bool[np.ndarray, 'M N'], packed: kernel.Masks) -> None:
        super().__init__(masks)
        self.packed = packed
        self.included = included_in_parts(masks)

    @classmethod
    def of(cls, masks: Bool[np.ndarray, 'M N']) -> 'CompiledEntries | None':
        """None where kernels cannot be used."""
        packed = kernel.Masks.of(masks)
        return None if packed is None else cls(masks, packed)

    def moments(self, losses: Float[AnyArray, 'M t'], examples: Int[np.ndarray, ' t']) -> Moments:
        """See `SingleEntries`."""
        losses = np.asfortranarray(losses, np.float32)
        examples = np.ascontiguousarray(examples, np.int64)
        found = np.empty((len(examples), 2, 2, 5))
        in_threads(self.packed.moments(losses, examples, found), len(examples), step=IN_CACHE)
        return Moments(*found.transpose(3, 1, 2, 0))

    def entries_of(self, losses: Float[AnyArray, 'M t'], whole: Moments) -> Entries:
        """See `SingleEntries`."""

        def read(
            targets: Int[np.ndarray, ' C'], examples: Int[np.ndarray, ' C']
        ) -> tuple[Float[np.ndarray, ' C'], Float[np.ndarray, ' C']]:
            order = np.argsort(targets, kind='stable')
            of, rows = (np.asarray(places[order], np.int64) for places in (targets, examples))
            inside = np.empty((len(order), 2))
            inside[order] = self._sums(losses, of, rows)
            return entries_of_sums(self.included[-1], whole, targets, examples, inside)

        return read

    def differences(
        self,
        losses: Float[np.ndarray, 'M t'],
        examples: Int[np.ndarray, 't K'],
        half: int,
    ) -> Float[np.ndarray, 't K']:
        """See `SingleEntries`."""
        targets, count = examples.shape
        of = np.repeat(np.arange(targets), count)
        inside = self._sums(losses, of, np.ascontiguousarray(examples, np.int64).ravel(), half=half)
        included = self.included[half][examples]
        return differences_of_sums(inside[:, 0].reshape(targets, count), losses[half::2], included)

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
        contiguous = np.asfortranarray(losses, np.float32)
        order = np.argsort(targets, kind='stable')
        of, rows = (np.asarray(places[order], np.int64) for places in (targets, examples))
        subtracted = np.asarray(taken[order], np.float32)
        p, found = np.empty((2, len(order)))
        work = self.packed.p_values(contiguous, of, rows, found, taken=subtracted, sure=sure)
        in_threads(work, len(order), step=_P_VALUES)
        p[order] = found
        p = at_least_one_subset(p, self.included[-1][examples], len(contiguous))
        two_valued = np.flatnonzero(np.isnan(p))
        if two_valued.size:
            p[two_valued] = super().randomization_p_values(
                losses, targets[two_valued], examples[two_valued], taken[two_valued], sure=sure
            )
        return p

    def _sums(
        self,
        losses: Float[AnyArray, 'M t'],
        targets: Int[np.ndarray, ' C'],
        examples: Int[np.ndarray, ' C'],
        *,
        half: int | None = None,
    ) -> Float[np.ndarray, 'C 2']:
        contiguous = np.asfortranarray(losses, np.float32)
        sums = np.empty((len(targets), 2))
        work = self.packed.sums(contiguous, targets, examples, sums, half=half)
        in_threads(work, len(targets), step=_ENTRIES)
        return sums


class CompiledScan:
    """A `Scan` by `kernels.summaries`."""

    def __init__(self, single: CompiledEntries, members: int) -> None:
        self.single = single
        self.blocks_at_once = num_cores()  # no column is held
        self._packed = single.packed
        self._of_means, self._of_t = (
            factors(single.included, members, scaled) for scaled in (False, True)
        )

    @classmethod
    def of(cls, masks: Bool[np.ndarray, 'M N']) -> 'CompiledScan | None':
        """None where kernels cannot be used."""
        single = CompiledEntries.of(masks)
        return None if single is None else cls(single, len(masks))

    def columns(self, targets: Targets, request: SummaryRequest) -> SummaryResult:
        """See `Scan`."""
        losses = np.asfortranarray(targets.losses, np.float32)
        width = losses.shape[1]
        answers = kernel.Answers.empty(width, strongest=request.strongest, ranks=len(request.ranks))
        read = self._packed.columns(
            losses,
            answers,
            of_inside=self._of_means.of_inside[-1],
            of_total=self._of_means.of_total[-1],
            fixed_examples=np.ascontiguousarray(targets.fixed_examples, np.int64),
            fixed_values=np.ascontiguousarray(targets.fixed_values, np.float32),
            per_unit=inverse(np.asarray(targets.null_error, np.float32)),
            floor=np.ascontiguousarray(targets.floor, np.float32),
            self_index=np.ascontiguousarray(targets.self_index, np.int64),
            ranks=np.asarray(request.ranks, np.int64),
        )
        found = in_threads(read, width, step=_TARGETS)
        listed, histograms = zip(*found, strict=True)
        target, example = np.divmod(np.concatenate(listed), self._packed.examples)
        return _result(answers, target, example, histograms)

    def candidate_regressors(
        self,
        losses: Float[np.ndarray, 'M t'],
        self_index: Int[np.ndarray, ' t'],
        count: int,
        *,
        parts: int = 3,
    ) -> Int[np.ndarray, '{parts} t K']:
        """See `Scan`."""
        losses = np.asfortranarray(losses, np.float32)
        found = np.empty((parts, losses.shape[1], count), np.int64)
        strongest = self._packed.strongest(
            losses,
            found,
            of_inside=self._of_t.of_inside,
            of_total=self._of_t.of_total,
            self_index=np.ascontiguousarray(self_index, np.int64),
        )
        in_threads(strongest, losses.shape[1], step=_TARGETS)
        return found


def single_entries_of(masks: Bool[np.ndarray, 'M N']) -> SingleEntries:
    """In C++ where that can be used; else in numpy, beside accelerators too."""
    return CompiledEntries.of(masks) or ByColumns(masks)


def read_columns(
    values: Float[np.ndarray, 't N'],
    *,
    unit: Float[AnyArray, ' t'],
    floor: Float[AnyArray, 't _'],
    self_index: Int[np.ndarray, ' t'],
    request: SummaryRequest,
    counted: Bool[np.ndarray, ' t'] | None = None,
) -> SummaryResult:
    """As `host.read_columns`, which it calls where kernels cannot be used; quick of `[N t]`.T."""
    by_example, (of_row, of_entry) = values.T, values.T.strides
    if of_entry != values.itemsize or of_row % values.itemsize or not values.flags.aligned:
        by_example = by_example.copy()  # rows in one piece, also where there is one column
    width = len(values)
    answers = kernel.Answers.empty(width, strongest=request.strongest, ranks=len(request.ranks))
    read = None
    if values.dtype == np.float32:
        read = kernel.columns_of_values(
            by_example,
            answers,
            per_unit=inverse(np.asarray(unit, np.float32)),
            self_index=np.ascontiguousarray(self_index, np.int64),
            counted=np.ones(width, np.int64) if counted is None else counted.astype(np.int64),
            ranks=np.asarray(request.ranks, np.int64),
        )
    if read is None:
        return host.read_columns(
            values,
            unit=unit,
            floor=floor,
            self_index=self_index,
            request=request,
            counted=counted,
        )
    histograms = in_threads(read, width, step=_TARGETS)
    floors = np.broadcast_to(floor, values.shape).T
    if matrices.serves(by_example, floors):
        example, target = matrices.beyond(by_example, floors)
        return _result(answers, target, example, histograms)

    def beyond(rows: slice) -> tuple[Int[np.ndarray, ' C'], Int[np.ndarray, ' C']]:
        example, target = np.nonzero(np.abs(by_example[rows]) > floors[rows])
        return target, example + rows.start

    found = in_threads(beyond, len(by_example), step=max(1, _COMPARED // width))
    target, example = (np.concatenate(part) for part in zip(*found, strict=True))
    return _result(answers, target, example, histograms)


def _result(
    answers: kernel.Answers,
    target: Int[np.ndarray, ' C'],
    example: Int[np.ndarray, ' C'],
    histograms: Sequence[Int[np.ndarray, ' E']],
) -> SummaryResult:
    return SummaryResult(
        answers.top,
        answers.bottom,
        answers.moments,
        answers.ranked,
        target,
        example,
        np.sum(histograms, axis=0),
    )
