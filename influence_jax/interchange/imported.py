"""What an import gives: masks, measurements and names, ready to be estimated from."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax import tensors
from influence_jax.interchange.arrays import read_matrix
from influence_jax.interchange.masks import as_masks
from influence_jax.report.run import ArrayRun
from influence_jax.text import quoted


@dataclasses.dataclass(frozen=True, eq=False)
class Imported:
    """Masks and measurements of models that somebody else trained.

    Attributes:
        masks: `[M N]`; row m is the subset on which member m was trained.
        measurements: `[M T]` by name; `loss` is there, lower being better.
        unit: of the loss.
        source: what was read, in words.
        ids: names of the N examples; None for their positions.
        target_ids: names of the T targets; a target of the name of an example is that example. By
            default target t is example t if T = N, and else no target is an example.
        member_ids: names of the M members.
    """

    masks: Bool[np.ndarray, 'M N']
    measurements: Mapping[str, Float[np.ndarray, 'M T']]
    unit: str
    source: str
    ids: tensors.Ids | None = None
    target_ids: tensors.Ids | None = None
    member_ids: tensors.Ids | None = None

    def run(self, *, drop_inestimable: bool = False) -> ArrayRun:
        """Returns a run for `report.write`, estimators and membership attacks.

        Raises:
            ValueError: as in `tensors.as_run`.
        """
        made = tensors.as_run(
            self.masks,
            self.measurements['loss'],
            ids=self.ids,
            target_ids=self.target_ids,
            member_ids=self.member_ids,
            drop_inestimable=drop_inestimable,
        )
        others = {name: values for name, values in self.measurements.items() if name != 'loss'}
        return dataclasses.replace(made, measurements={**made.measurements, **others})


def read_ensemble(
    masks: str,
    losses: str = '',
    *,
    logits: str = '',
    labels: str = '',
    examples: int | None = None,
    unit: str = 'nats',
) -> Imported:
    """Reads masks, and losses or logits with labels, from files of any usual kind.

    Where both files name the members, rows are matched by name; names of columns are those of
    examples and of targets.

    Args:
        masks: file or files as in `read_matrix`, in any way that `as_masks` takes.
        losses: `[M T]`, lower being better.
        logits: `[M T C]` instead of losses; gives the measurements `loss` and `logit_gap`.
        labels: `[T]`, with logits.
        examples: N, where masks are lists of positions.
        unit: of the losses.

    Raises:
        OSError, ImportError: a file is not there, or its reader.
        ValueError: not one of losses and logits, or an array that cannot be used.
    """
    if bool(losses) == bool(logits) or bool(logits) != bool(labels):
        raise ValueError('give losses, or logits together with labels')
    subsets, measured = read_matrix(masks), read_matrix(losses or logits)
    values = measured.values
    if isinstance(values, list) or values.dtype.kind not in 'biuf':
        raise ValueError(f'{losses or logits} holds no matrix of numbers')
    values = np.asarray(values, np.float32) if values.dtype.kind != 'f' else values
    if subsets.rows and measured.rows and subsets.rows != measured.rows:
        values = values[_order(measured.rows, subsets.rows, losses or logits, masks)]
    if losses:
        measurements = {'loss': np.asarray(values)}
    else:
        classes = read_matrix(labels).values
        if isinstance(classes, np.ndarray) and classes.shape[1:] == (1,):
            classes = classes[:, 0]  # a table of one column
        expected = values.shape[1:2]
        if isinstance(classes, list) or classes.dtype.kind not in 'iu':
            raise ValueError(f'{labels} must hold integers, the classes of the targets')
        if values.ndim != 3 or classes.shape != expected:
            raise ValueError(
                f'{logits} must hold logits [members targets classes] and {labels} a class of each '
                f'target, not {list(values.shape)} and {list(classes.shape)}'
            )
        loss, gap = measured_of_logits(values, np.broadcast_to(classes, values.shape[:2]))
        measurements = {'loss': loss, 'logit_gap': gap}
    included = as_masks(subsets.values, examples=examples, source=masks)
    # The columns of a table of positions are no examples.
    named = subsets.columns is not None and len(subsets.columns) == included.shape[1]
    return Imported(
        included,
        measurements,
        unit,
        f'{masks} and {losses or logits}',
        subsets.columns if named else None,
        measured.columns,
        subsets.rows or measured.rows,
    )


def _order(found: Sequence[str], wanted: Sequence[str], source: str, other: str) -> list[int]:
    places = {name: place for place, name in enumerate(found)}
    lacking = [name for name in wanted if name not in places]
    if lacking or not len(places) == len(found) == len(wanted):
        raise ValueError(
            f'{source} and {other} name other members, such as '
            f'{quoted(lacking[0] if lacking else found[-1])}: give both of the same ones'
        )
    return [places[name] for name in wanted]


def measured_of_logits(
    logits: Float[np.ndarray, '... C'], labels: Int[np.ndarray, '...']
) -> tuple[Float[np.ndarray, '...'], Float[np.ndarray, '...']]:
    """Returns the cross-entropy in nats and the logit gap log p - log(1 - p) of the labels.

    Args:
        logits: of C classes.
        labels: 0 to C - 1.

    Raises:
        ValueError: a label is no class.
    """
    classes = logits.shape[-1]
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        wrong = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(f'label {wrong} is none of the {classes} classes of the logits')
    logits = np.asarray(logits, np.float64)
    is_label = np.arange(classes) == labels[..., None]
    own = np.where(is_label, logits, 0).sum(axis=-1)
    others = _log_sum_exp(np.where(is_label, -np.inf, logits))
    gap = own - others
    return np.logaddexp(0, -gap).astype(np.float32), gap.astype(np.float32)


def _log_sum_exp(values: Float[np.ndarray, '... C']) -> Float[np.ndarray, '...']:
    largest = values.max(axis=-1, keepdims=True)
    largest = np.where(np.isfinite(largest), largest, 0)
    with np.errstate(divide='ignore'):
        return np.log(np.exp(values - largest).sum(axis=-1)) + largest[..., 0]
