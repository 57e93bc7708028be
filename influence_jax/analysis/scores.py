"""Scores of targets, how to read them, and what the paper found of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from influence_jax.estimators.summary import Summary


class Published(NamedTuple):
    """Mean and standard deviation over the targets of a kind, as printed in the paper."""

    mean: float
    standard_deviation: float


class PaperRow(NamedTuple):
    """A row of the paper's table, of 1,000 unique records and 100 in 5 versions each.

    digits: how many it prints behind the point.
    """

    unique: Published
    near_duplicated: Published
    digits: int


PAPER_SOURCE = 'arXiv 2506.20481: GPT-Neo 1.3B on Natural Questions, 1,000 models'
PAPER_SELF_INFLUENCE = PaperRow(Published(1.410, 0.568), Published(0.495, 0.133), 3)
PAPER_BLEU = PaperRow(Published(0.070, 0.142), Published(0.363, 0.313), 3)
PAPER_MARGIN = PaperRow(Published(9.1, 7.1), Published(1.3, 0.3), 1)


class Score(NamedTuple):
    """One number a target, and how to read it.

    name: for people.
    values: `[T]`; NaN where it is not defined, infinite where a ratio is.
    low_marks: whether it is the low values that are said to mark near-duplicates.
    paper: what the paper found, where it has the same score.
    """

    name: str
    values: Float[np.ndarray, ' T']
    low_marks: bool
    paper: PaperRow | None = None


def influence_scores(summary: Summary, *, examples: int) -> tuple[Score, ...]:
    """What can be read of each target from the influence matrix alone; self-influence first.

    'Sum of all others' is the sum of a target's column without its own entry: the noise of
    all entries is in it too.

    Args:
      summary: of the influence matrix.
      examples: N, its rows.
    """
    others = examples * summary.mean - np.nan_to_num(summary.self_influence)
    return (
        Score('self-influence', summary.self_influence, low_marks=True, paper=PAPER_SELF_INFLUENCE),
        Score('margin', summary.margin, low_marks=True, paper=PAPER_MARGIN),
        Score('floored margin', summary.floored_margin, low_marks=True),
        Score('z margin', summary.z_margin, low_marks=True),
        Score('strongest other', summary.other_value, low_marks=False),
        Score('sum of all others', others, low_marks=False),
    )


def check(scores: Sequence[Score], targets: int) -> None:
    """Refuses scores that are not one number for each target.

    Raises:
      ValueError: naming the first such score.
    """
    for score in scores:
        if np.shape(score.values) != (targets,):
            raise ValueError(
                f'{score.name!r} has the shape {list(np.shape(score.values))}: '
                f'give one number for each of the {targets} targets'
            )
