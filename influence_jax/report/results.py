"""Everything that a report shows, as plain arrays and texts: stored first, then shown.

Page, figures, CSV files and terminal tables are functions of `Results` and of nothing else.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from influence_jax import formatting
from influence_jax.analysis.extraction import ByMembership, Siblings
from influence_jax.analysis.membership import MembershipResults
from influence_jax.analysis.near_duplicate_comparison import Comparison
from influence_jax.analysis.verdicts import verdicts
from influence_jax.analysis.views import ClusterView, Overview
from influence_jax.estimators import Method, SignificantPairs, Summary, z_scores
from influence_jax.report import storage
from influence_jax.report.sections import Section

PAGE = 'index.html'
"""Name of the page in a report's directory."""

REPORT = 'report'
"""Name of the report's directory in that of a run."""

UNIT = 'nats'
"""Unit of influences, unless another is named."""

RESULTS = 'results.zarr'
"""Name of the stored results in a report's directory."""


class PublishedSpread(NamedTuple):
    """Mean and standard deviation over the targets of a kind, as printed elsewhere."""

    mean: float
    standard_deviation: float


class PublishedRow(NamedTuple):
    """A row of a published table of unique and near-duplicated records.

    digits: how many it prints behind the point.
    """

    unique: PublishedSpread
    near_duplicated: PublishedSpread
    digits: int


class Reference(NamedTuple):
    """Published numbers to show beside a run's own.

    name: of whom, as the head of a column: 'the paper'.
    source: where they stand, and of what they are.
    rows: by the name of the score: 'self-influence', 'BLEU', 'margin' ...
    """

    name: str
    source: str
    rows: Mapping[str, PublishedRow]


class TextResults(NamedTuple):
    """What models give back of the records of a run on texts.

    prompts: `[T]` what a model is given.
    completions: `[T]` what it should write.
    changes: `[T]` how a record differs from the one it was made of; '' for originals.
    decoded: `[T]` what a model trained on all records wrote.
    bleu, exact_match, longest_common_share: `[T]` of that, see `analysis.extraction`.
    siblings: how near it is to the near-duplicates of each record.
    by_members: scores of what members decoded, by name, averaged over those with the record in
        their subset and those without; none where they decoded nothing.
    view: clusters in the influence matrix.
    """

    prompts: tuple[str, ...]
    completions: tuple[str, ...]
    changes: tuple[str, ...]
    decoded: tuple[str, ...]
    bleu: Float[np.ndarray, ' T']
    exact_match: Bool[np.ndarray, ' T']
    longest_common_share: Float[np.ndarray, ' T']
    siblings: Siblings
    by_members: Mapping[str, ByMembership]
    view: ClusterView


class Attributed(NamedTuple):
    """Scores of a method of attribution, beside the ensemble's influences.

    method: which.
    unit: of the scores; empty where only their order means anything.
    self_score: `[T]` of the target's own example; NaN where it is none.
    margin: `[T]` of the column of scores, see `Summary.margin`.
    strongest_other: `[T]` the example of largest score, other than the target itself.
    other_score: `[T]` that score.
    examples: `[T R]` examples of largest score, strongest first.
    scores: `[T R]` theirs.
    """

    method: Method
    unit: str
    self_score: Float[np.ndarray, ' T']
    margin: Float[np.ndarray, ' T']
    strongest_other: Int[np.ndarray, ' T']
    other_score: Float[np.ndarray, ' T']
    examples: Int[np.ndarray, 'T R']
    scores: Float[np.ndarray, 'T R']


