"""Examples of records, and of what a model wrote when it was given their prompts."""

import numpy as np

from influence_jax.analysis.extraction import longest_common_substring
from influence_jax.analysis.views import at_even_steps
from influence_jax.report.language_results import LanguageResults, shortened
from influence_jax.report.sections import Record, Records, Section
from influence_jax.report.wording import count, number

_SHORTEST_MARK = 4
_CLUSTERS, _OF_A_CLUSTER, _UNIQUE = 3, 5, 6


def records(results: LanguageResults) -> Section:
    """A few clusters and unique records, at even steps of BLEU."""
    bleu, groups = results.extraction.bleu, np.asarray(results.groups)
    duplicated = np.flatnonzero(results.comparison.near_duplicated)
    unique = np.flatnonzero(~results.comparison.near_duplicated)
    parts = [
        Records(
            f'A cluster of {count(int((groups == group).sum()), "record")}',
            [_record(results, t) for t in np.flatnonzero(groups == group)[:_OF_A_CLUSTER].tolist()],
        )
        for group in at_even_steps(groups[duplicated], bleu[duplicated], _CLUSTERS)[::-1]
    ]
    chosen = at_even_steps(unique, bleu[unique], _UNIQUE)[::-1]
    if len(chosen):
        parts.append(Records('Unique records', [_record(results, t) for t in chosen.tolist()]))
    return Section(
        'Records, and what was given back',
        'Left what the model was given and, in bold, what it should have written; in the middle '
        'what it wrote, the longest string in common marked. Taken at even steps of BLEU, from '
        'the highest to the lowest.',
        parts,
    )


def _nearest(results: LanguageResults, target: int) -> list[tuple[str, str]]:
    """Whether a near-duplicate is given back instead; nothing of a unique record."""
    siblings = results.siblings
    if siblings.nearest[target] < 0:
        return []
    instead = 'both alike' if siblings.as_near[target] else 'the record'
    return [('nearest to', 'a near-duplicate' if siblings.nearer[target] else instead)]


def _record(results: LanguageResults, target: int) -> Record:
    truth = shortened(results.completions[target].strip())
    decoded = shortened(results.decoded[target].strip())
    common = longest_common_substring(decoded, truth)
    if len(common) < min(_SHORTEST_MARK, len(truth)):
        common = ''
    start = decoded.find(common)
    extraction, summary = results.extraction, results.summary
    return Record(
        prompt=shortened(results.prompts[target].strip()),
        truth=truth,
        change=shortened(results.changes[target]),
        decoded=decoded,
        common=(start, start + len(common)),
        numbers=[
            ('BLEU', number(extraction.bleu[target])),
            ('exact match', 'yes' if extraction.exact_match[target] else 'no'),
            *_nearest(results, target),
            ('in common', f'{extraction.longest_common_share[target]:.0%}'),
            (f'self-influence ({results.unit})', number(summary.self_influence[target])),
            ('margin', number(summary.margin[target])),
        ],
    )
