"""What a reader must know before believing the page."""

import numpy as np

from influence_jax.analysis.margins import self_influence_excess
from influence_jax.analysis.views import Overview
from influence_jax.estimators import LEAST_ON_A_SIDE, RELIABLE
from influence_jax.report.content import Content
from influence_jax.report.wording import PLUS_MINUS, count, listing, number


def cautions(content: Content) -> tuple[str, ...]:
    """Plain sentences, the most serious first."""
    found = [*own_influences(content.overview), *content.notes]
    if len(content.diverged):
        found.append(
            f'{count(len(content.diverged), "member")} left out of every estimate, diverged to a '
            f'loss that is not finite: {listing(content.diverged)}. If there are more than a few, '
            f'lower the learning rate.'
        )
    if content.stopped_early is not None:
        found.append(content.stopped_early)
    elif len(content.missing):
        found.append(
            f'{count(len(content.missing), "member")} not trained yet: '
            f'{listing(content.missing)}. The page shows the members at hand; run the same command '
            f'again to train the missing ones.'
        )
    found.append(_noise(content))
    few = int((content.overview.summary.effective_members < RELIABLE).sum())
    if few:
        found.append(
            f'The self-influence of {count(few, "target")} rests on fewer than {RELIABLE} '
            f'effective members (targets.csv has the number): few members carry it, as with '
            f'near-duplicates of which nearly always one is in the subset, and neither it nor its '
            f'error is to be relied upon. More members help.'
        )
    undefined = ~np.isfinite(content.overview.summary.margin)
    if undefined.any():
        found.append(
            f'{count(int(undefined.sum()), "target")} without a finite margin, because at most one '
            f'influence on them is positive: in targets.csv, but not in the scatter plot.'
        )
    return tuple(found)


def own_influences(overview: Overview) -> tuple[str, ...]:
    """A sentence where own influences are not what they are wherever members learned."""
    found = self_influence_excess(overview.summary, examples=len(overview.distributions))
    if found is None or found.stands_out:
        return ()
    if not found.targets:
        return (
            'The losses tell nothing: on every target that is an example they are the same for all '
            'members. Were members trained, and their own losses written?',
        )
    what = (
        f'on average {number(found.above)} standard deviations of their columns above those of '
        f'other examples, over {count(found.targets, "target")}; by chance '
        f'0 {PLUS_MINUS} {number(found.standard_error)}'
    )
    if found.is_reversed:
        return (
            f'Own influences lie below others, where they should be the largest: {what}. Either '
            f'the masks are inverted (True must mean trained on), or what was measured is better '
            f'the larger it is, as correctness or a probability is: negate it.',
        )
    return (
        f'No own influence stands out: {what}. Either members learned nothing that they keep of '
        f'single examples, or there are too few of them to see it, or members or targets are in '
        f'another order in the losses than in the masks.',
    )


def _noise(content: Content) -> str:
    overview, summary = content.overview, content.overview.summary
    error = f'{number(content.off_diagonal_standard_error(), 3)} {content.unit}'
    # Pure noise has a median of 0.67 standard errors.
    if content.off_diagonal_z() < 1.0:
        level = (
            f'With {count(summary.members_used, "member")} most entries off the diagonal are '
            f'noise: their median standard error is {error}.'
        )
    else:
        level = f'The median standard error of entries off the diagonal is {error}.'
    above = int(summary.other_stands_out.sum())
    pairs = summary.pairs
    untested = ''
    if pairs.untested_examples:
        untested = (
            f'Of {count(pairs.untested_examples, "example")} in, or out of, fewer than '
            f'{LEAST_ON_A_SIDE} members no influence on others is tested, since it cannot be told '
            f'from noise. '
        )
    least = '' if pairs.complete else 'at least '
    return (
        f'{level} {above:,} of {count(content.num_targets, "target")} have another example more '
        f'than {number(overview.z_threshold, 1)} standard errors above zero (noise alone would '
        f'give about one); fainter influences are greyed below. {untested}Of {pairs.tests:,} pairs '
        f'of an example and another target {least}{len(pairs.examples):,} are significant '
        f'({pairs.level:.0%} of them false on average). '
        f"Values of what is shown because it is large are exaggerated (the winner's curse): the "
        f'cross-fitted ones beside them are not. '
        f'Errors shrink with the square root of the number of members.'
    )
