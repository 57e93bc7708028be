"""Folders of the reference code of LiRA (Carlini et al. 2022, arXiv 2112.03570).

    FOLDER/y_train.npy                              labels [N]
    FOLDER/experiment-3_16/keep.npy                 bool [N], the subset of member 3
    FOLDER/experiment-3_16/logits/0000000100.npy    [N 1 A C] after epoch 100, A augmentations
    FOLDER/experiment-3_16/scores/0000000100.npy    [N A] log p - log(1 - p) of the label

as `train.py`, `inference.py` and `score.py` of tensorflow/privacy, research/mi_lira_2021, write
them.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from influence_jax.data.sources import array_files
from influence_jax.interchange.imported import Imported, measured_of_logits
from influence_jax.interchange.masks import as_masks
from influence_jax.text import quoted

_LABELS = 'y_train.npy'
_KEEP = 'keep.npy'
_EPOCH = re.compile(r'(\d+)\.npy')
_NAMED = 3


def read_lira(
    folder: str | Path, *, epoch: int | None = None, keep_augmentations: bool = False
) -> Imported:
    """Reads members, subsets and measurements of a LiRA folder.

    Losses are cross-entropies in nats, `logit_gap` the scores; both are means over augmentations.
    Scores alone say the loss, too: log(1 + exp(-score)). Files of logits are preferred, since
    scores have a probability of 1 rounded off.

    Args:
        folder: of the experiments.
        epoch: whose files are read; by default the last that all members have.
        keep_augmentations: also measurements `loss_augmentation_0` and so on, and
            `logit_gap_augmentation_0`.

    Raises:
        FileNotFoundError: there is no such folder, or no experiment in it.
        ValueError: files of a member lack, or do not fit those of the others.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f'{folder}: no such folder')
    members = sorted((one for one in folder.iterdir() if (one / _KEEP).is_file()), key=_order)
    if not members:
        raise FileNotFoundError(
            f'{folder} holds no experiments: a LiRA folder has experiment-*/{_KEEP}'
        )
    kind = _kind(folder, members)
    epoch = _epoch(members, kind, epoch)
    keep = [array_files.array(one / _KEEP, remedy='keep.astype(bool)') for one in members]
    _same_shape(keep, [one / _KEEP for one in members])
    if keep[0].ndim != 1:
        raise ValueError(f'{members[0] / _KEEP} must hold a vector, not {list(keep[0].shape)}')
    masks = as_masks(np.stack(keep), source=f'{folder}/*/{_KEEP}')
    labels = None
    if kind == 'logits':
        labels = np.asarray(array_files.array(folder / _LABELS, remedy='labels.astype(int)'))
        if labels.ndim != 1 or labels.dtype.kind not in 'iu' or len(labels) < masks.shape[1]:
            raise ValueError(
                f'{folder / _LABELS} must hold a label of each of {masks.shape[1]:,} examples, '
                f'not {labels.dtype} {list(labels.shape)}'
            )
        labels = labels[: masks.shape[1]]
    measured = [_member(one, kind, epoch, masks.shape[1], labels) for one in members]
    _same_shape([loss for loss, _ in measured], [one / kind for one in members])
    losses, gaps = (np.stack(parts) for parts in zip(*measured, strict=True))  # [M N A]
    measurements = {'loss': losses.mean(axis=2), 'logit_gap': gaps.mean(axis=2)}
    if keep_augmentations:
        for number in range(losses.shape[2]):
            measurements[f'loss_augmentation_{number}'] = losses[:, :, number]
            measurements[f'logit_gap_augmentation_{number}'] = gaps[:, :, number]
    return Imported(
        masks,
        measurements,
        'nats',
        f'{len(members)} LiRA models of {folder.name}, {kind} of epoch {epoch}, '
        f'{losses.shape[2]} augmentations',
        member_ids=[one.name for one in members],
    )


def _order(member: Path) -> tuple[Sequence[int], str]:
    """By the numbers in the name: experiment-10 comes after experiment-9."""
    return [int(number) for number in re.findall(r'\d+', member.name)], member.name


def _kind(folder: Path, members: Sequence[Path]) -> str:
    kinds = ['logits', 'scores'] if (folder / _LABELS).exists() else ['scores', 'logits']
    lacking = {}
    for kind in kinds:
        lacking[kind] = [one.name for one in members if not _epochs(one / kind)]
        if not lacking[kind]:
            return kind
    fewest = min(lacking, key=lambda kind: len(lacking[kind]))
    names = ', '.join(map(quoted, lacking[fewest][:_NAMED]))
    raise ValueError(
        f'{len(lacking[fewest])} of {len(members)} experiments have no {fewest}/*.npy, such as '
        f'{names}: compute them, or remove these experiments'
    )


def _epochs(folder: Path) -> set[int]:
    if not folder.is_dir():
        return set()
    return {int(match[1]) for one in folder.iterdir() if (match := _EPOCH.fullmatch(one.name))}


def _epoch(members: Sequence[Path], kind: str, wanted: int | None) -> int:
    common = set.intersection(*(_epochs(one / kind) for one in members))
    if wanted is None and common:
        return max(common)
    if wanted in common:
        assert wanted is not None
        return wanted
    asked = 'an epoch' if wanted is None else f'epoch {wanted}'
    there = ', '.join(map(str, sorted(common))) or 'none'
    raise ValueError(f'not all experiments have {kind} of {asked}; of all there are: {there}')


def _member(
    member: Path, kind: str, epoch: int, examples: int, labels: Int[np.ndarray, ' N'] | None
) -> tuple[Float[np.ndarray, 'N A'], Float[np.ndarray, 'N A']]:
    """Losses and logit gaps of all examples and augmentations."""
    (path,) = (one for one in (member / kind).iterdir() if _is_of(one.name, epoch))
    values = np.asarray(array_files.array(path, remedy=f'{kind}.astype(numpy.float32)'))
    if values.dtype.kind != 'f' or not values.ndim or len(values) != examples:
        raise ValueError(
            f'{path} must hold floating numbers of {examples:,} examples, not {values.dtype} '
            f'{list(values.shape)}'
        )
    if kind == 'scores':
        if values.ndim == 1:
            values = values[:, None]
        if values.ndim != 2:
            raise ValueError(f'{path} must hold scores [N A], not {list(values.shape)}')
        gaps = values.astype(np.float64)
        return np.logaddexp(0, -gaps).astype(np.float32), gaps.astype(np.float32)
    if values.ndim not in (2, 3, 4):
        raise ValueError(f'{path} must hold logits [N 1 A C], not {list(values.shape)}')
    values = values.reshape(len(values), -1, values.shape[-1])
    assert labels is not None
    return measured_of_logits(values, np.broadcast_to(labels[:, None], values.shape[:2]))


def _is_of(name: str, epoch: int) -> bool:
    match = _EPOCH.fullmatch(name)
    return match is not None and int(match[1]) == epoch


def _same_shape(arrays: Sequence[np.ndarray], paths: Sequence[Path]) -> None:
    for one, path in zip(arrays, paths, strict=True):
        if one.shape != arrays[0].shape:
            raise ValueError(
                f'{path} is of {list(one.shape)}, and {paths[0]} of {list(arrays[0].shape)}: all '
                f'experiments must be of the same data'
            )
