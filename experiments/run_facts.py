"""What every report says of its run, whatever was trained."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from jaxtyping import Bool

from experiments.settings import AnalysisSettings
from influence_jax import analysis, store
from influence_jax.analysis.convergence import Check
from influence_jax.analysis.margins import self_influence_excess
from influence_jax.estimators import Estimator


class Dataset(Protocol):
    """What is told of a dataset."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex."""

    @property
    def provenance(self) -> str:
        """Where it comes from."""


def of_members(directory: store.Run, growth: Check | None) -> dict[str, str]:
    """How many there are."""
    complete, total = len(directory.complete), len(directory.masks)
    most = 'of at most' if growth and growth.enough else 'of'
    return {
        'members': f'{complete:,} {most} {total:,}',
        'diverged members': f'{len(directory.diverged)}',
    }


def of_duplicates(
    overview: analysis.Overview, duplicated: Bool[np.ndarray, ' T'], known_by: str
) -> dict[str, str]:
    """How well margin and self-influence tell targets with a near-duplicate; none if all are alike.

    Args:
        overview: what was estimated.
        duplicated: `[T]` the truth.
        known_by: how the truth is known.
    """
    margin, self_influence = overview.summary.margin, overview.summary.self_influence
    known = ~np.isnan(margin)  # nothing influences the others
    if not 0 < duplicated[known].sum() < known.sum():
        return {}
    by_margin = analysis.auroc(-margin[known], duplicated[known])
    by_self = analysis.auroc(-self_influence[known], duplicated[known])
    return {
        'targets with a near-duplicate': f'{duplicated.sum()} ({known_by})',
        'AUROC of low margin for these': f'{by_margin:.3f}',
        'AUROC of low self-influence for these': f'{by_self:.3f}',
    }


def of_own_influence(overview: analysis.Overview) -> dict[str, str]:
    """How far own influences stand out of their columns; none where no target is an example."""
    found = self_influence_excess(overview.summary, examples=len(overview.distributions))
    if found is None:
        return {}
    verdict = '' if found.stands_out else ', which is not above chance: see the caution'
    return {
        'own influence above that of others': (
            f'{found.above:.2f} \N{PLUS-MINUS SIGN} {found.standard_error:.2f} standard deviations '
            f'of the column{verdict}'
        )
    }


def of_provenance(directory: store.Run, dataset: Dataset) -> dict[str, str]:
    """How to repeat the run."""
    manifest = directory.manifest
    return {
        **_laid_out(directory.notes),
        'command': manifest.command,
        'started': manifest.created,
        'versions': ', '.join(f'{name} {version}' for name, version in manifest.versions.items()),
        'commit': manifest.git_commit or 'unknown',
        'dataset': f'{dataset.name}, sha256 {dataset.fingerprint[:16]}',
        'provenance': dataset.provenance,
    }


def _laid_out(notes: Mapping[str, object]) -> dict[str, str]:
    if 'mesh' in notes:
        return {'mesh (members, data, model)': str(notes['mesh'])}
    return {'members vmapped together': str(notes.get('vmapped', 'unknown'))}


def of_estimate(
    settings: AnalysisSettings, estimator: Estimator, growth: Check | None
) -> dict[str, str]:
    """How influences were estimated, and how precisely where that was asked for."""
    name = estimator.name
    if estimator is not settings.estimator:
        name += f' ({settings.estimator.name} needs {settings.least_members} members)'
    facts = {'estimator': name}
    if growth:
        facts['standard error off the diagonal'] = str(growth)
    return facts


def stopped_early(directory: store.Run, growth: Check | None) -> str | None:
    """Why missing members need not be trained; None where they should be."""
    if growth is None or not growth.enough or not len(directory.missing):
        return None
    return (
        f'{len(directory.missing):,} of at most {len(directory.masks):,} members were not needed '
        f'and not trained: the median standard error off the diagonal is {growth}.'
    )
