"""What a run keeps besides its results: what reports show of its examples."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

LONGEST_SIDE = 64
"""Pixels of a side of an image that is kept."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Shown:
    """What a report shows of the N examples of a run.

    names: what a person would call each example.
    labels: class or kind of each; '' where it has none, as by default.
    groups: the same number for examples that are near-duplicates of each other; None if unknown.
    changes: how each differs from the example of which it is a near-duplicate; '' for originals.
    texts: records as text.
    prompts, completions: what a language model is given of each record, and what should follow.
    images: uint8 `[N H W C]`, C being 1 or 3: further channels are dropped, and sides longer than
        64 pixels reduced.
    columns, rows: names of columns, and a text for each of them of every example: a table.
    class_names: all classes, also those of no example.
    provenance: where the examples come from.
    notes: what was changed of the examples as they were read, a sentence each.

    Raises ValueError where a field is not of this kind or not of N entries.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...] = ()
    groups: Int[np.ndarray, ' N'] | None = None
    changes: tuple[str, ...] = ()
    texts: tuple[str, ...] | None = None
    prompts: tuple[str, ...] | None = None
    completions: tuple[str, ...] | None = None
    images: UInt8[np.ndarray, 'N H W C'] | None = None
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] | None = None
    class_names: tuple[str, ...] = ()
    provenance: str = ''
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count, none = len(self.names), ('',) * len(self.names)
        checked: dict[str, Any] = {
            'names': _texts('names', self.names, count),
            'labels': _texts('labels', self.labels or none, count),
            'changes': _texts('changes', self.changes or none, count),
            'columns': _texts('columns', self.columns),
            'class_names': _texts('class_names', self.class_names),
            'notes': _texts('notes', self.notes),
        }
        for name in ('texts', 'prompts', 'completions'):
            if (values := getattr(self, name)) is not None:
                checked[name] = _texts(name, values, count)
        if not isinstance(self.provenance, str):
            raise ValueError(f'provenance must be text, not {type(self.provenance).__name__}')
        if self.rows is not None:
            if len(self.rows) != count:
                raise ValueError(f'{len(self.rows)} rows for {count} examples; give one for each')
            width = len(self.columns)
            checked['rows'] = tuple(_texts('a row', row, width) for row in self.rows)
        if self.groups is not None:
            checked['groups'] = _groups(self.groups, count)
        if self.images is not None:
            checked['images'] = _images(self.images, count)
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def _images(images: Any, count: int) -> UInt8[np.ndarray, 'N H W C']:
    """Returns images as they are kept: grey or RGB, and small."""
    images = np.asarray(images)
    if images.ndim != 4 or images.dtype != np.uint8 or 0 in images.shape:
        raise ValueError(f'images must be uint8 [N H W C], not {images.dtype}{list(images.shape)}')
    if len(images) != count:
        raise ValueError(f'{len(images)} images for {count} examples; give one for each')
    images = images[..., :3] if images.shape[-1] >= 3 else images[..., :1]
    height, width = images.shape[1:3]
    if max(height, width) <= LONGEST_SIDE:
        return images
    scale = LONGEST_SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    reduced = [
        np.asarray(
            Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).resize(size)
        )
        for image in images
    ]
    return np.stack(reduced).reshape(count, size[1], size[0], images.shape[-1])


def _groups(groups: Any, count: int) -> Int[np.ndarray, ' N']:
    groups = np.asarray(groups)
    if groups.shape != (count,) or not np.issubdtype(groups.dtype, np.integer):
        raise ValueError(
            f'groups must be {count} whole numbers, not {groups.dtype}{list(groups.shape)}'
        )
    if np.abs(groups.astype(np.int64)).max(initial=0) >= 2**31:
        raise ValueError('groups must be numbers of 32 bits')
    return groups.astype(np.int32)


def _texts(name: str, values: Any, count: int | None = None) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(text, str) for text in values):
        raise ValueError(f'{name} must be a sequence of text')
    if count is not None and len(values) != count:
        raise ValueError(f'{len(values)} {name}, expected {count}')
    return tuple(values)
