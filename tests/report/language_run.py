"""A small run on texts with planted clusters, some of whose records are hostile."""

from typing import Any

import jax
import numpy as np

from experiments.paper import PUBLISHED
from influence_jax import analysis
from influence_jax.analysis.extraction import (
    by_membership,
    nearest_siblings,
    scores,
    scores_of_members,
)
from influence_jax.analysis.near_duplicate_comparison import compare
from influence_jax.analysis.views import cluster_view
from influence_jax.report import LanguageResults

UNIQUE, CLUSTERS, COPIES, MEMBERS = 24, 4, 4, 80
N = UNIQUE + CLUSTERS * COPIES
SCRIPT = '"><script>document.title="owned"</script>'
RIGHT_TO_LEFT = '\N{RIGHT-TO-LEFT OVERRIDE}'
NASTY = (
    SCRIPT,
    'it\'s "quoted" & <b>bold</b> \'',
    'bell\x07 escape\x1b[2J nul\x00 line\nbreak\ttab',
    f'{RIGHT_TO_LEFT}gnp.exe \N{RIGHT-TO-LEFT ISOLATE} שלום',
    r'costs $5 and $\frac{1}{2}$ or $\nothing$ {{ 7 * 7 }} {% raw %}',
    'half of a character \ud800 and an emoji 🙂',
)


def planted() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """masks [M N], losses [M N], groups [N]: each cluster's records stand in for one another."""
    rng = np.random.default_rng(0)
    groups = np.concatenate(
        [np.arange(UNIQUE), UNIQUE + np.repeat(np.arange(CLUSTERS), COPIES)]
    ).astype(np.int32)
    masks = rng.random((MEMBERS, N)) < 0.5
    losses = rng.normal(4.0, 0.2, (MEMBERS, N))
    for target in range(N):
        siblings = groups == groups[target]
        gain = 2.0 if siblings.sum() == 1 else 1.5
        losses[:, target] -= gain * (1 - 0.5 ** masks[:, siblings].sum(axis=1))
    return masks, losses.astype(np.float32), groups


def results() -> tuple[LanguageResults, analysis.Overview]:
    """What the sections are made of, and the overview of the same run."""
    masks, losses, groups = planted()
    prompts = tuple(f'Q: question {n} of {NASTY[n % len(NASTY)]} A:' for n in range(N))
    completions = tuple(f' answer {n} {NASTY[(n + 1) % len(NASTY)]}' for n in range(N))
    changes = tuple('' if n % 3 else f'token 1: {NASTY[n % len(NASTY)]}' for n in range(N))
    decoded = [
        c if n % 4 == 0 or n >= UNIQUE + 4 else NASTY[n % 6] for n, c in enumerate(completions)
    ]
    decoded[1] = ''
    extraction = scores(decoded, completions)
    siblings = nearest_siblings(decoded, completions, groups)
    by_members = [decoded, list(reversed(completions)), decoded, decoded]
    overview = analysis.overview(masks, losses, key=jax.random.key(0))
    return (
        LanguageResults(
            summary=overview.summary,
            comparison=compare(
                overview.summary,
                groups,
                key=jax.random.key(1),
                extraction=extraction,
                siblings=siblings,
                reference=PUBLISHED,
                resamples=50,
            ),
            view=cluster_view(masks, losses, groups, summary=overview.summary),
            groups=groups,
            prompts=prompts,
            completions=completions,
            changes=changes,
            decoded=decoded,
            extraction=extraction,
            siblings=siblings,
            held={
                'BLEU': by_membership(masks[:4], scores_of_members(by_members, completions).bleu)
            },
        ),
        overview,
    )


def arguments_of(found: LanguageResults, overview: analysis.Overview) -> dict[str, Any]:
    """What `report.write` takes of the same run, without sections."""
    from influence_jax import report

    texts = [p + c for p, c in zip(found.prompts, found.completions, strict=True)]
    ids = [f'id-{n}' for n in range(N)]
    return {
        'overview': overview,
        'facts': {'seed': '0'},
        'target_ids': ids,
        'example_ids': ids,
        'example_names': texts,
        'example_labels': [''] * N,
        'show': report.texts(texts),
        'title': f'A run {SCRIPT}',
        'near_duplicates': found.comparison.near_duplicated,
    }
