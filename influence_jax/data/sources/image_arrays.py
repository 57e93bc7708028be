"""Arrays as people save them -> uint8 images `[N H W C]` and labels: where the meaning is certain.

Every change is named in a note; what could mean several things is refused.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Shaped, UInt8

from influence_jax.text import quoted

_CHANNELS = (1, 3, 4)
"""Gray, RGB, RGBA: numbers by which the axis of the channels is known."""
_AT_ONCE = 2**22
_HOW = 'save images as uint8 [N H W C], from 0 to 255'


class Images(NamedTuple):
    """Images, and how they differ from what was given ('' where they do not)."""

    pixels: UInt8[np.ndarray, 'N H W C']
    note: str


class Labels(NamedTuple):
    """Labels and what the classes are called.

    numbers: `[N]` from 0.
    class_names: where the labels themselves hold them; else empty.
    note: what was changed.
    """

    numbers: Int32[np.ndarray, ' N']
    class_names: tuple[str, ...]
    note: str


def to_images(found: Shaped[np.ndarray, '...']) -> Images:
    """Converts images to uint8 `[N H W C]`.

    Accepted are: channels last or first (`[N 3 32 32]`), gray images with or without an axis for
    the channel, pixel values from 0 to 255 of any integer or float type, floats from 0 to 1, and
    bool.

    Raises:
      ValueError: the shape or the values could mean several things, or nothing.
    """
    if 0 in found.shape:
        raise ValueError(f'there are no images or no pixels: images have shape {found.shape}')
    placed, place = _channels_last(found)
    pixels, scale = _as_bytes(placed)
    changes = '; '.join(filter(None, (place, scale)))
    return Images(pixels, f'Images: {changes}.' if changes else '')


def _channels_last(found: np.ndarray) -> tuple[np.ndarray, str]:
    shape = found.shape
    if found.ndim == 3 and shape[-1] not in _CHANNELS:
        return found[..., None], f'{_axes(shape)} taken as gray, [N H W]'
    if found.ndim != 4:
        raise ValueError(f'images must have the shape [N H W C], found {shape}; {_HOW}')
    if set(shape[1:]) == {1}:  # either way the same
        return found, ''
    square_last, square_first = shape[1] == shape[2], shape[2] == shape[3]
    last, first = shape[3] in _CHANNELS, shape[1] in _CHANNELS
    if last == first:  # both could be channels, or neither: a square image decides
        last, first = square_last, square_first
    if last == first:
        raise ValueError(
            f'images of shape {shape} may have their channels first or last, or have none; {_HOW}'
        )
    if last:
        return found, ''
    return np.moveaxis(found, 1, -1), f'{_axes(shape)} taken as channels first, [N C H W]'


def _as_bytes(found: np.ndarray) -> tuple[np.ndarray, str]:
    if found.dtype == np.uint8:
        return found, ''
    if found.dtype == np.bool_:
        return found.astype(np.uint8) * np.uint8(255), 'bool taken as 0 and 255'
    if found.dtype.kind not in 'iuf':
        raise ValueError(f'images must be uint8 from 0 to 255, found {found.dtype}')
    if found.dtype.kind == 'f' and not all(np.isfinite(part).all() for part in _parts(found)):
        raise ValueError('images hold values that are not finite (NaN or infinite)')
    least, most = found.min(), found.max()
    whole = found.dtype.kind != 'f' or all((part == np.rint(part)).all() for part in _parts(found))
    if least >= 0 and most <= 1 and found.dtype.kind == 'f':
        return _scaled(found), f'{found.dtype} from 0 to 1 multiplied by 255 and rounded'
    if least >= 0 and most <= 255 and whole:
        return found.astype(
            np.uint8
        ), f'whole numbers of {found.dtype} from 0 to 255 taken as uint8'
    raise ValueError(
        f'images must be from 0 to 255 (whole numbers) or from 0 to 1, found {found.dtype} from '
        f'{least:.6g} to {most:.6g}; {_HOW}'
    )


def _scaled(found: np.ndarray) -> np.ndarray:
    pixels = np.empty(found.shape, np.uint8)
    for taken, made in zip(_parts(found), _parts(pixels), strict=True):
        made[...] = np.rint(taken.astype(np.float64) * 255)
    return pixels


def _parts(found: np.ndarray) -> list[np.ndarray]:
    """Some images at a time, so that what is computed of them is small."""
    images = max(1, _AT_ONCE // max(1, found[0].size))
    return [found[start : start + images] for start in range(0, len(found), images)]


def _axes(shape: tuple[int, ...]) -> str:
    return f'[{" ".join(map(str, shape))}]'


def to_labels(found: Shaped[np.ndarray, '...'], class_names: tuple[str, ...] = ()) -> Labels:
    """Converts labels to numbers from 0.

    Accepted are: integers `[N]` or `[N 1]`, one-hot rows `[N K]`, bool, and texts, which are
    numbered by `class_names` or else in their alphabetical order.

    Raises:
      ValueError: they are something else, out of range, or texts that are no class's name.
    """
    vector, note = found, ''
    if found.ndim == 2 and found.shape[1] == 1:
        vector, note = found[:, 0], f'{_axes(found.shape)} taken as [N]'
    elif found.ndim == 2 and found.dtype.kind in 'biuf' and found.size and _is_one_hot(found):
        classes = found.shape[1]
        numbers = found.argmax(axis=1).astype(np.int32)
        names = () if class_names else tuple(map(str, range(classes)))
        return Labels(numbers, names, f'Labels: {_axes(found.shape)} taken as one-hot.')
    if vector.ndim != 1 or not vector.size or vector.dtype.kind not in 'biuSU':
        raise ValueError(
            'labels must be a vector of integers or texts, one an image, or one-hot rows; '
            f'found {found.dtype} of shape {found.shape}'
        )
    if vector.dtype.kind == 'b':
        names = () if class_names else ('False', 'True')
        return Labels(vector.astype(np.int32), names, 'Labels: bool taken as 0 and 1.')
    if vector.dtype.kind in 'SU':
        return _named(vector, class_names)
    # Before narrowing, which would wrap a huge label to a valid one.
    if vector.min() < 0 or vector.max() > np.iinfo(np.int32).max:
        raise ValueError(
            f'labels run from {vector.min()} to {vector.max()}, but must be 0 or more and '
            'less than the number of classes'
        )
    return Labels(vector.astype(np.int32), (), f'Labels: {note}.' if note else '')


def _is_one_hot(found: np.ndarray) -> bool:
    return bool(((found == 0) | (found == 1)).all() and (found.sum(axis=1) == 1).all())


def _named(vector: np.ndarray, class_names: tuple[str, ...]) -> Labels:
    texts = to_texts('labels', vector)
    names = class_names or tuple(sorted(set(texts)))
    numbers = {name: number for number, name in enumerate(names)}
    unknown = sorted(set(texts) - numbers.keys())
    if unknown:
        raise ValueError(f'the label {quoted(unknown[0])} is none of the {len(names)} class_names')
    how = 'as in class_names' if class_names else 'in alphabetical order'
    return Labels(
        np.array([numbers[text] for text in texts], np.int32),
        () if class_names else names,
        f'Labels: texts numbered {how}, {len(names)} classes.',
    )


def to_texts(what: str, found: Shaped[np.ndarray, '...']) -> tuple[str, ...]:
    """Converts a vector of text, or of bytes in UTF-8; ValueError for anything else."""
    if found.dtype.kind not in 'SU' or found.ndim != 1:
        raise ValueError(
            f'{what} must be a vector of text, found {found.dtype} of shape {found.shape}'
        )
    try:
        listed = found.tolist()
        return tuple(text.decode() if isinstance(text, bytes) else text for text in listed)
    except ValueError as error:  # code points that do not exist, bytes that are no UTF-8
        raise ValueError(f'{what} holds characters that are no text; save it again') from error
