"""The sections on planted near-duplicates: those of a run on images, and what all runs share."""

import numpy as np
from jaxtyping import Int

from influence_jax.analysis.near_duplicate_comparison import Comparison
from influence_jax.report.comparison_tables import comparison_table, told_table
from influence_jax.report.figure_style import UNIT
from influence_jax.report.sections import Section
from influence_jax.report.wording import count


def image_sections(
    comparison: Comparison, groups: Int[np.ndarray, ' T'], *, unit: str = UNIT
) -> tuple[Section, ...]:
    """What `report.write` adds to the page of images among which near-duplicates were planted.

    Args:
      comparison: from `near_duplicate_comparison.compare`.
      groups: `[T]` the same number for an original and its variants.
      unit: of influences.
    """
    duplicated = comparison.near_duplicated
    clusters = len(np.unique(groups[duplicated]))
    return (
        Section(
            'Unique and near-duplicated images',
            f'{count(int((~duplicated).sum()), "image")} written once and '
            f'{int(duplicated.sum()):,} in {count(clusters, "cluster")}, each an original and its '
            'changed variants. Where those of a cluster stand in for one another, self-influence '
            'is low, as models know the image without this version of it; a low margin shows why.',
            [comparison_table(comparison, beside_paper=False, unit=unit)],
        ),
        told(comparison),
    )


def told(comparison: Comparison) -> Section:
    """Which scores tell targets that have near-duplicates, and how well."""
    return Section(
        'Which score tells them',
        'AUROC of each score by itself: the probability that a record of the kind sought is '
        'ranked before another, 0.5 for chance; below it the opposite of what is said marks them. '
        f'Intervals of {comparison.level:.0%} are by bootstrap over clusters.',
        [told_table(comparison)],
    )
