"""The report of an image ensemble, on the terminal and as a page."""

from pathlib import Path

import jax
from rich.console import Console

from experiments import run_facts
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
    facts = {
        'images': f'{dataset.num_examples:,} in {dataset.num_classes} classes',
        **run_facts.of_members(directory, growth),
        **_accuracy(directory),
        **run_facts.of_duplicates(overview, duplicated, 'same class, RMS < 0.06'),
        **run_facts.of_provenance(directory, dataset),
        **run_facts.of_estimate(settings, estimator, growth),
    }
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
        stopped_early=run_facts.stopped_early(directory, growth),
    )
    console.print(report.printable(f'report: {page}'), soft_wrap=True)
    return page


def _accuracy(directory: store.Run) -> dict[str, str]:
    complete = directory.complete
    masks, correct = directory.masks[complete], directory.measurement('correct')[complete]
    return {
        'accuracy on own subset': f'{correct[masks].mean():.1%}',
        'accuracy on images left out': f'{correct[~masks].mean():.1%}',
    }
