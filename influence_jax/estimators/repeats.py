"""Members that were trained on the same subset: averaged, since they are one draw of a subset."""

import math

import numpy as np
from jaxtyping import Bool, Float


def average_repeats(
    masks: Bool[np.ndarray, 'M N'], losses: Float[np.ndarray, 'M T']
) -> tuple[Bool[np.ndarray, 'm N'], Float[np.ndarray, 'm T']]:
    """Averages the losses of members with the same mask, in the order of first appearance.

    Repeats lower the noise of training, not that of which examples were drawn: taken for
    independent members they would make the standard errors too small. With few examples, masks
    coincide by chance, and are independent then: if that would be no surprise, nothing is averaged.
    """
    _, first, of_member = np.unique(
        np.packbits(masks, axis=1), axis=0, return_index=True, return_inverse=True
    )
    if len(first) == len(masks) or _chance_of_a_coincidence(masks) > 1e-3:
        return masks, losses
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    sums = np.zeros((len(first), losses.shape[1]), np.float64)
    members = place[of_member.ravel()]
    np.add.at(sums, members, losses)
    means = sums / np.bincount(members)[:, None]
    return masks[first[order]], means.astype(losses.dtype)


def _chance_of_a_coincidence(masks: Bool[np.ndarray, 'M N']) -> float:
    """Expected number of equal pairs, if every example were included independently."""
    # Examples of one group enter together, by one draw.
    drawn = np.unique(np.packbits(masks, axis=0), axis=1, return_index=True)[1]
    rate = masks[:, drawn].mean(axis=0)
    same = np.log(rate**2 + (1 - rate) ** 2).sum()
    return math.comb(len(masks), 2) * math.exp(same)