class ShownExamples(NamedTuple):
    """Those examples that the page shows; as images, as texts, as rows of a table, or by name.

    examples: `[P]` their positions, ascending.
    images: `[P H W C]`, or None.
    texts: `[P]`, or None.
    columns: names of the columns of `rows`.
    rows: `[P]` a text for each column, or None.
    """

    examples: Int[np.ndarray, ' P']
    images: UInt8[np.ndarray, 'P H W C'] | None = None
    texts: tuple[str, ...] | None = None
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] | None = None

    @property
    def by_name_alone(self) -> bool:
        """Returns whether nothing but names is known of the examples."""
        return self.images is None and self.texts is None and self.rows is None

    @property
    def noun(self) -> str:
        """Returns what an example is called: 'image', 'record' or 'example'."""
        if self.images is not None:
            return 'image'
        return 'example' if self.texts is None else 'record'


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Results:
    """Results, and the names under which people know them. No text in it is trusted.

    Attributes:
      title: heading of the page.
      unit: of influences.
      method: the estimator.
      overview: what is drawn.
      target_ids: `[T]`.
      example_ids: `[N]`.
      example_names: `[N]` for people.
      example_labels: `[N]` class or kind, '' where there is none.
      example_changes: `[N]` what was changed of an injected near-duplicate, shown before its name.
      shown: how the examples of the page look.
      near_duplicates: `[T]` targets known to have a near-duplicate, or None.
      mean_loss: `[T]` mean measurement of each target over the members of the estimate, or None.
      members: how many were measured, repeats of a subset included, which
        `Summary.members_used` counts once; None of columns and of older reports.
      member_digests: `[M 2]` of the members of the estimate, repeats of a subset included, see
        `analysis.shared_members`; None of columns and of older reports.
      missing: members that have not been trained.
      diverged: members that were trained and left out of every estimate.
      stopped_early: why the missing members need not be trained; None where they should be.
      notes: sentences on what to know before believing the page.
      facts: the run's settings and outcomes, in this order.
      comparison: unique against near-duplicated targets, where groups are known.
      text: what is extracted of a run on texts.
      reference: published numbers, shown beside the comparison.
      attributed: scores of methods of attribution.
      membership: how well attacks tell the members that trained on a target; None of too few.
      sections: further pieces of the page.

    Raises:
      ValueError: numbers of names or positions do not fit the overview.
    """

    title: str
    unit: str
    method: Method
    overview: Overview
    target_ids: tuple[str, ...]
    example_ids: tuple[str, ...]
    example_names: tuple[str, ...]
    example_labels: tuple[str, ...]
    example_changes: tuple[str, ...]
    shown: ShownExamples
    near_duplicates: Bool[np.ndarray, ' T'] | None = None
    mean_loss: Float[np.ndarray, ' T'] | None = None
    members: int | None = None
    member_digests: Int[np.ndarray, '_ 2'] | None = None
    missing: Int[np.ndarray, ' missing']
    diverged: Int[np.ndarray, ' diverged']
    stopped_early: str | None = None
    notes: tuple[str, ...] = ()
    facts: Mapping[str, str]
    comparison: Comparison | None = None
    text: TextResults | None = None
    reference: Reference | None = None
    attributed: tuple[Attributed, ...] = ()
    membership: MembershipResults | None = None
    sections: tuple[Section, ...] = ()

    def __post_init__(self) -> None:
        T, N = len(self.overview.summary.margin), len(self.overview.distributions)
        P = len(self.shown.examples)
        of_text = self.text._asdict() if self.text else {}
        counts = {
            'target_ids': (self.target_ids, T),
            'near_duplicates': (self.near_duplicates, T),
            'mean_loss': (self.mean_loss, T),
            'example_ids': (self.example_ids, N),
            'example_names': (self.example_names, N),
            'example_labels': (self.example_labels, N),
            'example_changes': (self.example_changes, N),
            'images': (self.shown.images, P),
            'texts': (self.shown.texts, P),
            'rows': (self.shown.rows, P),
            'groups': (self.comparison.groups if self.comparison else None, T),
            'vulnerability': (self.membership.vulnerability if self.membership else None, T),
        } | {
            name: (of_text.get(name), T)
            for name in ('prompts', 'completions', 'changes', 'decoded', 'bleu')
        }
        for name, (values, expected) in counts.items():
            if values is not None and len(values) != expected:
                raise ValueError(
                    f'the report needs {expected} {name}, one for each, got {len(values)}'
                )
        if self.text and (self.comparison is None or self.comparison.extractable is None):
            raise ValueError('extraction needs a comparison with extractable targets')
        for row in self.shown.rows or ():
            if len(row) != len(self.shown.columns):
                raise ValueError(f'a row of {len(row)} cells, not {len(self.shown.columns)}')
        _check_positions(self, targets=T, examples=N)

    def save(self, directory: Path) -> None:
        """Writes `results.zarr` to a directory that has none; durable on return."""
        storage.save(directory / RESULTS, self)

    @classmethod
    def load(cls, directory: Path | str) -> 'Results':
        """Reads the results of a report.

        Args:
          directory: of the report.

        Raises:
          FileNotFoundError: there are none.
          ValueError: they are damaged or of another version; one line.
        """
        return storage.load(Path(directory) / RESULTS, cls)

    @property
    def summary(self) -> Summary:
        """Returns the summary of the influence matrix."""
        return self.overview.summary

    @property
    def members_used(self) -> tuple[int, str]:
        """Returns (512, 'members'), with repeats (480, 'members on 48 subsets'); 0 of columns."""
        subsets = self.summary.members_used
        if self.members is None or self.members <= subsets:
            return subsets, 'member' if subsets == 1 else 'members'
        return self.members, f'members on {formatting.count(subsets, "subset")}'

    @property
    def num_targets(self) -> int:
        """Returns T."""
        return len(self.target_ids)

    @property
    def num_examples(self) -> int:
        """Returns N."""
        return len(self.example_ids)

    @functools.cached_property
    def verdicts(self) -> Int[np.ndarray, ' T']:
        """Returns the `Verdict` on each target."""
        return verdicts(
            self.summary,
            mean_loss=self.mean_loss,
            target_examples=self.overview.target_examples,
        )

    def example_of(self, target: int) -> int | None:
        """Returns the example that a target is; None where it is none."""
        example = int(self.overview.target_examples[target])
        return example if example >= 0 else None

    def full_name(self, example: int) -> str:
        """Returns the name of an example; of an injected near-duplicate first what was changed."""
        change, name = self.example_changes[example], self.example_names[example]
        return f'{change}: {name}' if change else name

    def target_name(self, target: int) -> str:
        """Returns the full name of the target's example, else the target's id."""
        example = self.example_of(target)
        return self.target_ids[target] if example is None else self.full_name(example)

    def target_label(self, target: int) -> str:
        """Returns the class or kind of the target's example; '' where there is none."""
        example = self.example_of(target)
        return '' if example is None else self.example_labels[example]

    def has_near_duplicate(self, target: int) -> bool:
        """Returns whether the target is known to have a near-duplicate."""
        return self.near_duplicates is not None and bool(self.near_duplicates[target])

    def off_diagonal_standard_error(self) -> float:
        """Returns the median over the targets of that of an entry without influence."""
        return _median(self.summary.null_standard_error)

    def off_diagonal_z(self) -> float:
        """Returns the median |influence| in standard errors, over the chosen columns' others."""
        self_index = self.overview.target_examples[self.overview.chosen]
        others = np.arange(self.num_examples)[:, np.newaxis] != self_index[np.newaxis, :]
        values = np.abs(self.overview.distributions[others])
        errors = self.overview.distribution_standard_errors[others]
        return _median(values / np.where(errors > 0, errors, np.nan))

    def self_standard_error(self) -> float:
        """Returns the median standard error of self-influence; NaN without any."""
        return _median(self.summary.self_standard_error)


