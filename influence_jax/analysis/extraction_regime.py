"""Whether records are extractable from a run as from the paper's models: those written repeatedly.

How long models train decides it: at first nothing is extracted, then near-duplicated records, at
last unique ones as well. Only between is extraction what the paper (arXiv 2506.20481) says of it.
"""

import enum
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from influence_jax.analysis.extraction import ByMembership, Extraction


class Regime(enum.Enum):
    """Where in the course of training a run is."""

    BEFORE = 'before that of the paper: nothing is given back yet'
    PAPER = "the paper's: near-duplicated records are given back, unique ones are not"
    BEYOND = 'beyond that of the paper: unique records are given back as well'


class MeanBleu(NamedTuple):
    """Mean BLEU of the two kinds of records, by one kind of models."""

    unique: float
    near_duplicated: float


class Judgment(NamedTuple):
    """The regime of a run, and what it follows from.

    by_full_data_model: of one model trained on all records, as in the paper.
    by_holders: of the members that held each record; None where members decoded nothing.
    """

    regime: Regime
    by_full_data_model: MeanBleu
    by_holders: MeanBleu | None


LEAST_BLEU = 0.05
"""Mean BLEU from which on a kind of records counts as extracted."""

LEAST_RATIO = 2.0
"""Of near-duplicated over unique mean BLEU in the paper's regime; the paper's own is 5.2."""


def judge(
    extraction: Extraction,
    near_duplicated: Bool[np.ndarray, ' T'],
    members: ByMembership | None = None,
) -> Judgment | None:
    """Tells the regime of a run from the BLEU of its two kinds of records.

    Beyond the paper's are runs in which unique records are extracted, from the model trained on all
    records more than half as well as near-duplicated ones, or by the members that held them at
    least as well.

    Args:
      extraction: `[T]` of a model trained on all records.
      near_duplicated: `[T]` which records have near-duplicates.
      members: BLEU of what members decoded, see `extraction.by_membership`; None without.

    Returns:
      None where one of the kinds is missing.
    """
    if near_duplicated.all() or not near_duplicated.any():
        return None

    def means(bleu: Float[np.ndarray, ' T']) -> MeanBleu:
        known = np.isfinite(bleu)
        of = (bleu[known & ~near_duplicated], bleu[known & near_duplicated])
        return MeanBleu(*(float(some.mean()) if some.size else float('nan') for some in of))

    full, held = means(extraction.bleu), means(members.held.mean) if members else None
    unique_too = full.unique >= LEAST_BLEU and full.near_duplicated < LEAST_RATIO * full.unique
    unique_held = (
        held is not None and held.unique >= LEAST_BLEU and held.near_duplicated <= held.unique
    )
    if unique_too or unique_held:
        regime = Regime.BEYOND
    elif full.near_duplicated < LEAST_BLEU:
        regime = Regime.BEFORE
    else:
        regime = Regime.PAPER
    return Judgment(regime, full, held)
