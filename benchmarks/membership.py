"""Membership attacks on a run's own members: rates, shadow models needed, what foretells them.

    python -m benchmarks.membership RUN_DIRECTORY [FIGURE.png]

The run holds the measurements `loss` and `logit_gap`. Prints Markdown tables, draws the curves.
"""

import sys
import time
from pathlib import Path

import jax
import numpy as np

from influence_jax import data, store
from influence_jax.analysis import membership
from influence_jax.analysis.membership import Attack, Resample, Setting, Variance
from influence_jax.data.pixel_distance import has_near_duplicate, near_duplicates
from influence_jax.estimators import Estimator
from influence_jax.report.figure_style import png
from influence_jax.report.membership_figure import roc_curves
from influence_jax.report.theme import Theme

KEY = jax.random.key(0)
SHADOWS = (32, 64, 128, 256, 499)
STANDARDIZED_FIRST = (
    'standardized self-influence',
    'floored margin',
    'floored margin, adjusted',
    'z margin',
    'z margin, adjusted',
    'self-influence of the logit gap',
)


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
    print('\nOnline LiRA, intervals over records instead of members:', end=' ')
    over_records = membership.performance(
        attacks['LiRA online'], key=KEY, resample=Resample.TARGETS
    )
    print(', '.join(_percent(rate) for rate in over_records.true_positive_rates))

    print('\n## Shadow models\n')
    order = rng.permutation(len(masks))
    _by_shadow_models(masks[order], losses[order], gaps[order])

    print('\n## Records\n')
    _records(attacks['LiRA online'], run.example_ids)

    print('\n## Predictors from one half of the members, attacks on the other')
    _predictions(masks, losses, gaps, rng.permutation(len(masks)))
    if figure is not None:
        shown = ('LiRA online', 'LiRA offline', 'RMIA, gamma 2', 'loss alone')
        curves = {name: performances[name].roc for name in shown}
        Path(figure).write_bytes(png(roc_curves(curves, theme=Theme.light())))
    print(f'\n{time.perf_counter() - start:.0f} s')


def _attacks(masks, losses, gaps) -> dict[str, Attack]:
    attacks = {}
    for setting in Setting:
        for variance in (Variance.PER_RECORD, Variance.GLOBAL):
            name = f'LiRA {setting.value}' + ', global variance' * (variance is Variance.GLOBAL)
            attacks[name] = membership.lira(masks, gaps, setting=setting, variance=variance)
    for gamma in (1.0, 2.0, 4.0):
        attacks[f'RMIA, gamma {gamma:g}'] = membership.rmia(masks, losses, gamma=gamma)
    attacks['loss alone'] = Attack(-losses, masks, np.arange(losses.shape[1]))
    return attacks


def _rates(attacks: dict[str, Attack]) -> dict[str, membership.Performance]:
    print('| attack | TPR at 0.1 % FPR | TPR at 0.01 % FPR | AUROC | balanced accuracy |')
    print('|---|---|---|---|---|')
    performances = {}
    for name, attack in attacks.items():
        found = performances[name] = membership.performance(attack, key=KEY)
        cells = [_percent(rate) for rate in found.true_positive_rates]
        cells += [f'{found.auroc.value:.4f}', _percent(found.balanced_accuracy)]
        print(f'| {name} | ' + ' | '.join(cells) + ' |', *found.notes)
    return performances


def _by_shadow_models(masks, losses, gaps) -> None:
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
    dataset = data.load('clipart')
    if tuple(dataset.ids) == example_ids:
        duplicated = has_near_duplicate(near_duplicates(dataset), dataset.num_examples)
        kinds |= {'near-duplicated': duplicated, 'unique': ~duplicated}
    levels = (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1)
    print('| | ' + ' | '.join(f'quantile {level:g}' for level in levels) + ' |')
    for name in ('auroc', 'auroc_standard_error', 'success', 'success_standard_error'):
        for kind, which in kinds.items():
            quantiles = np.quantile(getattr(single, name)[which], levels)
            cells = ' | '.join(f'{quantile:.3f}' for quantile in quantiles)
            print(f'| {name}, {kind} ({which.sum()}) | {cells} |')


def _predictions(masks, losses, gaps, order) -> None:
    halves = order[::2], order[1::2]
    single = [membership.vulnerability(membership.lira(masks[h], gaps[h])) for h in halves]
    scores = [_scores(masks[half], losses[half], gaps[half]) for half in halves]
    for what in ('success', 'auroc'):
        # Round r: predictors of half r, vulnerability in the other half.
        predictors = {name: np.stack([s[name] for s in scores]) for name in scores[0]}
        own, other = (np.stack([getattr(single[h], what) for h in o]) for o in ((0, 1), (1, 0)))
        predictors['the same vulnerability in the other half'] = own
        print(f'\nVulnerability: {what}\n')
        _print_table(membership.predicts_vulnerability(predictors, other, key=KEY))
        del predictors['the same vulnerability in the other half']
        print(f'\nVulnerability: {what}, from the same half as the predictors\n')
        _print_table(membership.predicts_vulnerability(predictors, own, key=KEY))
        print(f'\nVulnerability: {what}, other half, gains over standardized self-influence\n')
        chosen = {name: predictors[name] for name in STANDARDIZED_FIRST}
        _print_table(membership.predicts_vulnerability(chosen, other, key=KEY))


def _scores(masks, losses, gaps) -> dict[str, np.ndarray]:
    plain = membership.predictors(masks, losses)
    adjusted = membership.predictors(masks, losses, estimator=Estimator.ADJUSTED)
    logit = membership.predictors(masks, -gaps)['self-influence']
    return {
        **plain,
        **{f'{name}, adjusted': adjusted[name] for name in plain if name != 'mean loss'},
        'self-influence of the logit gap': logit,
    }


def _print_table(rows: list[membership.Prediction]) -> None:
    print(
        '| predictor | Spearman | AUROC, most vulnerable 10 % | Spearman minus the first '
        "predictor's | AUROC minus the first predictor's |"
    )
    print('|---|---|---|---|---|')
    for row in rows:
        cells = (row.spearman, row.auroc, row.spearman_gain, row.auroc_gain)
        print(f'| {row.name} | ' + ' | '.join(_number(cell) for cell in cells) + ' |')


def _percent(rate: membership.Interval) -> str:
    return f'{rate.value:.2%} ({rate.low:.2%} .. {rate.high:.2%})'


def _number(value: membership.Interval) -> str:
    return f'{value.value:.3f} ({value.low:.3f} .. {value.high:.3f})'


if __name__ == '__main__':
    main(*sys.argv[1:])
