"""What a report says of a run in words: the table of facts at its end, the caveats at its head."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.analysis import auroc
from influence_jax.analysis.extraction_regime import Judgment, MeanBleu, Regime
from influence_jax.analysis.margins import self_influence_excess
from influence_jax.analysis.views import Overview
from influence_jax.estimators import LEAST_ON_A_SIDE, RELIABLE
from influence_jax.estimators.ensemble import numbered_repeats
from influence_jax.formatting import PLUS_MINUS, count, listing, number
from influence_jax.report.results import Reference, Results
from influence_jax.report.run import ReportedRun, measurement_names
from influence_jax.store import Shown


class Precision(NamedTuple):
    """How precise a run was found that may stop before all members are trained.

    text: the standard error, and how many members it took.
    enough: whether it is as small as wanted, so that no more members are needed.
    """

    text: str
    enough: bool


def precision_of(run: ReportedRun) -> Precision | None:
    """Returns what training kept of it; None where members were not to stop early."""
    kept = run.notes.get('precision')
    if not isinstance(kept, Mapping):
        return None
    return Precision(str(kept.get('text', '')), kept.get('enough') is True)


def table(
    run: ReportedRun,
    overview: Overview,
    shown: Shown,
    *,
    used: int,
    noun: str,
    near_duplicates: Bool[np.ndarray, ' T'] | None,
    source: str,
    regime: Judgment | None,
    more: Mapping[str, str],
) -> dict[str, str]:
    """Returns the table of facts: the run's size, what came of it, and how to repeat it.

    Args:
      run: the run.
      overview: what was estimated of it.
      shown: what is known of its examples.
      used: how many members the estimate is of.
      noun: what an example is called.
      near_duplicates: `[T]` targets known to have a near-duplicate; None where that is not known.
      source: how it is known.
      regime: of extraction, of a run on texts.
      more: rows before those on how to repeat the run.
    """
    precision, classes = precision_of(run), len(shown.class_names or set(shown.labels) - {''})
    return {
        **_size(
            run,
            overview.target_examples,
            noun,
            used=used,
            classes=classes,
            precision=precision,
        ),
        **({'regime of extraction': regime_fact(regime)} if regime else {}),
        **_self_influence(overview),
        **_near_duplicates(overview, near_duplicates, source),
        **more,
        **_provenance(run),
        **({'provenance': shown.provenance} if shown.provenance else {}),
        'estimator': overview.summary.estimator.name,
        **({'standard error off the diagonal': precision.text} if precision else {}),
    }


def _size(
    run: ReportedRun,
    self_index: Int[np.ndarray, ' T'],
    noun: str,
    *,
    used: int,
    classes: int,
    precision: Precision | None,
) -> dict[str, str]:
    """Returns how large the run is, and how well members know what they trained on."""
    examples = len(run.example_ids)
    in_classes = f' in {classes} classes' if classes else ''
    most = 'of at most' if precision and precision.enough else 'of'
    complete = len(run.complete)
    subsets = len(np.unique(numbered_repeats(run.masks[run.complete])))
    repeated = f' on {count(subsets, "subset")}' if subsets < complete else ''
    facts = {
        f'{noun}s': f'{examples:,}{in_classes}',
        'members': f'{used:,} {most} {len(run.masks):,}{repeated}',
        'diverged members': f'{len(run.diverged)}',
    }
    if not np.array_equal(self_index, np.arange(examples)):
        facts['targets that are examples'] = f'{(self_index >= 0).sum():,} of {len(self_index):,}'
    names = measurement_names(run)
    if 'correct' in names and (means := _means(run, self_index, 'correct')):
        facts |= {
            'accuracy on own subset': f'{means[0]:.1%}',
            f'accuracy on {noun}s left out': f'{means[1]:.1%}',
        }
    if 'answer_loss' in names:
        for name, what in (('loss', 'text'), ('answer_loss', 'answer')):
            if means := _means(run, self_index, name):
                facts[f'mean token loss, {what}'] = (
                    f'{means[0]:.3f} nats on own subset, {means[1]:.3f} on {noun}s left out'
                )
    return facts


def _near_duplicates(
    overview: Overview, near_duplicates: Bool[np.ndarray, ' T'] | None, source: str
) -> dict[str, str]:
    """Returns how well margin and self-influence find them; nothing where all are alike."""
    margin, self_influence = overview.summary.margin, overview.summary.self_influence
    known = ~(np.isnan(margin) | np.isnan(self_influence))
    if near_duplicates is None or not 0 < near_duplicates[known].sum() < known.sum():
        return {}
    truth = near_duplicates[known]
    return {
        'targets with a near-duplicate': f'{near_duplicates.sum()} ({source})',
        'AUROC of low margin for these': f'{auroc(-margin[known], truth):.3f}',
        'AUROC of low self-influence for these': f'{auroc(-self_influence[known], truth):.3f}',
    }


def _self_influence(overview: Overview) -> dict[str, str]:
    """Returns how far self-influence stands out of its column; nothing where there is none."""
    found = self_influence_excess(overview.summary, examples=len(overview.distributions))
    if found is None:
        return {}
    verdict = '' if found.stands_out else ', which is not above chance: see the caution'
    return {
        'own influence above that of others': (
            f'{found.above:.2f} {PLUS_MINUS} {found.standard_error:.2f} standard deviations '
            f'of the column{verdict}'
        )
    }


def _provenance(run: ReportedRun) -> dict[str, str]:
    """Returns how to repeat the run; nothing of one without a manifest."""
    manifest = getattr(run, 'manifest', None)
    if manifest is None:
        return {}
    narrow = _recipe(run).get('compute_dtype')
    return {
        'executor': _layout(manifest.executor),
        **({'compute dtype while training': str(narrow)} if narrow else {}),
        'command': manifest.command,
        'started': manifest.created,
        'versions': ', '.join(f'{name} {version}' for name, version in manifest.versions.items()),
        'commit': manifest.git_commit or 'unknown',
        'dataset': f'{manifest.dataset.name}, sha256 {manifest.dataset.fingerprint[:16]}',
    }


def stopped_early(run: ReportedRun) -> str | None:
    """Returns why missing members need not be trained; None where they should be."""
    precision = precision_of(run)
    if precision is None or not precision.enough or not len(run.missing):
        return None
    return (
        f'{len(run.missing):,} of at most {len(run.masks):,} members were not needed '
        f'and not trained: the median standard error off the diagonal is {precision.text}.'
    )


def regime_fact(judgment: Judgment) -> str:
    """Returns the regime of extraction and the numbers that it is known by."""
    return f'{judgment.regime.value} ({_bleu(judgment)})'


def regime_note(
    judgment: Judgment, *, epochs: float | None = None, reference: Reference | None = None
) -> str | None:
    """Returns a caveat for a run that is not in the paper's regime; None for one that is.

    Args:
      judgment: from `extraction_regime.judge`.
      epochs: how long members trained, for advice; None where that is not known.
      reference: the paper's numbers, to be named beside the run's own.
    """
    if judgment.regime is Regime.PAPER:
        return None
    if judgment.regime is Regime.BEYOND:
        what = (
            'Unique records are given back as well as near-duplicated ones, or nearly so: members '
            'trained until they know all they hold, and what influence says of extraction here is '
            'not what the paper says'
        )
        how, factor = 'train for less time', 0.5
    else:
        what = (
            'Hardly any record is given back: members trained too short a time for influence to '
            'say anything of extraction'
        )
        how, factor = 'train for longer', 2.0
    if epochs is not None:
        how += f', such as --epochs={factor * epochs:g} instead of {epochs:g}'
    numbers = _bleu(judgment)
    if reference and (row := reference.rows.get('BLEU')):
        numbers += (
            f"; {reference.name}'s BLEU is {number(row.unique.mean, 2)} unique, "
            f'{number(row.near_duplicated.mean, 2)} near-duplicated'
        )
    return f'{what} ({numbers}). For its regime {how}, into another --output_dir.'


def epochs(run: ReportedRun) -> float | None:
    """Returns how long members trained; None where the run does not say."""
    recipe = _recipe(run)
    return float(recipe['epochs']) if 'epochs' in recipe else None


def _recipe(run: ReportedRun) -> Mapping[str, Any]:
    configuration: Any = getattr(getattr(run, 'manifest', None), 'configuration', {})
    return configuration.get('recipe') or {}


def _bleu(judgment: Judgment) -> str:
    def means(of: MeanBleu) -> str:
        return f'{number(of.unique, 2)} unique, {number(of.near_duplicated, 2)} near-duplicated'

    text = f'BLEU {means(judgment.by_full_data_model)}'
    if judgment.by_holders is not None:
        text += f'; of members that held the record {means(judgment.by_holders)}'
    return text


def _means(
    run: ReportedRun, self_index: Int[np.ndarray, ' T'], name: str
) -> tuple[float, float] | None:
    """Returns the mean over members and targets with, and without, the target in the subset."""
    complete, known = run.complete, self_index >= 0
    if not known.any():
        return None
    values: Float[np.ndarray, 'M T'] = run.measurement(name)[complete][:, known]
    included = run.masks[complete][:, self_index[known]]
    return float(values[included].mean()), float(values[~included].mean())


def _layout(executor: Mapping[str, Any] | None) -> str:
    """How members shared the devices, as the manifest has it."""
    if not executor:
        return 'unknown'
    mesh = [executor.get(axis) for axis in ('member', 'data', 'model')]
    width = executor.get('vmapped')
    each = 'one by one' if width == 1 else f'{width} vmapped'
    if mesh[1:] == [1, 1]:
        return f'{mesh[0]} devices, members {each} on each'
    return f'mesh (member, data, model) = ({", ".join(map(str, mesh))}), members {each}'


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
    found += _noise(results)
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


def indistinguishable(masks: Bool[np.ndarray, 'M N']) -> tuple[str, ...]:
    """Returns a sentence where examples are in the same members as another, or in all the others.

    Their influences are the same number, or that with the other sign, whoever has it.
    """
    columns = np.packbits(masks ^ masks[:1], axis=0).T  # a column and its opposite are the same
    _, which, counts = np.unique(columns, axis=0, return_inverse=True, return_counts=True)
    shared = int((counts[which.reshape(-1)] > 1).sum())
    if not shared:
        return ()
    return (
        f'{shared:,} of {len(columns):,} examples are in exactly the members that another one is '
        f'in, or in exactly the others, as with few members or with groups: their influences '
        f'cannot be told apart, and what one of them does is shown for all. More members help.',
    )


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


def _noise(results: Results) -> tuple[str, ...]:
    """Returns how much of the matrix is noise, what stands out of it, and what to take off that."""
    summary, pairs = results.summary, results.summary.pairs
    typical = results.off_diagonal_standard_error()
    if np.isnan(typical):
        return (
            'Standard errors are not known, so nothing here can be separated from noise: no '
            'example stands out and no pair is called significant.',
        )
    error, by_members = f'{number(typical)} {results.unit}', summary.members_used > 0
    # Pure noise has a median of 0.67 standard errors.
    level = f'The median standard error of entries off the diagonal is {error}.'
    if results.off_diagonal_z() < 1.0:
        members, what = results.members_used
        most = f'With {members:,} {what} most' if by_members else 'Most'
        level = (
            f'{most} entries off the diagonal are noise: their median standard error is {error}.'
        )
    above = int(summary.stands_out(summary.strongest_other, np.arange(results.num_targets)).sum())
    untested = ''
    if pairs.untested_examples:
        untested = (
            f' Of {count(pairs.untested_examples, "example")} in, or out of, fewer than '
            f'{LEAST_ON_A_SIDE} members no influence on others is tested, since it cannot be '
            f'separated from noise.'
        )
    least = '' if pairs.complete else 'at least '
    return (
        f'{level} {above:,} of {count(results.num_targets, "target")} have another example that '
        f'stands out; what does not, is grayed.',
        f'An influence stands out where it is significant, as {least}{len(pairs.examples):,} of '
        f'{pairs.tests:,} pairs of an example and another target are ({pairs.level:.0%} of them '
        f'false on average), or more than {number(results.overview.z_threshold, 1)} standard '
        f'errors above zero (noise alone would give about one in the whole matrix).{untested}',
        "Values of what is shown because it is large are exaggerated (the winner's curse): the "
        'cross-fitted ones beside them are not.'
        + (' Errors shrink with the square root of the number of members.' if by_members else ''),
    )
