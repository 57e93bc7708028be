"""The table of facts at the end of a report: what was run, and what came of it."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.analysis import auroc
from influence_jax.analysis.extraction_regime import Judgment, MeanBleu, Regime
from influence_jax.analysis.margins import self_influence_excess
from influence_jax.analysis.views import Overview
from influence_jax.report.formatting import PLUS_MINUS, number
from influence_jax.report.results import Reference
from influence_jax.report.run import ReportedRun, measurement_names


@runtime_checkable
class StoppingCheck(Protocol):
    """Whether an ensemble was found precise enough to stop before all members were trained."""

    @property
    def enough(self) -> bool:
        """Returns whether it was; `str` of the check gives the standard error that was reached."""


def of_run(
    run: ReportedRun,
    own: Int[np.ndarray, ' T'],
    *,
    noun: str,
    classes: int,
    stopping: StoppingCheck | None,
) -> dict[str, str]:
    """Returns how large the run is, and how well members know what they trained on.

    Args:
      run: the run.
      own: `[T]` the example that each target is, -1 where it is none.
      noun: what an example is called.
      classes: how many classes there are; 0 where there are none.
      stopping: what was seen when training stopped early.
    """
    examples = len(run.example_ids)
    in_classes = f' in {classes} classes' if classes else ''
    most = 'of at most' if stopping and stopping.enough else 'of'
    facts = {
        f'{noun}s': f'{examples:,}{in_classes}',
        'members': f'{len(run.complete):,} {most} {len(run.masks):,}',
        'diverged members': f'{len(run.diverged)}',
    }
    if not np.array_equal(own, np.arange(examples)):
        facts['targets that are examples'] = f'{(own >= 0).sum():,} of {len(own):,}'
    names = measurement_names(run)
    if 'correct' in names and (means := _means(run, own, 'correct')):
        facts |= {
            'accuracy on own subset': f'{means[0]:.1%}',
            f'accuracy on {noun}s left out': f'{means[1]:.1%}',
        }
    if 'answer_loss' in names:
        for name, what in (('loss', 'text'), ('answer_loss', 'answer')):
            if means := _means(run, own, name):
                facts[f'mean token loss, {what}'] = (
                    f'{means[0]:.3f} nats on own subset, {means[1]:.3f} on {noun}s left out'
                )
    return facts


def of_near_duplicates(
    overview: Overview, near_duplicates: Bool[np.ndarray, ' T'] | None, source: str
) -> dict[str, str]:
    """Returns how well margin and self-influence find targets with a near-duplicate.

    Args:
      overview: what was estimated.
      near_duplicates: `[T]` the truth, or None; nothing is returned where all targets are alike.
      source: how the truth is known.
    """
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


def of_self_influence(overview: Overview) -> dict[str, str]:
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


def of_provenance(run: ReportedRun, provenance: str) -> dict[str, str]:
    """Returns how to repeat the run; nothing of one without a manifest."""
    manifest = getattr(run, 'manifest', None)
    if manifest is None:
        return {'provenance': provenance} if provenance else {}
    return {
        'executor': _layout(manifest.executor),
        'command': manifest.command,
        'started': manifest.created,
        'versions': ', '.join(f'{name} {version}' for name, version in manifest.versions.items()),
        'commit': manifest.git_commit or 'unknown',
        'dataset': f'{manifest.dataset.name}, sha256 {manifest.dataset.fingerprint[:16]}',
        **({'provenance': provenance} if provenance else {}),
    }


def stopped_early(run: ReportedRun, stopping: StoppingCheck | None) -> str | None:
    """Returns why missing members need not be trained; None where they should be."""
    if stopping is None or not stopping.enough or not len(run.missing):
        return None
    return (
        f'{len(run.missing):,} of at most {len(run.masks):,} members were not needed '
        f'and not trained: the median standard error off the diagonal is {stopping}.'
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
            f"; {reference.name}'s BLEU is {number(row.unique.mean)} unique, "
            f'{number(row.near_duplicated.mean)} near-duplicated'
        )
    return f'{what} ({numbers}). For its regime {how}, into another --output_dir.'


def epochs(run: ReportedRun) -> float | None:
    """Returns how long members trained; None where the run does not say."""
    configuration: Any = getattr(getattr(run, 'manifest', None), 'configuration', {})
    recipe = configuration.get('recipe') or {}
    return float(recipe['epochs']) if 'epochs' in recipe else None


def _bleu(judgment: Judgment) -> str:
    def means(of: MeanBleu) -> str:
        return f'{number(of.unique)} unique, {number(of.near_duplicated)} near-duplicated'

    text = f'BLEU {means(judgment.by_full_data_model)}'
    if judgment.by_holders is not None:
        text += f'; of members that held the record {means(judgment.by_holders)}'
    return text


def _means(run: ReportedRun, own: Int[np.ndarray, ' T'], name: str) -> tuple[float, float] | None:
    """Returns the mean over members and targets with, and without, the target in the subset."""
    complete, known = run.complete, own >= 0
    if not known.any():
        return None
    values: Float[np.ndarray, 'M T'] = run.measurement(name)[complete][:, known]
    included = run.masks[complete][:, own[known]]
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
