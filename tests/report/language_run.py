"""A small run on texts with planted clusters, some of whose records are hostile."""

from typing import Any

import numpy as np

from experiments.paper import PUBLISHED as REFERENCE
from influence_jax import report
from influence_jax.analysis.extraction import scores_of_members
from influence_jax.estimators import difference_in_means
from influence_jax.store import Shown

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


def run(**changes: Any) -> report.ArrayRun:
    """The run, with what is shown of its records."""
    masks, losses, groups = planted()
    prompts = tuple(f'Q: question {n} of {NASTY[n % len(NASTY)]} A:' for n in range(N))
    completions = tuple(f' answer {n} {NASTY[(n + 1) % len(NASTY)]}' for n in range(N))
    ids = tuple(f'id-{n}' for n in range(N))
    shown = {
        'names': ids,
        'groups': groups,
        'changes': tuple('' if n % 3 else f'token 1: {NASTY[n % len(NASTY)]}' for n in range(N)),
        'texts': tuple(p + c for p, c in zip(prompts, completions, strict=True)),
        'prompts': prompts,
        'completions': completions,
    }
    by_members = [decoded(completions), completions[::-1]] * (MEMBERS // 2)
    return report.ArrayRun(
        masks=masks,
        measurements={
            'loss': losses,
            'bleu': scores_of_members(by_members, completions).bleu.astype(np.float32),
        },
        example_ids=ids,
        target_ids=ids,
        shown=Shown(**shown | changes),
    )


def decoded(completions: tuple[str, ...]) -> tuple[str, ...]:
    """What the full-data model wrote: some of it right, once nothing."""
    texts = [
        c if n % 4 == 0 or n >= UNIQUE + 4 else NASTY[n % 6] for n, c in enumerate(completions)
    ]
    texts[1] = ''
    return tuple(texts)


def results(
    *,
    written: tuple[str, ...] | None = None,
    reference: report.Reference | None = REFERENCE,
    **changes: Any,
) -> report.Results:
    """The results of the run; of changed records, or had the full-data model written this."""
    texts = run(**changes)
    return report.gather(
        texts,
        estimator=difference_in_means,
        title=f'A run {SCRIPT}',
        decoded=decoded(texts.shown.completions) if written is None else written,
        reference=reference,
        facts={'seed': '0'},
    )
