"""Membership attacks on a run's own members: rates, shadow models needed, records at risk.

    python -m benchmarks.membership RUN_DIRECTORY [FIGURE.png]

The run holds the measurements `loss` and `logit_gap`. Prints Markdown tables, draws the curves.
What foretells which records are at risk: `benchmarks.membership_predictors`.
"""

import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from scipy.sparse import coo_array, csgraph

from influence_jax import data, store
from influence_jax.analysis import membership
from influence_jax.analysis.membership import Attack, Resample, Setting, Variance
from influence_jax.data.pixel_distance import near_duplicates
from influence_jax.report.figures import roc_curves
from influence_jax.report.theme import Theme, png

KEY = jax.random.key(0)
SHADOWS = (32, 64, 128, 255)


def main(directory: str, figure: str | None = None) -> None:
    start = time.perf_counter()
    run = store.open_run(directory)
    masks = run.masks[run.complete]
    losses, gaps = (run.measurement(name)[run.complete] for name in ('loss', 'logit_gap'))
    rng = np.random.default_rng(0)
    print(f'{len(masks)} members, {losses.shape[1]} targets\n')

    print('## Attacks, all other members as shadow models\n')
    attacks = _attacks(masks, losses, gaps)
    attacks['LiRA online, masks shuffled'] = membership.lira(rng.permutation(masks), gaps)
    performances = _rates(attacks)
    print('\nIntervals over clusters of near-duplicate records instead of members\n')
    _rates(attacks, resample=Resample.TARGETS, groups=_clusters(run.example_ids))

    print('\n## Shadow models\n')
    order = rng.permutation(len(masks))
    _by_shadow_models(masks[order], losses[order], gaps[order])

    print('\n## Records\n')
    _records(attacks['LiRA online'], run.example_ids)

    if figure is not None:
        shown = ('LiRA online', 'LiRA offline', 'RMIA, gamma 2', 'loss alone')
        curves = {name: membership.points(performances[name].roc) for name in shown}
        Path(figure).write_bytes(png(roc_curves(curves, theme=Theme.light())))
    print(f'\n{time.perf_counter() - start:.0f} s')


def _attacks(masks: np.ndarray, losses: np.ndarray, gaps: np.ndarray) -> dict[str, Attack]:
    attacks = {}
    for setting in Setting:
        for variance in (Variance.PER_RECORD, Variance.GLOBAL):
            name = f'LiRA {setting.value}' + ', global variance' * (variance is Variance.GLOBAL)
            attacks[name] = membership.lira(masks, gaps, setting=setting, variance=variance)
    for gamma in (1.0, 2.0, 4.0):
        attacks[f'RMIA, gamma {gamma:g}'] = membership.rmia(masks, losses, gamma=gamma)
    attacks['loss alone'] = Attack(-losses, masks, np.arange(losses.shape[1]))
    return attacks


def _clusters(example_ids: tuple[str, ...]) -> np.ndarray | None:
    """`[N]` the same number for near-duplicates of the clip art; None of other records."""
    dataset = data.load('clipart')
    if tuple(dataset.ids) != tuple(example_ids):
        return None
    pairs, shape = near_duplicates(dataset), (dataset.num_examples,) * 2
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=shape)
    return csgraph.connected_components(graph)[1]


def _rates(attacks: dict[str, Attack], **options: Any) -> dict[str, membership.Performance]:
    print('| attack | TPR at 0.1 % FPR | TPR at 0.01 % FPR | AUROC | balanced accuracy |')
    print('|---|---|---|---|---|')
    performances = {}
    for name, attack in attacks.items():
        found = performances[name] = membership.performance(attack, key=KEY, **options)
        cells = [_percent(rate) for rate in found.true_positive_rates]
        cells += [_number(found.auroc), _percent(found.balanced_accuracy)]
        print(f'| {name} | ' + ' | '.join(cells) + ' |', *found.notes)
    return performances


def _by_shadow_models(masks: np.ndarray, losses: np.ndarray, gaps: np.ndarray) -> None:
    """Disjoint groups of members, each attacked by the rest of its group; scores pooled."""
    attacks = {}
    for shadows in SHADOWS:
        size = shadows + 1
        groups = [slice(i, i + size) for i in range(0, len(masks) - size + 1, size)]
        if not groups:
            continue
        parts = [_attacks(masks[g], losses[g], gaps[g]) for g in groups]
        for name in ('LiRA online', 'LiRA online, global variance', 'LiRA offline'):
            attacks[f'{shadows} ({len(groups)} groups): {name}'] = _pooled(parts, name)
        attacks[f'{shadows} ({len(groups)} groups): RMIA'] = _pooled(parts, 'RMIA, gamma 2')
    _rates(attacks)


def _pooled(parts: list[dict[str, Attack]], name: str) -> Attack:
    return Attack(
        np.concatenate([part[name].scores for part in parts]),
        np.concatenate([part[name].included for part in parts]),
        parts[0][name].targets,
    )


def _records(attack: Attack, example_ids: tuple[str, ...]) -> None:
    single = membership.vulnerability(attack)
    kinds = {'all': np.ones(len(single.auroc), bool)}
    clusters = _clusters(example_ids)
    if clusters is not None:
        duplicated = np.bincount(clusters)[clusters] > 1
        kinds |= {'near-duplicated': duplicated, 'unique': ~duplicated}
    levels = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)
    print('| | ' + ' | '.join(f'quantile {level:g}' for level in levels) + ' |')
    for name in ('auroc', 'auroc_standard_error', 'success', 'success_standard_error'):
        for kind, which in kinds.items():
            quantiles = np.quantile(getattr(single, name)[which], levels)
            cells = ' | '.join(f'{quantile:.3f}' for quantile in quantiles)
            print(f'| {name}, {kind} ({which.sum()}) | {cells} |')


def _percent(rate: membership.Interval) -> str:
    return f'{rate.value:.2%} ({rate.low:.2%} .. {rate.high:.2%})'


def _number(value: membership.Interval) -> str:
    return f'{value.value:.4f} ({value.low:.4f} .. {value.high:.4f})'


if __name__ == '__main__':
    main(*sys.argv[1:])
