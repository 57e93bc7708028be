"""From a run to its results: everything that the report shows, estimated once."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax import analysis
from influence_jax.analysis import extraction
from influence_jax.analysis.convergence import least_half
from influence_jax.analysis.extraction_regime import Judgment, judge
from influence_jax.analysis.membership import MembershipResults
from influence_jax.analysis.near_duplicate_comparison import Comparison, compare, in_a_group
from influence_jax.analysis.scores import Score
from influence_jax.analysis.shared_members import member_digests
from influence_jax.analysis.verdicts import verdicts
from influence_jax.analysis.views import Overview, cluster_view
from influence_jax.data import Dataset
from influence_jax.data.pixel_distance import has_near_duplicate, near_duplicates
from influence_jax.estimators import (
    Columns,
    Estimator,
    EstimatorLike,
    Method,
    adjusted,
    as_estimator,
    difference_in_means,
    summarize,
)
from influence_jax.estimators.ensemble import complete_members, finite_members
from influence_jax.formatting import count
from influence_jax.report import facts as facts_of
from influence_jax.report.attributed import attributed
from influence_jax.report.membership import audited, unit_of
from influence_jax.report.question import OTHERS, choose_rows
from influence_jax.report.results import (
    Attributed,
    Reference,
    Results,
    ShownExamples,
    TextResults,
    surest_pairs,
)
from influence_jax.report.run import (
    ReportedRun,
    examples_of_targets,
    groups_of_targets,
    kept_completions,
    measurement_names,
)
from influence_jax.report.sections import Section
from influence_jax.store import Shown
from influence_jax.text import clean, shortened
from influence_jax.types import PRNGKey

LONGEST_TEXT = 400
"""Characters of a record that the page shows."""

_LONGEST_NAME = 60
_MOST_SCORES = 200_000
"""Of the attacks' curves: a page need not wait for more, an audit by itself may."""

_BY_MEMBERS = {
    'BLEU': 'bleu',
    'exact match': 'exact_match',
    'longest common string': 'longest_common_share',
}


def gather(
    run: ReportedRun,
    *,
    estimator: EstimatorLike | None = None,
    measurement: str = 'loss',
    unit: str | None = None,
    title: str | None = None,
    shown: Shown | None = None,
    near_duplicates: Bool[np.ndarray, ' T'] | None = None,
    decoded: Sequence[str] | None = None,
    reference: Reference | None = None,
    facts: Mapping[str, str] | None = None,
    attributions: Sequence[Columns] = (),
    sections: Sequence[Section] = (),
    membership: bool = True,
    log: Callable[[str], None] | None = None,
) -> Results:
    """Estimates influence from a run, and gathers everything that its report shows.

    Args:
      run: the run; members without a finite measurement of every target are left out.
      estimator: by default the adjusted difference of means. With too few members for it, the
        difference of means is used and the report says so.
      measurement: of which influence is estimated; less of it is better.
      unit: of that, for labels; by default as the run has it, else nats. matplotlib reads `$` in
        it as mathematics.
      title: heading of the page.
      shown: what to show of the examples; by default what the run keeps of them.
      near_duplicates: `[T]` targets known to have a near-duplicate; by default those in a group of
        several or, of images with classes, those with another of the class within an RMS of 0.06.
      decoded: `[T]` what a model trained on all records wrote after each prompt; by default what
        the run keeps.
      reference: published numbers to compare near-duplicates with.
      facts: further rows of the table of facts.
      attributions: scores of the same examples and targets, from `influence_jax.attribution`.
      sections: further pieces of the page.
      membership: whether to attack the members, see `report.membership.audited`.
      log: takes a line at the beginning of each part that may take long.

    Raises:
      ValueError: as in `analysis.overview`, or numbers of names, texts or targets do not fit.
    """
    losses, self_index = run.measurement(measurement), examples_of_targets(run)
    unit = unit or unit_of(run, measurement)
    manifest = getattr(run, 'manifest', None)
    key = jax.random.key(manifest.seeds.get('seed', 0) if manifest else 0)
    chosen, fallback = estimator_for(estimator, len(complete_members(run.masks, losses).masks))
    tell = log or (lambda _: None)
    tell(f'estimating influence on {count(len(self_index), "target")} by {chosen.title}')
    overview = analysis.overview(
        run.masks, losses, key=key, estimator=chosen, target_examples=self_index
    )
    kept: Shown = shown or getattr(run, 'shown', None) or Shown(names=tuple(run.example_ids))
    scored = tuple(attributed(columns, self_index) for columns in attributions)
    # Of the members that the estimate is of, which lack none of this measurement.
    used_masks, used = finite_members(run.masks, losses)
    mean_loss = used.mean(axis=0, dtype=np.float64)
    examples = _shown_examples(kept, _on_the_page(overview, mean_loss, scored))
    truth = _near_duplicates(kept, self_index, near_duplicates)
    compared = _compared(run, losses, overview, kept, key=key, decoded=decoded, reference=reference)
    note = compared.regime and facts_of.regime_note(
        compared.regime, epochs=facts_of.epochs(run), reference=reference
    )
    method = Method(chosen.name, chosen.title, chosen.description)
    if membership:
        tell(f'attacking {count(len(used), "member")} to infer membership')
    attacked, not_attacked = (
        _attacked(run, key=key, measurement=measurement, unit=unit, shown=kept)
        if membership
        else (None, ())
    )
    return Results(
        title=title or _title(manifest),
        unit=unit,
        method=method,
        overview=dataclasses.replace(overview, summary=overview.summary._replace(estimator=method)),
        target_ids=tuple(run.target_ids),
        example_ids=tuple(run.example_ids),
        example_names=_names(kept, run.example_ids),
        example_labels=kept.labels,
        # A text is its own name, and its section shows what was changed.
        example_changes=kept.changes if kept.texts is None else ('',) * len(kept.names),
        shown=examples,
        near_duplicates=truth.targets,
        mean_loss=mean_loss,
        members=len(used),
        member_digests=member_digests(used_masks, used),
        missing=np.asarray(run.missing, np.int64),
        diverged=np.asarray(run.diverged, np.int64),
        stopped_early=facts_of.stopped_early(run),
        notes=(
            *([note] if note else []),
            *facts_of.indistinguishable(used_masks),
            *kept.notes,
            *fallback,
            *not_attacked,
        ),
        facts=facts_of.table(
            run,
            overview,
            kept,
            used=len(used),
            noun=examples.noun,
            near_duplicates=truth.targets,
            source=truth.source,
            regime=compared.regime,
            more=facts or {},
        ),
        comparison=compared.comparison,
        text=compared.text,
        reference=reference,
        attributed=scored,
        membership=attacked,
        sections=tuple(sections),
    )


