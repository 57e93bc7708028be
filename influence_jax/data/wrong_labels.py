"""Wrong labels, planted at random, so that what finds them can be judged."""

import dataclasses

import numpy as np

from influence_jax.data.dataset import Dataset


def plant_wrong_labels(dataset: Dataset, share: float, *, seed: int) -> Dataset:
    """Gives some examples, chosen at random, the label of another class.

    Args:
        dataset: with the array `label`, integers `[N]`.
        share: of the examples, rounded to whole ones; those that are marked already are spared.
        seed: 0 or more; the same seed chooses the same examples and labels.

    Returns:
        The dataset with these labels; `mislabelled` marks the examples, those that were marked
        before included. Ids and everything else stay.

    Raises:
        ValueError: a share that leaves no right label or changes none, fewer than 2 classes, or no
            labels.
    """
    labels = np.array(dataset.array('label'))
    if labels.ndim != 1 or labels.dtype.kind not in 'iu':
        raise ValueError(f'labels must be integers [N], not {labels.dtype} {list(labels.shape)}')
    count, classes = round(share * len(dataset)), dataset.num_classes or int(labels.max()) + 1
    if not 0 < share < 1 or not 0 < count < len(dataset):
        raise ValueError(
            f'wrong_labels={share} is {count} of {len(dataset)} examples: give a share above 0 and '
            f'below 1'
        )
    if classes < 2:
        raise ValueError(f'dataset {dataset.name!r} has {classes} class: no other label is there')
    marks = np.zeros(len(dataset), bool) if dataset.mislabelled is None else dataset.mislabelled
    generator = np.random.default_rng([seed, 1])
    wrong = np.sort(generator.permutation(np.flatnonzero(~marks))[:count])
    labels[wrong] = (labels[wrong] + generator.integers(1, classes, len(wrong))) % classes
    marks = marks | np.isin(np.arange(len(dataset)), wrong)
    shown = np.array(dataset.labels, object)
    shown[wrong] = [
        dataset.class_names[k] if dataset.class_names else str(k) for k in labels[wrong]
    ]
    planted = f'{len(wrong)} labels were replaced by wrong ones at random (seed {seed})'
    return dataclasses.replace(
        dataset,
        arrays={**dataset.arrays, 'label': labels},
        labels=tuple(shown),
        mislabelled=marks,
        provenance='; '.join(filter(None, (dataset.provenance, planted))),
        notes=(*dataset.notes, f'{planted}.'),
    )