def surest_pairs(
    pairs: SignificantPairs, *, helpful: int = 12, harmful: int = 6
) -> Int[np.ndarray, ' _']:
    """Returns positions of the surest positive influences, then of the surest negative ones."""
    z = z_scores(pairs.values, pairs.standard_errors)
    surest = np.argsort(-np.abs(z), kind='stable')
    return np.concatenate([surest[z[surest] > 0][:helpful], surest[z[surest] < 0][:harmful]])


def _check_positions(results: Results, *, targets: int, examples: int) -> None:
    """Refuses positions of which there is no example or target: files may hold any number."""
    overview, summary = results.overview, results.summary
    of_examples: list[tuple[str, Any]] = [
        ('top_examples', summary.top_examples),
        ('strongest_other', summary.strongest_other),
        ('pairs', summary.pairs.examples),
        ('block_examples', overview.block_examples),
        ('shown', results.shown.examples),
    ]
    of_targets: list[tuple[str, Any]] = [
        ('pairs', summary.pairs.targets),
        ('lowest_margin', overview.lowest_margin),
        ('most_memorized', overview.most_memorized),
        ('block_targets', overview.block_targets),
        ('chosen', overview.chosen),
    ]
    # -1 for none.
    optional = [('target_examples', overview.target_examples, examples)]
    if results.text:
        view = results.text.view
        of_targets.append(('view', view.targets))
        for column in filter(None, (view.unique, view.duplicated)):
            of_targets.append(('column', [column.target]))
            of_examples += [('column', [column.self_index]), ('column', column.siblings)]
        optional.append(('siblings', results.text.siblings.nearest, targets))
    for name, positions, least, count in (
        *((name, positions, 0, examples) for name, positions in of_examples),
        *((name, positions, 0, targets) for name, positions in of_targets),
        *((name, positions, -1, count) for name, positions, count in optional),
    ):
        positions = np.asarray(positions)
        if positions.size and not least <= positions.min() <= positions.max() < count:
            raise ValueError(f'{name} holds a position outside {least} .. {count - 1}')


def _median(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float('nan')
