"""Members that were trained on the same subset: averaged, since they are one draw of a subset."""

import math

import numpy as np
from jaxtyping import Bool, Float, Int


def average_repeats(
    masks: Bool[np.ndarray, 'M N'], losses: Float[np.ndarray, 'M T']
) -> tuple[Bool[np.ndarray, 'm N'], Float[np.ndarray, 'm T']]:
    """Averages the losses of members with the same mask, in the order of first appearance.

    Repeats lower the noise of training, not that of which examples were drawn: taken for
    independent members they would make the standard errors too small. What counts as a repeat:
    see `numbered_repeats`.
    """
    subset = numbered_repeats(masks)
    _, first = np.unique(subset, return_index=True)
    if len(first) == len(masks):
        return masks, losses
    sums = np.zeros((len(first), losses.shape[1]), np.float64)
    np.add.at(sums, subset, losses)
    means = sums / np.bincount(subset)[:, None]
    return masks[first], means.astype(losses.dtype)


def numbered_repeats(masks: Bool[np.ndarray, 'M N']) -> Int[np.ndarray, ' M']:
    """Numbers the subsets from 0 by first appearance: members of one number repeat one mask.

    With few examples, masks coincide by chance, and are independent then: if that would be no
    surprise, every member has a number of its own.
    """
    _, first, of_member = np.unique(
        np.packbits(masks, axis=1), axis=0, return_index=True, return_inverse=True
    )
    if len(first) == len(masks) or _chance_of_a_coincidence(masks) > 1e-3:
        return np.arange(len(masks))
    place = np.empty(len(first), np.int64)
    place[np.argsort(first)] = np.arange(len(first))
    return place[of_member.ravel()]


def _chance_of_a_coincidence(masks: Bool[np.ndarray, 'M N']) -> float:
    """Expected number of equal pairs, if every example were included independently."""
    # Examples of one group enter together, by one draw.
    drawn = np.unique(np.packbits(masks, axis=0), axis=1, return_index=True)[1]
    rate = masks[:, drawn].mean(axis=0)
    same = np.log(rate**2 + (1 - rate) ** 2).sum()
    return math.comb(len(masks), 2) * math.exp(same)
