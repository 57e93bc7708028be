"""What a reader must know before believing a report."""

import numpy as np

from influence_jax.analysis.margins import self_influence_excess
from influence_jax.analysis.views import Overview
from influence_jax.estimators import LEAST_ON_A_SIDE, RELIABLE
from influence_jax.report.formatting import PLUS_MINUS, count, listing, number
from influence_jax.report.results import Results


def caveats(results: Results) -> tuple[str, ...]:
    """Returns plain sentences, the most serious first."""
    found = [*own_influences(results.overview), *results.notes]
    if len(results.diverged):
        found.append(
            f'{count(len(results.diverged), "member")} left out of every estimate, diverged to a '
            f'loss that is not finite: {listing(results.diverged)}. If there are more than a few, '
            f'lower the learning rate.'
        )
    if results.stopped_early is not None:
        found.append(results.stopped_early)
    elif len(results.missing):
        found.append(
            f'{count(len(results.missing), "member")} not trained yet: '
            f'{listing(results.missing)}. The page shows the members at hand; run the same command '
            f'again to train the missing ones.'
        )
    found.append(_noise(results))
    few = int((results.summary.effective_members < RELIABLE).sum())
    if few:
        found.append(
            f'The self-influence of {count(few, "target")} rests on fewer than {RELIABLE} '
            f'effective members (targets.csv has the number): few members carry it, as with '
            f'near-duplicates of which nearly always one is in the subset, and neither it nor its '
            f'error is to be relied upon. More members help.'
        )
    undefined = ~np.isfinite(results.summary.margin)
    if undefined.any():
        found.append(
            f'{count(int(undefined.sum()), "target")} without a finite margin, because at most one '
            f'influence on them is positive: in targets.csv, but not in the scatter plot.'
        )
    return tuple(found)


def own_influences(overview: Overview) -> tuple[str, ...]:
    """Returns a sentence where self-influence is not what it is wherever members learned."""
    found = self_influence_excess(overview.summary, examples=len(overview.distributions))
    if found is None or found.stands_out:
        return ()
    if not found.targets:
        return (
            'The losses show nothing: on every target that is an example they are the same for all '
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


def _noise(results: Results) -> str:
    summary, pairs = results.summary, results.summary.pairs
    typical = results.off_diagonal_standard_error()
    if np.isnan(typical):
        return (
            'Standard errors are not known, so nothing here can be separated from noise: no '
            'example stands out and no pair is called significant.'
        )
    error = f'{number(typical, 3)} {results.unit}'
    # Pure noise has a median of 0.67 standard errors.
    if results.off_diagonal_z() < 1.0:
        level = (
            f'With {count(summary.members_used, "member")} most entries off the diagonal are '
            f'noise: their median standard error is {error}.'
        )
    else:
        level = f'The median standard error of entries off the diagonal is {error}.'
    above = int(summary.other_stands_out.sum())
    untested = ''
    if pairs.untested_examples:
        untested = (
            f'Of {count(pairs.untested_examples, "example")} in, or out of, fewer than '
            f'{LEAST_ON_A_SIDE} members no influence on others is tested, since it cannot be '
            f'separated from noise. '
        )
    least = '' if pairs.complete else 'at least '
    return (
        f'{level} {above:,} of {count(results.num_targets, "target")} have another example more '
        f'than {number(results.overview.z_threshold, 1)} standard errors above zero (noise alone '
        f'would give about one); fainter influences are grayed below. {untested}Of {pairs.tests:,} '
        f'pairs of an example and another target {least}{len(pairs.examples):,} are significant '
        f'({pairs.level:.0%} of them false on average). '
        f"Values of what is shown because it is large are exaggerated (the winner's curse): the "
        f'cross-fitted ones beside them are not. '
        f'Errors shrink with the square root of the number of members.'
    )