def _attacked(
    run: ReportedRun, *, key: PRNGKey, measurement: str, unit: str, shown: Shown
) -> tuple[MembershipResults | None, tuple[str, ...]]:
    """Returns an audit, or why there is none: that never costs a report."""
    try:
        found = audited(
            run,
            key=key,
            measurement=measurement,
            unit=unit,
            shown=shown,
            most_scores=_MOST_SCORES,
        )
    except ValueError as error:
        return None, (f'Membership inference was not measured: {error}.',)
    return found, ()


def _title(manifest: Any) -> str:
    return 'Influence distributions' + (f': {manifest.dataset.name}' if manifest else '')


def estimator_for(asked: EstimatorLike | None, members: int) -> tuple[Estimator, tuple[str, ...]]:
    """Returns the estimator or, for too few members, the difference of means, and why."""
    asked = as_estimator(asked or adjusted)
    least = 2 * least_half(asked)
    if members >= least or asked is difference_in_means:
        return asked, ()
    return difference_in_means, (
        f'Estimated by difference of means: for the estimator {asked.name} at least {least} '
        f'usable members are needed, and there are {members}.',
    )


def _names(shown: Shown, ids: Sequence[str]) -> tuple[str, ...]:
    """Returns what a person calls each example: texts that have no other name are their own."""
    if shown.texts is None:
        return shown.names
    return tuple(
        shortened(text, _LONGEST_NAME) if name == identity else name
        for name, identity, text in zip(shown.names, ids, shown.texts, strict=True)
    )


def _on_the_page(
    overview: Overview, mean_loss: Float[np.ndarray, ' T'], scored: Sequence[Attributed] = ()
) -> Int[np.ndarray, ' P']:
    """Returns the examples that any part of the page may show, ascending."""
    summary, self_index = overview.summary, overview.target_examples
    pairs = surest_pairs(summary.pairs)
    found = verdicts(summary, mean_loss=mean_loss, target_examples=self_index)
    rows = choose_rows(summary, self_index, found)
    listed = np.concatenate([kind.targets for kind in rows])
    targets = (
        listed,
        overview.block_targets,
        overview.chosen,
        overview.lowest_margin,
        summary.pairs.targets[pairs],
    )
    found = np.concatenate(
        [
            overview.block_examples,
            summary.top_examples[overview.lowest_margin].ravel(),
            summary.top_examples[listed, : OTHERS + 1].ravel(),
            summary.pairs.examples[pairs],
            *(self_index[of] for of in targets),
            *(one.examples[overview.lowest_margin].ravel() for one in scored),
        ]
    )
    return np.unique(found[found >= 0]).astype(np.int64)


