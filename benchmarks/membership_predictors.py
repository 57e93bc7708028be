"""Whether the margin foretells membership attacks and extraction better than self-influence.

    python -m benchmarks.membership_predictors RUN_DIRECTORY [--other=RUN_DIRECTORY]
        [--images=clipart|FILE.npz] [--sizes=16,32,64,128]

The second open question of arXiv 2506.20481. Predictors come from disjoint sets of M members,
attacks from two lots of the members that no predictor has seen, and from two lots of another run
on the same records: another recipe, other subsets. The runs hold `loss`, and may hold `logit_gap`
and `bleu`. Prints Markdown tables.
"""

import argparse
import time
from typing import NamedTuple

import jax
import numpy as np
from scipy.sparse import coo_array, csgraph

from influence_jax import data, store
from influence_jax.analysis import extraction, membership
from influence_jax.analysis.membership import Interval, PredictorComparison, compare_predictors
from influence_jax.analysis.resampling import jackknife_error
from influence_jax.data.pixel_distance import near_duplicates
from influence_jax.estimators import margin_of_largest, z_margin

KEY = jax.random.key(0)
PAIRS = (
    ('margin', 'self-influence'),
    ('z margin', 'standardized self-influence'),
)
MOST_SETS = 4
LEAST_LOT = 12
BLOCKS = 8
RESAMPLES = 400
Z = 1.96


class Members(NamedTuple):
    """Complete members of a run, in random order.

    masks: `[M N]`; losses, gaps: `[M T]`; bleu: `[M T]` or None.
    """

    masks: np.ndarray
    losses: np.ndarray
    gaps: np.ndarray
    bleu: np.ndarray | None

    def take(self, chosen: np.ndarray) -> 'Members':
        """Some of them."""
        masks, losses, gaps, bleu = self
        some = None if bleu is None else bleu[chosen]
        return Members(masks[chosen], losses[chosen], gaps[chosen], some)


def main() -> None:
    """Reads the runs and prints a table for each pair of predictors."""
    parser = argparse.ArgumentParser()
    parser.add_argument('run')
    parser.add_argument('--other')
    parser.add_argument('--images')
    parser.add_argument('--sizes', default='16,32,64,128')
    given = parser.parse_args()
    start = time.perf_counter()
    run = store.open_run(given.run)
    members, groups = read(run), clusters(run, given.images)
    others = None
    if given.other:
        other_run = store.open_run(given.other)
        if other_run.example_ids != run.example_ids:
            raise SystemExit('the two runs must have the same records')
        others = read(other_run)
    wanted = [int(size) for size in given.sizes.split(',')]
    sizes = [m for m in wanted if len(members.masks) - 2 * m >= 2 * LEAST_LOT]
    if not sizes:
        raise SystemExit(
            f'{len(members.masks)} members are too few for two sets of any of {wanted}'
        )
    unique = np.bincount(groups)[groups] == 1
    print(
        f'{len(members.masks)} members ({len(others.masks) if others else 0} of the other recipe), '
        f'{len(groups)} records, {(~unique).sum()} of them near-duplicated, '
        f'{len(np.unique(groups))} clusters'
    )
    whole = evaluate(members, others, sizes)
    parts = [evaluate(members, others, sizes, block) for block in range(BLOCKS)]
    populations = {'all': np.ones(len(groups), bool)}
    if 30 < unique.sum() < len(groups):
        populations['unique'] = unique
    for pair in PAIRS:
        print(f'\n## {pair[0]} (first) and {pair[1]} (second)\n')
        print_head()
        for criterion in whole.criteria:
            for size in sizes:
                for name, which in populations.items():
                    try:
                        row = compared(whole, parts, pair, criterion, size, which, groups)
                    except ValueError as error:  # such as an attack that succeeds on all alike
                        print(f'| {criterion} | {size} | | {name} | {error} |')
                        continue
                    print_row(criterion, size, len(whole.predictors[size]), name, row)
    print(f'\n{time.perf_counter() - start:.0f} s')


