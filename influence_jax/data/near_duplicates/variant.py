"""What a change is given and what it gives back."""

from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8


class Passage(NamedTuple):
    """The part of a record that a change may touch.

    text: for example ' Bobby Scott'; the space that joins it to its prompt belongs to it.
    name: what sentences call it, 'answer' or 'text'.
    """

    text: str
    name: str


class TextVariant(NamedTuple):
    """A near-duplicate of a passage.

    text: the whole changed passage.
    change: a sentence that says what was changed. Positions in it count from 1.
    """

    text: str
    change: str


class ImageVariant(NamedTuple):
    """A near-duplicate of an image.

    image: of the original's shape.
    change: a sentence that says what was changed.
    """

    image: UInt8[np.ndarray, 'H W C']
    change: str
