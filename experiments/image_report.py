"""The report of an image ensemble, on the terminal and as a page."""

from pathlib import Path

import jax
import numpy as np
from rich.console import Console

from influence_jax import analysis, data, report, store
from influence_jax.data.pixel_distance import has_near_duplicate, near_duplicates


def write(directory: store.Run, dataset: data.ImageDataset) -> Path:
    """Analyses what has been measured and returns the path of the page."""
    overview = analysis.overview(
        directory.masks,
        directory.measurement('loss'),
        key=jax.random.key(directory.manifest.seeds['seed']),
    )
    console = Console()
    console.print(
        report.terminal_table(
            overview, target_ids=directory.target_ids, example_names=dataset.names
        )
    )
    duplicated = has_near_duplicate(near_duplicates(dataset), dataset.num_examples)
    facts = _facts(directory, dataset, overview, duplicated)
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
    )
    console.print(report.printable(f'report: {page}'), soft_wrap=True)
    return page


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