def read(run: store.Run) -> Members:
    """Complete members in random order, so that no part of them differs from another."""
    complete = np.random.default_rng(0).permutation(run.complete)
    names = run.manifest.measurements
    losses = run.measurement('loss')[complete]
    recorded = 'logit_gap' in names
    return Members(
        run.masks[complete],
        losses,
        run.measurement('logit_gap')[complete] if recorded else membership.logit_gaps(losses),
        run.measurement('bleu')[complete] if 'bleu' in names else None,
    )


def clusters(run: store.Run, images: str | None) -> np.ndarray:
    """`[N]` the same number for near-duplicates: injected ones as on record, images by pixels."""
    ids = run.example_ids
    if images is None:
        if run.shown is None or run.shown.groups is None:
            raise SystemExit(f'{run.directory} keeps no groups of near-duplicates: train it again')
        return np.asarray(run.shown.groups)
    dataset = data.load(images)
    if tuple(dataset.ids) != tuple(ids):
        raise SystemExit(f'{images} does not hold the records of the run')
    pairs = near_duplicates(dataset)
    edges = (np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1]))
    return csgraph.connected_components(coo_array(edges, shape=(len(ids), len(ids))))[1]


class Evaluation(NamedTuple):
    """predictors: by size, of every set, by name. criteria: `[2 T]` by two lots, by name."""

    predictors: dict[int, list[dict[str, np.ndarray]]]
    criteria: dict[str, np.ndarray]


