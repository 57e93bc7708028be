"""The report of an ensemble of language models, on the terminal and as a page."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments import terminal
from experiments.completions import Completer
from experiments.growth import Check
from experiments.language_data import Records, said_of_cuts
from experiments.paper import PAPER
from experiments.settings import AnalysisSettings
from influence_jax import report, store


def write(
    directory: store.Run,
    records: Records,
    completer: Completer,
    decoded: Sequence[str],
    settings: AnalysisSettings,
    growth: Check | None = None,
) -> Path:
    """Analyzes what has been measured and returns the path of the page.

    Args:
        directory: the run.
        records: its texts.
        completer: knows their prompts.
        decoded: `[T]` what a model that was trained on all of them writes.
        settings: how to estimate.
        growth: what was seen when training stopped, where it may stop before all members are
            trained; those are then not missing.
    """
    dataset = records.dataset
    results = report.gather(
        directory,
        estimator=settings.estimator,
        shown=store.Shown(
            names=dataset.ids,
            groups=np.asarray(dataset.groups, np.int32),
            changes=dataset.changes,
            texts=dataset.texts,
            prompts=completer.prompts,
            completions=completer.continuations,
            provenance=dataset.provenance,
            notes=records.notes,
        ),
        decoded=decoded,
        reference=PAPER,
        stopping=growth,
        facts={
            **_lengths(records),
            **({'records cut': cut} if (cut := said_of_cuts(records)) else {}),
        },
    )
    return terminal.save_and_show(results, directory.directory / 'report')


def _lengths(records: Records) -> dict[str, str]:
    """Of the answers: some duplications choose records with longer ones, which are harder."""
    lengths = records.tokens.lengths - records.prompt_lengths
    originals = np.array([not change for change in records.dataset.changes])
    duplicated = np.asarray(records.dataset.has_near_duplicate)
    if not duplicated.any() or duplicated.all():
        return {}
    means = (lengths[~duplicated].mean(), lengths[duplicated & originals].mean())
    return {'mean tokens of an answer': f'{means[0]:.1f} unique, {means[1]:.1f} near-duplicated'}
