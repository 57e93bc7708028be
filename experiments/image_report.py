"""The report of an image ensemble, on the terminal and as a page."""

from pathlib import Path

import jax
import numpy as np
from jaxtyping import Bool
from rich.console import RenderableType

from experiments import run_facts, terminal
from experiments.image_data import Images
from experiments.settings import AnalysisSettings
from influence_jax import analysis, report, store
from influence_jax.analysis.convergence import Check
from influence_jax.analysis.near_duplicate_comparison import compare, in_a_group
from influence_jax.data.pixel_distance import has_near_duplicate, near_duplicates


def write(
    directory: store.Run,
    images: Images,
    settings: AnalysisSettings,
    growth: Check | None = None,
) -> Path:
    """Analyses what has been measured and returns the path of the page.

    Args:
        directory: the run.
        images: its images.
        settings: how to estimate.
        growth: what was seen when training stopped, where it may stop before all members are
            trained; those are then not missing.
    """
    dataset = images.dataset
    key = jax.random.key(directory.manifest.seeds['seed'])
    estimator = settings.estimator_for(len(directory.complete))
    overview = analysis.overview(
        directory.masks,
        directory.measurement('loss'),
        key=key,
        estimator=estimator,
    )
    # Plain names: in columns this narrow what was changed would leave no room for them.
    tables: list[RenderableType] = [
        report.terminal_table(
            overview, target_ids=directory.target_ids, example_names=dataset.names
        )
    ]
    sections: tuple[report.Section, ...] = ()
    if images.groups is not None:
        comparison = compare(overview.summary, images.groups, key=key)
        tables.append(report.terminal_comparison(comparison, beside_paper=False))
        sections = report.image_sections(comparison, images.groups)
    duplicated, known_by = _near_duplicated(images)
    facts = {
        'images': f'{dataset.num_examples:,} in {dataset.num_classes} classes',
        **run_facts.of_members(directory, growth),
        **_accuracy(directory),
        **run_facts.of_own_influence(overview),
        **run_facts.of_duplicates(overview, duplicated, known_by),
        **run_facts.of_provenance(directory, dataset),
        **run_facts.of_estimate(settings, estimator, growth),
    }
    page = report.write(
        directory.directory / 'report',
        overview=overview,
        facts=facts,
        target_ids=directory.target_ids,
        example_ids=directory.example_ids,
        example_names=images.names,
        example_labels=[dataset.class_names[label] for label in dataset.labels],
        show=dataset.images,
        title=f'Influence distributions: {dataset.name}',
        near_duplicates=duplicated,
        mean_loss=directory.measurement('loss')[directory.complete].mean(axis=0),
        missing=directory.missing.tolist(),
        diverged=directory.diverged.tolist(),
        stopped_early=run_facts.stopped_early(directory, growth),
        sections=sections,
        notes=dataset.notes,
    )
    terminal.show(
        [*tables, *(report.printable(f'{name}: {value}') for name, value in facts.items())],
        last=report.printable(f'report: {page}'),
    )
    return page


def _near_duplicated(images: Images) -> tuple[Bool[np.ndarray, ' N'], str]:
    """The truth, and how it is known: by the planting, or from the pixels."""
    if images.groups is not None:
        return in_a_group(images.groups), 'planted: originals and their variants'
    pairs = near_duplicates(images.dataset)
    return has_near_duplicate(pairs, images.dataset.num_examples), 'same class, RMS < 0.06'


def _accuracy(directory: store.Run) -> dict[str, str]:
    complete = directory.complete
    masks, correct = directory.masks[complete], directory.measurement('correct')[complete]
    return {
        'accuracy on own subset': f'{correct[masks].mean():.1%}',
        'accuracy on images left out': f'{correct[~masks].mean():.1%}',
    }