def evaluate(
    members: Members,
    others: Members | None,
    sizes: list[int],
    block: int | None = None,
) -> Evaluation:
    """Predictors from the first members, criteria from the rest and from the others.

    Without one block of the members where one is named: every eighth of each set and lot.
    """

    def kept(first: int, last: int) -> np.ndarray:
        place = np.arange(first, last)
        return place if block is None else place[place % BLOCKS != block]

    predicting = 2 * max(sizes)
    predictors = {
        size: [
            scores(members.take(kept(k * size, (k + 1) * size)))
            for k in range(min(MOST_SETS, predicting // size))
        ]
        for size in sizes
    }
    criteria: dict[str, np.ndarray] = {}
    for what, lot, first in (('the rest', members, predicting), ('another recipe', others, 0)):
        if lot is None:
            continue
        middle = (first + len(lot.masks)) // 2
        halves = kept(first, middle), kept(middle, len(lot.masks))
        rows = [attacked(lot.take(half)) for half in halves]
        criteria |= {f'{name}, {what}': np.stack([row[name] for row in rows]) for name in rows[0]}
    return Evaluation(predictors, criteria)


def scores(members: Members) -> dict[str, np.ndarray]:
    """The predictors of the difference of means; NaN for targets of too one-sided an example.

    What `membership.predictors` gives, of two matrix products, for many small sets.
    """
    masks, losses = members.masks, members.losses - members.losses.mean(axis=0)
    inside = masks.sum(axis=0)[:, None].astype(np.float32)
    outside = len(masks) - inside
    sums, squares = (masks.T.astype(np.float32) @ part for part in (losses, losses**2))
    with np.errstate(divide='ignore', invalid='ignore'):
        within = squares - sums**2 / inside
        without = (losses**2).sum(axis=0) - squares - (losses.sum(axis=0) - sums) ** 2 / outside
        values = (losses.sum(axis=0) - sums) / outside - sums / inside
        error = np.sqrt(within / (inside * (inside - 1)) + without / (outside * (outside - 1)))
    lacking = one_sided(masks)
    values[lacking] = -np.inf  # never among the largest two
    order = np.argpartition(-values, 1, axis=0)[:2]
    top, at = np.take_along_axis(values, order, axis=0), np.arange(values.shape[1])
    order = np.where(top[0] >= top[1], order, order[::-1])
    largest, second = values[order, at]
    own = np.where(lacking, np.nan, np.diagonal(values))
    found = {
        'self-influence': own,
        'standardized self-influence': own / np.diagonal(error),
        'margin': margin_of_largest(largest, second),
        'z margin': z_margin(largest, second, *error[order, at]),
    }
    return {name: np.where(lacking, np.nan, column) for name, column in found.items()}


def one_sided(masks: np.ndarray) -> np.ndarray:
    """`[N]` whether fewer than 2 members include an example, or leave it out."""
    included = masks.sum(axis=0)
    return np.minimum(included, len(masks) - included) < 2


def attacked(members: Members) -> dict[str, np.ndarray]:
    """How well each record is told by an attack on these members, with each other as shadows."""
    masks, losses, gaps, bleu = members
    own = np.where(one_sided(masks), -1, np.arange(masks.shape[1]))

    def of_all(values: np.ndarray) -> np.ndarray:
        found = np.full(len(own), np.nan)
        found[own >= 0] = values
        return found

    lira = membership.vulnerability(membership.lira(masks, gaps, target_examples=own))
    rmia = membership.vulnerability(membership.rmia(masks, losses, target_examples=own))
    found = {
        'LiRA, AUROC': of_all(lira.auroc),
        'LiRA, success': of_all(lira.success),
        'RMIA, AUROC': of_all(rmia.auroc),
    }
    if bleu is not None:
        found['extraction, BLEU'] = extraction.by_membership(masks, bleu).held.mean
    return found


def compared(
    whole: Evaluation,
    parts: list[Evaluation],
    pair: tuple[str, str],
    criterion: str,
    size: int,
    which: np.ndarray,
    groups: np.ndarray,
) -> tuple[PredictorComparison, PredictorComparison]:
    """The comparison with intervals over records, and its standard errors over models."""

    def one(evaluation: Evaluation, resamples: int) -> PredictorComparison:
        sets = evaluation.predictors[size]
        first, second = (np.stack([s[name] for s in sets])[:, which] for name in pair)
        return compare_predictors(
            first,
            second,
            evaluation.criteria[criterion][None][:, :, which],
            key=KEY,
            groups=groups[which],
            resamples=resamples,
        )

    values = [jax.tree.leaves(one(part, 2)) for part in parts]
    found = one(whole, RESAMPLES)
    structure = jax.tree.structure(found)
    return found, jax.tree.unflatten(structure, list(jackknife_error(np.array(values, float))))


def print_head() -> None:
    """The columns."""
    columns = (
        'criterion', 'M', 'sets', 'records', 'reliability first', 'second', 'criterion',
        'Spearman first', 'second', 'corrected first', 'second', 'first minus second',
        'partial first', 'second', 'corrected partial first', 'second',
    )  # fmt: skip
    print('| ' + ' | '.join(columns) + ' |')
    print('|' + '---|' * len(columns))


def print_row(
    criterion: str, size: int, sets: int, records: str, row: tuple[PredictorComparison, ...]
) -> None:
    """Values with the half-widths of 95 % intervals over records and models together."""
    found, errors = row
    cells = []
    for name in (
        'reliability', 'spearman', 'corrected', 'advantage', 'partial', 'corrected_partial',
    ):  # fmt: skip
        values, error = getattr(found, name), getattr(errors, name)
        if isinstance(values, Interval):
            values, error = (values,), (error,)
        cells += [_cell(value, e.value) for value, e in zip(values, error, strict=True)]
    names = [criterion, str(size), str(sets), f'{records} ({found.targets})']
    print('| ' + ' | '.join(names + cells) + ' |', flush=True)


def _cell(value: Interval, models: float) -> str:
    if np.isnan(value.value):
        return 'beyond 1'
    if np.isnan(models):  # without some of the models it is beyond 1, or a reliability below 0
        return 'not determined'
    records = (value.high - value.low) / (2 * Z)
    return f'{value.value:.3f} ± {Z * np.hypot(records, models):.3f}'


if __name__ == '__main__':
    main()
