"""The report of an image ensemble, on the terminal and as a page."""

from pathlib import Path

from experiments import terminal
from experiments.growth import Check
from experiments.image_data import Images
from experiments.settings import AnalysisSettings
from influence_jax import report, store


def write(
    directory: store.Run,
    images: Images,
    settings: AnalysisSettings,
    growth: Check | None = None,
) -> Path:
    """Analyzes what has been measured and returns the path of the page.

    Args:
        directory: the run.
        images: its images.
        settings: how to estimate.
        growth: what was seen when training stopped, where it may stop before all members are
            trained; those are then not missing.
    """
    results = report.gather(
        directory, estimator=settings.estimator, shown=shown(images), stopping=growth
    )
    return terminal.save_and_show(results, directory.directory / 'report')


def shown(images: Images) -> store.Shown:
    """Returns what a report shows of images."""
    dataset = images.dataset
    return store.Shown(
        names=dataset.names,
        labels=tuple(dataset.class_names[label] for label in dataset.labels),
        groups=images.groups,
        changes=images.changes,
        images=dataset.images,
        class_names=dataset.class_names,
        provenance=dataset.provenance,
        notes=dataset.notes,
    )