def _shown_examples(shown: Shown, examples: Int[np.ndarray, ' P']) -> ShownExamples:
    def those(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
        return None if values is None else tuple(values[i] for i in examples.tolist())

    texts = those(shown.texts)
    return ShownExamples(
        examples,
        images=None if shown.images is None else shown.images[examples],
        texts=texts and tuple(clean(shortened(text, LONGEST_TEXT)) for text in texts),
        columns=shown.columns,
        rows=those(shown.rows),
    )


class _Truth(NamedTuple):
    """Which targets have near-duplicates, if that is known, and how it is."""

    targets: Bool[np.ndarray, ' T'] | None
    source: str


def _near_duplicates(
    shown: Shown, self_index: Int[np.ndarray, ' T'], given: Bool[np.ndarray, ' T'] | None
) -> _Truth:
    if given is not None:
        return _Truth(np.asarray(given, bool), 'as given')
    if shown.groups is not None:
        injected = any(shown.changes)
        source = 'injected: originals and their variants' if injected else "the dataset's groups"
        examples = in_a_group(shown.groups)
    elif shown.images is not None and any(shown.labels):
        labels = np.unique(shown.labels, return_inverse=True)[1]
        dataset = Dataset({'image': shown.images, 'label': labels.astype(np.int32)})
        source = 'same class, RMS < 0.06'
        examples = has_near_duplicate(near_duplicates(dataset), len(labels))
    else:
        return _Truth(None, '')
    return _Truth(examples[self_index] & (self_index >= 0), source)


class _Compared(NamedTuple):
    """What is known of unique and near-duplicated targets."""

    comparison: Comparison | None = None
    text: TextResults | None = None
    regime: Judgment | None = None


def _compared(
    run: ReportedRun,
    losses: Float[np.ndarray, 'M T'],
    overview: Overview,
    shown: Shown,
    *,
    key: PRNGKey,
    decoded: Sequence[str] | None,
    reference: Reference | None,
) -> _Compared:
    if shown.groups is None:
        return _Compared()
    summary, self_index = overview.summary, overview.target_examples
    estimator = summary.estimator
    assert isinstance(estimator, Estimator)  # it is of a run, not of columns
    groups = groups_of_targets(shown, self_index)
    assert groups is not None
    comparison = functools.partial(
        compare, summary, groups, examples=len(overview.distributions), key=key
    )
    decoded = kept_completions(run) if decoded is None else tuple(decoded)
    if (
        decoded is None
        or shown.prompts is None
        or shown.completions is None
        or not (self_index >= 0).all()
    ):
        return _Compared(comparison() if in_a_group(groups).any() else None)

    prompts, completions, changes = (
        tuple(texts[i] for i in self_index.tolist())
        for texts in (shown.prompts, shown.completions, shown.changes)
    )
    found = extraction.scores(decoded, completions)
    siblings = extraction.nearest_siblings(decoded, completions, groups)
    more: tuple[Score, ...] = ()
    if reference and estimator.name != difference_in_means.name:
        # The margin by the estimator of published numbers.
        plain = summarize(
            run.masks, losses, estimator=difference_in_means, target_examples=self_index
        )
        more = (Score('margin, by difference of means', plain.margin, low_marks=True),)
    compared = comparison(extraction=found, siblings=siblings, more=more)
    recorded = measurement_names(run)
    by_members = {
        name: extraction.by_membership(run.masks, run.measurement(measurement), self_index)
        for name, measurement in _BY_MEMBERS.items()
        if measurement in recorded
    }
    text = TextResults(
        prompts=prompts,
        completions=completions,
        changes=changes,
        decoded=decoded,
        bleu=found.bleu,
        exact_match=found.exact_match,
        longest_common_share=found.longest_common_share,
        siblings=siblings,
        by_members=by_members,
        view=cluster_view(
            run.masks,
            losses,
            groups,
            summary=summary,
            estimator=estimator,
            target_examples=self_index,
        ),
    )
    return _Compared(compared, text, judge(found, compared.near_duplicated, by_members.get('BLEU')))
