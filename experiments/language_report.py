"""The report of an ensemble of language models, on the terminal and as a page."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from experiments import run_facts, terminal
from experiments.completions import MEASUREMENTS, Completer
from experiments.language_data import Records, said_of_cuts
from experiments.paper import PUBLISHED
from experiments.settings import AnalysisSettings
from influence_jax import analysis, report, store
from influence_jax.analysis import extraction
from influence_jax.analysis.convergence import Check
from influence_jax.analysis.extraction import ByMembership
from influence_jax.analysis.extraction_regime import judge
from influence_jax.analysis.near_duplicate_comparison import compare
from influence_jax.analysis.scores import Score
from influence_jax.analysis.views import cluster_view
from influence_jax.estimators import Estimator, difference_in_means, summarize
from influence_jax.report.thumbnails import texts

_LONGEST_NAME = 60
_BY_MEMBERS = dict(zip(('BLEU', 'exact match', 'longest common string'), MEASUREMENTS, strict=True))


def write(
    directory: store.Run,
    records: Records,
    completer: Completer,
    decoded: Sequence[str],
    settings: AnalysisSettings,
    growth: Check | None = None,
) -> Path:
    """Analyses what has been measured and returns the path of the page.

    Args:
        directory: the run.
        records: its texts.
        completer: knows their prompts.
        decoded: `[T]` what a model that was trained on all of them writes.
        settings: how to estimate.
        growth: what was seen when training stopped, where it may stop before all members are
            trained; those are then not missing.
    """
    dataset, losses = records.dataset, directory.measurement('loss')
    key = jax.random.key(directory.manifest.seeds['seed'])
    estimator = settings.estimator_for(len(directory.complete))
    overview = analysis.overview(directory.masks, losses, key=key, estimator=estimator)
    given_back = extraction.scores(decoded, completer.continuations)
    siblings = extraction.nearest_siblings(decoded, completer.continuations, dataset.groups)
    held = _held(directory)
    regime = judge(given_back, dataset.has_near_duplicate, held.get('BLEU'))
    caution = regime and report.regime_note(
        regime, epochs=_epochs(directory), reference=PUBLISHED.bleu
    )
    comparison = compare(
        overview.summary,
        dataset.groups,
        key=key,
        extraction=given_back,
        siblings=siblings,
        more=_as_in_the_paper(directory, estimator),
        reference=PUBLISHED,
    )
    results = report.LanguageResults(
        summary=overview.summary,
        comparison=comparison,
        view=cluster_view(
            directory.masks,
            losses,
            dataset.groups,
            summary=overview.summary,
            estimator=estimator,
        ),
        groups=dataset.groups,
        prompts=completer.prompts,
        completions=completer.continuations,
        changes=dataset.changes,
        decoded=decoded,
        extraction=given_back,
        siblings=siblings,
        held=held,
    )
    names = [_name(text) for text in dataset.texts]
    facts = {
        'records': f'{dataset.num_examples:,}',
        **run_facts.of_members(directory, growth),
        **_memorized(directory),
        **({'regime of extraction': report.regime_fact(regime)} if regime else {}),
        **run_facts.of_own_influence(overview),
        **_lengths(records),
        **({'records cut': cut} if (cut := said_of_cuts(records)) else {}),
        **run_facts.of_provenance(directory, dataset),
        **run_facts.of_estimate(settings, estimator, growth),
    }
    page = report.write(
        directory.directory / 'report',
        overview=overview,
        facts=facts,
        target_ids=directory.target_ids,
        example_ids=directory.example_ids,
        example_names=names,
        example_labels=[''] * len(names),
        show=texts([report.shortened(text) for text in dataset.texts]),
        title=f'Influence distributions: {dataset.name}',
        near_duplicates=dataset.has_near_duplicate,
        mean_loss=losses[directory.complete].mean(axis=0),
        missing=directory.missing.tolist(),
        diverged=directory.diverged.tolist(),
        notes=[*([caution] if caution else []), *records.notes],
        stopped_early=run_facts.stopped_early(directory, growth),
        sections=report.language_sections(results),
        records_csv=report.records_csv(results, directory.target_ids),
    )
    terminal.show(
        [
            report.terminal_table(overview, target_ids=directory.target_ids, example_names=names),
            report.language_table(comparison),
            *(report.printable(f'{name}: {value}') for name, value in facts.items()),
            *([report.printable(f'caution: {caution}')] if caution else []),
        ],
        last=report.printable(f'report: {page}'),
    )
    return page


def _as_in_the_paper(directory: store.Run, estimator: Estimator) -> tuple[Score, ...]:
    """The margin of the paper's estimator, where that is not the run's own."""
    if estimator is difference_in_means:
        return ()
    plain = summarize(directory.masks, directory.measurement('loss'))
    name = 'margin, by difference of means'
    return (Score(name, plain.margin, low_marks=True, reference=PUBLISHED.margin),)


def _held(directory: store.Run) -> dict[str, ByMembership]:
    return {
        name: extraction.by_membership(directory.masks, directory.measurement(measurement))
        for name, measurement in _BY_MEMBERS.items()
        if measurement in directory.manifest.measurements
    }


def _epochs(directory: store.Run) -> float:
    return float(directory.manifest.configuration['recipe']['epochs'])


def _memorized(directory: store.Run) -> dict[str, str]:
    complete = directory.complete
    masks, facts = directory.masks[complete], {}
    for name, what in (('loss', 'text'), ('answer_loss', 'answer')):
        losses = directory.measurement(name)[complete]
        facts[f'mean token loss, {what}'] = (
            f'{losses[masks].mean():.3f} nats on own subset, '
            f'{losses[~masks].mean():.3f} on records left out'
        )
    return facts


def _lengths(records: Records) -> dict[str, str]:
    """Of the answers: some duplications choose records with longer ones, which are harder."""
    lengths = records.tokens.lengths - records.prompt_lengths
    originals = np.array(['~' not in identity for identity in records.dataset.ids])
    duplicated = np.asarray(records.dataset.has_near_duplicate)
    if not duplicated.any() or duplicated.all():
        return {}
    means = (lengths[~duplicated].mean(), lengths[duplicated & originals].mean())
    return {'mean tokens of an answer': f'{means[0]:.1f} unique, {means[1]:.1f} near-duplicated'}


def _name(text: str) -> str:
    if len(text) <= _LONGEST_NAME:
        return text
    return text[: _LONGEST_NAME - 1] + '\N{HORIZONTAL ELLIPSIS}'
