"""What a report is made of, gathered and checked before anything is drawn or written."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float

from influence_jax.analysis.views import Overview
from influence_jax.report.figure_style import UNIT
from influence_jax.report.sections import Section
from influence_jax.report.thumbnails import Show
from influence_jax.text import LONGEST_NAME, clean, shortened


@dataclasses.dataclass(frozen=True, eq=False)
class Content:
    """Results, and the names under which people know them.

    Nothing in it is trusted markup but what `show` returns.

    Attributes:
      title: heading of the page.
      overview: what is drawn.
      facts: the run's settings and outcomes, shown as a table in this order.
      target_ids: `[T]`.
      example_ids: `[N]`.
      example_names: `[N]` for people.
      example_labels: `[N]` class or kind, '' where there is none.
      show: markup of an example.
      near_duplicates: `[T]` targets known to have a near-duplicate, or None.
      mean_loss: `[T]` mean measurement of each target over all members (nats), or None.
      missing: members that have not been trained.
      diverged: members that were trained and left out of every estimate.
      stopped_early: why the missing members need not be trained; None where they should be.
      notes: more sentences on what to know before believing the page.
      unit: of influences, for labels.
      sections: further pieces of the page, before all others.
    """

    title: str
    overview: Overview
    facts: Mapping[str, str]
    target_ids: Sequence[str]
    example_ids: Sequence[str]
    example_names: Sequence[str]
    example_labels: Sequence[str]
    show: Show
    near_duplicates: Bool[np.ndarray, ' T'] | None
    mean_loss: Float[np.ndarray, ' T'] | None
    missing: Sequence[int]
    diverged: Sequence[int]
    stopped_early: str | None = None
    notes: Sequence[str] = ()
    unit: str = UNIT
    sections: Sequence[Section] = ()

    def __post_init__(self) -> None:
        targets = len(self.overview.summary.margin)
        examples = len(self.overview.distributions)
        for name, values, expected in (
            ('target_ids', self.target_ids, targets),
            ('near_duplicates', self.near_duplicates, targets),
            ('mean_loss', self.mean_loss, targets),
            ('example_ids', self.example_ids, examples),
            ('example_names', self.example_names, examples),
            ('example_labels', self.example_labels, examples),
        ):
            if values is not None and len(values) != expected:
                raise ValueError(
                    f'the report needs {expected} {name}, one for each, got {len(values)}'
                )

    @property
    def num_targets(self) -> int:
        """T."""
        return len(self.target_ids)

    @property
    def num_examples(self) -> int:
        """N."""
        return len(self.example_ids)

    def example_of(self, target: int) -> int | None:
        """The example that a target is; None where it is none."""
        example = int(self.overview.target_examples[target])
        return example if example >= 0 else None

    def target_name(self, target: int) -> str:
        """The name of the target's example, else the target's id."""
        example = self.example_of(target)
        return self.target_ids[target] if example is None else self.example_names[example]

    def is_near_duplicate(self, target: int) -> bool:
        """Whether the target is known to have a near-duplicate."""
        return self.near_duplicates is not None and bool(self.near_duplicates[target])

    def off_diagonal_standard_error(self) -> float:
        """Median over the targets of that of an entry without influence (nats)."""
        return _median(self.overview.summary.null_standard_error)

    def off_diagonal_z(self) -> float:
        """Median |influence| in standard errors, over the chosen columns but their own rows."""
        own = self.overview.target_examples[self.overview.chosen]
        others = np.arange(self.num_examples)[:, np.newaxis] != own[np.newaxis, :]
        values = np.abs(self.overview.distributions[others])
        errors = self.overview.distribution_standard_errors[others]
        return _median(values / np.where(errors > 0, errors, np.nan))

    def self_standard_error(self) -> float:
        """Median standard error of self-influence (nats); NaN where no target is an example."""
        return _median(self.overview.summary.self_standard_error)


def named(text: str) -> str:
    """A name or an id, as it is shown."""
    return clean(shortened(text, LONGEST_NAME))


def _median(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float('nan')
