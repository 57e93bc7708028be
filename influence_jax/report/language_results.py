"""What the sections of a run on texts are made of, checked before anything is drawn."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from influence_jax import text as texts
from influence_jax.analysis.extraction import ByMembership, Extraction, Siblings
from influence_jax.analysis.near_duplicate_comparison import Comparison
from influence_jax.analysis.views import ClusterView
from influence_jax.estimators.summary import Summary
from influence_jax.report.figure_style import UNIT

_LONGEST_TEXT = 400


@dataclasses.dataclass(frozen=True, eq=False)
class LanguageResults:
    """What the sections are made of; no text in it is trusted.

    Attributes:
      summary: of the influence matrix.
      comparison: from `near_duplicate_comparison.compare`, with an extraction.
      view: from `cluster_view`.
      groups: `[T]` the same number for the near-duplicates of one record.
      prompts: `[T]` what the model was given.
      completions: `[T]` what it should have written.
      changes: `[T]` how a record differs from the one it was made of; '' for originals.
      decoded: `[T]` what a model trained on everything wrote.
      extraction: `[T]` of that.
      siblings: `[T]` how near that is to the near-duplicates of each record.
      held: scores of what members decoded, by name, averaged over those that held the record and
        those that did not; none where they decoded nothing.
      unit: of influences, for labels.
    """

    summary: Summary
    comparison: Comparison
    view: ClusterView
    groups: Int[np.ndarray, ' T']
    prompts: Sequence[str]
    completions: Sequence[str]
    changes: Sequence[str]
    decoded: Sequence[str]
    extraction: Extraction
    siblings: Siblings
    held: Mapping[str, ByMembership] = dataclasses.field(default_factory=dict)
    unit: str = UNIT

    def __post_init__(self) -> None:
        targets = len(self.summary.margin)
        for name, values in (
            ('groups', self.groups),
            ('prompts', self.prompts),
            ('completions', self.completions),
            ('changes', self.changes),
            ('decoded', self.decoded),
            ('near_duplicated', self.comparison.near_duplicated),
            ('BLEU', self.extraction.bleu),
            ('siblings', self.siblings.nearest),
        ):
            if len(values) != targets:
                raise ValueError(f'{len(values)} {name} for {targets} targets: give one for each')
        if self.comparison.extractable is None:
            raise ValueError('the comparison knows no extraction: give it to compare() too')

    def text(self, target: int) -> str:
        """The whole of a record, shortened."""
        return shortened(self.prompts[target] + self.completions[target])


def shortened(text: str) -> str:
    """A text of at most 400 characters; an ellipsis where it goes on."""
    return texts.shortened(text, _LONGEST_TEXT)
