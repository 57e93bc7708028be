"""The report of an image ensemble, on the terminal and as a page."""

from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from experiments.growth import Check
from experiments.settings import AnalysisSettings
from influence_jax import analysis, data, report, store
from influence_jax.data.pixel_distance import has_near_duplicate, near_duplicates


def write(
    directory: store.Run,
    dataset: data.ImageDataset,
    settings: AnalysisSettings,
    growth: Check | None = None,
) -> Path:
    """Analyses what has been measured and returns the path of the page.

    Args:
        directory: the run.
        dataset: its images.
        settings: how to estimate.
        growth: what was seen when training stopped, where it may stop before all members are
            trained; those are then not missing.
    """
    estimator = settings.estimator_for(len(directory.complete))
    overview = analysis.overview(
        directory.masks,
        directory.measurement('loss'),
        key=jax.random.key(directory.manifest.seeds['seed']),
        estimator=estimator,
    )
    console = Console()
    console.print(
        report.terminal_table(
            overview, target_ids=directory.target_ids, example_names=dataset.names
        )
    )
    duplicated = has_near_duplicate(near_duplicates(dataset), dataset.num_examples)
    facts = _facts(directory, dataset, overview, duplicated)
    facts['estimator'] = estimator.value
    if estimator is not settings.estimator:
        facts['estimator'] += (
            f' ({settings.estimator.value} needs {settings.least_members} members)'
        )
    if growth:
        if growth.enough:
            facts['members'] = f'{len(directory.complete):,} of at most {len(directory.masks):,}'
        facts['standard error off the diagonal'] = str(growth)
    for name, value in facts.items():
        console.print(report.printable(f'{name}: {value}'))
    page = report.write(
        directory.directory / 'report',
        overview=overview,
        facts=facts,
        target_ids=directory.target_ids,
        example_ids=directory.example_ids,
        example_names=dataset.names,
        example_labels=[dataset.class_names[label] for label in dataset.labels],
        show=dataset.images,
        title=f'Influence distributions: {dataset.name}',
        near_duplicates=duplicated,
        mean_loss=directory.measurement('loss')[directory.complete].mean(axis=0),
        missing=directory.missing.tolist(),
        diverged=directory.diverged.tolist(),
        stopped_early=_stopped_early(directory, growth),
    )
    console.print(report.printable(f'report: {page}'), soft_wrap=True)
    return page


def _stopped_early(directory: store.Run, growth: Check | None) -> str | None:
    if growth is None or not growth.enough or not len(directory.missing):
        return None
    return (
        f'{len(directory.missing):,} of at most {len(directory.masks):,} members were not needed '
        f'and not trained: the median standard error off the diagonal is {growth}.'
    )


def _facts(
    directory: store.Run,
    dataset: data.ImageDataset,
    overview: analysis.Overview,
    duplicated: np.ndarray,
) -> dict[str, str]:
    complete = directory.complete
    masks, correct = directory.masks[complete], directory.measurement('correct')[complete]
    facts = {
        'images': f'{dataset.num_examples:,} in {dataset.num_classes} classes',
        'members': f'{len(complete):,} of {len(directory.masks):,}',
        'diverged members': f'{len(directory.diverged)}',
        'accuracy on own subset': f'{correct[masks].mean():.1%}',
        'accuracy on images left out': f'{correct[~masks].mean():.1%}',
    }
    margin, self_influence = overview.summary.margin, overview.summary.self_influence
    known = ~np.isnan(margin)  # nothing influences the others
    if 0 < duplicated[known].sum() < known.sum():
        by_margin = analysis.auroc(-margin[known], duplicated[known])
        by_self = analysis.auroc(-self_influence[known], duplicated[known])
        facts['targets with a near-duplicate'] = f'{duplicated.sum()} (same class, RMS < 0.06)'
        facts['AUROC of low margin for these'] = f'{by_margin:.3f}'
        facts['AUROC of low self-influence for these'] = f'{by_self:.3f}'
    manifest = directory.manifest
    return facts | {
        'members vmapped together': str(directory.notes.get('vmapped', 'unknown')),
        'command': manifest.command,
        'started': manifest.created,
        'versions': ', '.join(f'{name} {version}' for name, version in manifest.versions.items()),
        'commit': manifest.git_commit or 'unknown',
        'dataset': f'{dataset.name}, sha256 {dataset.fingerprint[:16]}',
        'provenance': dataset.provenance,
    }
