"""Are errors, intervals and lists of pairs right? Simulations with known truth, and real losses.

    python -m benchmarks.calibration noise [MATRICES]       # no influence: false pairs, coverage
    python -m benchmarks.calibration estimators [MATRICES]  # the same for ridge and LASSO, too
    python -m benchmarks.calibration designs [MATRICES]     # the same under the other designs
    python -m benchmarks.calibration own                    # self-influence that few members carry
    python -m benchmarks.calibration selected               # the winner's curse
    python -m benchmarks.calibration groups                 # masks drawn over groups
    python -m benchmarks.calibration shuffled RUN [...]     # real losses, masks of other members

'Before' is what was done until version 0.1: Welch's error, read with Student's t of M - 2 degrees
of freedom, and Benjamini and Hochberg's procedure on its p-values.
"""

import sys
from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Bool, Float

from influence_jax import store, subsets
from influence_jax.estimators import (
    BUILT_IN,
    RELIABLE,
    Estimator,
    adjusted,
    benjamini_hochberg,
    difference_in_means,
    intervals,
    p_values,
    selected_intervals,
    summarize,
    z_scores,
)

N = 400
SETTINGS = (
    *((8, 0.5), (16, 0.5), (24, 0.5), (24, 0.3)),
    *((64, keep) for keep in (0.1, 0.5, 0.9)),
    *((200, keep) for keep in (0.02, 0.05, 0.1, 0.5, 0.9, 0.98)),
    *((1000, keep) for keep in (0.02, 0.05, 0.5, 0.95, 0.98)),
)

Masks = Bool[np.ndarray, 'M N']
Losses = Float[np.ndarray, 'M N']


def normal(masks: Masks, generator: np.random.Generator) -> Losses:
    return generator.normal(size=masks.shape)


def narrow_where_in(masks: Masks, generator: np.random.Generator) -> Losses:
    return np.where(masks, 0.1, 1.0) * generator.normal(size=masks.shape)


def rarely_high(masks: Masks, generator: np.random.Generator) -> Losses:
    losses = 0.1 * generator.normal(size=masks.shape)
    return losses + 5 * (generator.random(masks.shape) < 0.03)


def lognormal(masks: Masks, generator: np.random.Generator) -> Losses:
    return np.exp(generator.normal(size=masks.shape))


def some_members_bad(masks: Masks, generator: np.random.Generator) -> Losses:
    spread = np.exp(generator.normal(size=(len(masks), 1)))
    return spread * generator.normal(size=masks.shape)


KINDS: dict[str, Callable[[Masks, np.random.Generator], Losses]] = {
    'normal': normal,
    'narrow where in': narrow_where_in,
    'rarely high': rarely_high,
    'lognormal': lognormal,
    'some members bad': some_members_bad,
}


def drawn(members: int, keep: float, generator: np.random.Generator, examples: int = N) -> Masks:
    """Independent inclusions; columns of which there is no estimate are drawn again."""
    masks = generator.random((members, examples)) < keep
    while True:
        included = masks.sum(axis=0)
        lacking = (included < 2) | (members - included < 2)
        if not lacking.any():
            return masks
        masks[:, lacking] = generator.random((members, int(lacking.sum()))) < keep


def welch(masks: Masks, losses: Losses) -> tuple[np.ndarray, np.ndarray]:
    """Differences of means and Welch's errors."""
    x, y = masks.astype(float), losses - losses.mean(axis=0)
    inside = x.sum(axis=0)[:, None]
    outside = len(x) - inside
    total, squares = x.T @ y, x.T @ y**2
    rest, rest_squares = y.sum(axis=0) - total, (y**2).sum(axis=0) - squares
    variance = np.maximum(squares - total**2 / inside, 0) / inside / (inside - 1)
    variance += np.maximum(rest_squares - rest**2 / outside, 0) / outside / (outside - 1)
    return rest / outside - total / inside, np.sqrt(variance)


def before(masks: Masks, losses: Losses) -> tuple[int, float]:
    """Pairs listed, and the share of intervals off the diagonal that hold 0."""
    values, errors = welch(masks, losses)
    off = np.eye(*values.shape) == 0
    p = p_values(z_scores(values, errors)[off], members=len(masks))
    return int(benjamini_hochberg(p).sum()), float((p > 0.05).mean())


def now(estimator: Estimator, masks: Masks, losses: Losses) -> tuple[int, float]:
    """The same by today's estimators."""
    summary = summarize(masks, losses, estimator=estimator)
    found = estimator(masks, losses)
    low, high = intervals(found, members=len(masks))
    off = np.eye(*found.values.shape) == 0
    return len(summary.pairs.values), float(((low <= 0) & (high >= 0))[off].mean())


def enough(estimator: Estimator, members: int) -> bool:
    return estimator is difference_in_means or members >= 48


def table_of_noise(
    draw: Callable[[int, float, np.random.Generator], Masks],
    settings: tuple[tuple[int, float], ...],
    matrices: int,
    estimators: tuple[Estimator, ...],
) -> None:
    names = [estimator.name for estimator in estimators]
    header = ['M', 'keep', 'noise', 'before', *names]
    print('False pairs a matrix / coverage off the diagonal, %')
    print('| ' + ' | '.join(header) + ' |\n' + '|---' * len(header) + '|')
    for members, keep in settings:
        for kind, losses_of in KINDS.items():
            cells: dict[str, list[tuple[int, float]]] = {name: [] for name in ('before', *names)}
            for seed in range(matrices):
                generator = np.random.default_rng([seed, members, round(1000 * keep)])
                masks = draw(members, keep, generator)
                losses = losses_of(masks, generator)
                cells['before'].append(before(masks, losses))
                for estimator in estimators:
                    if enough(estimator, members):
                        cells[estimator.name].append(now(estimator, masks, losses))
            row = [str(members), f'{keep:g}', kind]
            for found in cells.values():
                pairs, covered = np.mean(found, axis=0) if found else (np.nan, np.nan)
                row.append(f'{pairs:.2f} / {100 * covered:.1f}' if found else '')
            print('| ' + ' | '.join(row) + ' |', flush=True)


def main_noise(matrices: str = '20') -> None:
    both = (difference_in_means, adjusted)
    table_of_noise(drawn, SETTINGS, int(matrices), both)


def main_estimators(matrices: str = '5') -> None:
    table_of_noise(drawn, ((200, 0.05), (200, 0.5), (200, 0.9)), int(matrices), BUILT_IN)


def main_designs(matrices: str = '10') -> None:
    for design in (subsets.exact_size, subsets.balanced):

        def draw(members: int, keep: float, generator: np.random.Generator) -> Masks:
            key = jax.random.key(int(generator.integers(2**31)))
            return design(key=key, members=members, examples=N, inclusion_prob=keep)  # noqa: B023

        print(design.__name__)
        both = (difference_in_means, adjusted)
        table_of_noise(draw, ((200, 0.1), (200, 0.5)), int(matrices), both)


def copies(
    number: int, masks: Masks, generator: np.random.Generator
) -> tuple[Losses, Float[np.ndarray, ' N']]:
    """Losses near 0 if the target is known, 0.2 if a copy is, about 3 if neither; self-influence.

    Copies of an example are the ones that follow it.
    """
    others = np.zeros_like(masks)
    for step in range(1, number):
        others |= np.roll(masks, -step, axis=1)
    known = 0.05 * generator.exponential(size=masks.shape)
    through_copies = 0.2 * generator.exponential(size=masks.shape)
    unknown = 3 + 0.5 * generator.normal(size=masks.shape)
    losses = np.where(masks, known, np.where(others, through_copies, unknown))
    none = 0.5 ** (number - 1)
    return losses, np.full(masks.shape[1], 3 * none + 0.2 * (1 - none) - 0.05)


def heavy_tailed(
    masks: Masks, generator: np.random.Generator
) -> tuple[Losses, Float[np.ndarray, ' N']]:
    losses = np.where(masks, 0.05, 1.0) * np.exp(generator.normal(size=masks.shape))
    return losses, np.full(masks.shape[1], 0.95 * np.exp(0.5))


def main_own(matrices: str = '5') -> None:
    """Coverage of self-influence."""
    cases = {
        'unique': lambda *given: copies(1, *given),
        'two copies': lambda *given: copies(2, *given),
        'five copies': lambda *given: copies(5, *given),
        'heavy-tailed': heavy_tailed,
    }
    print('Coverage of self-influence, %; targets of fewer than 20 effective members, %')
    print('| losses | M | before | difference | adjusted | below 20 |\n|---|---|---|---|---|---|')
    for name, losses_of in cases.items():
        for members in (24, 48, 128, 512):
            found: dict[str, list[float]] = {}
            for seed in range(int(matrices)):
                generator = np.random.default_rng([seed, members])
                masks = drawn(members, 0.5, generator)
                losses, truth = losses_of(masks, generator)
                values, errors = (np.diag(part) for part in welch(masks, losses))
                missed = p_values((values - truth) / errors, members=members) < 0.05
                found.setdefault('before', []).append(1 - missed.mean())
                for estimator in (difference_in_means, adjusted):
                    if not enough(estimator, members):
                        continue
                    of = summarize(masks, losses, estimator=estimator)
                    z = (of.self_influence - truth) / of.self_standard_error
                    hit = p_values(z, members=members) >= 0.05
                    found.setdefault(estimator.name, []).append(hit.mean())
                    few = (of.effective_members < RELIABLE).mean()
                    found.setdefault(f'few {estimator.name}', []).append(few)
            cells = [
                f'{100 * np.mean(found[key]):.1f}' if key in found else ''
                for key in ('before', 'difference', 'adjusted', 'few difference')
            ]
            print(f'| {name} | {members} | ' + ' | '.join(cells) + ' |', flush=True)


def main_selected(matrices: str = '20') -> None:
    """Exaggeration of what is listed, in standard errors, and coverage of its intervals."""
    print(
        'Exaggeration in standard errors (mean), and coverage, %\n'
        '| estimator | M | what | value | coverage | cross-fitted | adjusted coverage |\n'
        '|---|---|---|---|---|---|---|'
    )
    for estimator in (difference_in_means, adjusted):
        for members in (64, 200, 1000):
            rows: dict[str, list[np.ndarray]] = {'listed pairs': [], 'strongest others': []}
            for seed in range(int(matrices)):
                generator = np.random.default_rng([seed, members])
                masks = drawn(members, 0.5, generator)
                # Six others influence each target, by half a nat and more or less.
                effects = np.zeros((N, N))
                for step in range(1, 7):
                    places = (np.arange(N) + step) % N, np.arange(N)
                    effects[places] = 0.5 * generator.exponential(size=N)
                losses = generator.normal(size=masks.shape) - masks @ effects - 2 * masks
                of = summarize(masks, losses, estimator=estimator)
                pairs, t = of.pairs, np.arange(N)
                truth = effects[pairs.examples, pairs.targets]
                rows['listed pairs'].append(
                    np.stack([pairs.values, pairs.standard_errors, pairs.cross_fitted]).T
                    - np.stack([truth, 0 * truth, truth]).T
                )
                rows['listed pairs'][-1] = np.column_stack(
                    [rows['listed pairs'][-1], pairs.low - truth, pairs.high - truth]
                )
                low, high = selected_intervals(
                    of.other_value,
                    of.other_standard_error,
                    members=members,
                    selected=N,
                    candidates=N * N,
                )
                truth = effects[of.strongest_other, t]
                # What the half's choice is worth is told by the other half: its own truth.
                rows['strongest others'].append(
                    np.column_stack(
                        [
                            of.other_value - truth,
                            of.other_standard_error,
                            of.other_cross_fitted - _truth_of_halves(masks, losses, effects),
                            low - truth,
                            high - truth,
                        ]
                    )
                )
            for what, found in rows.items():
                off, error, fitted, low, high = np.concatenate(found).T
                covered = np.abs(off) <= 1.96 * error
                print(
                    f'| {estimator.name} | {members} | {what} ({len(off):,}) | '
                    f'{np.mean(off / error):+.2f} | {100 * covered.mean():.1f} | '
                    f'{np.nanmean(fitted / error):+.2f} | '
                    f'{100 * ((low <= 0) & (high >= 0)).mean():.1f} |',
                    flush=True,
                )


def _truth_of_halves(masks: Masks, losses: Losses, effects: np.ndarray) -> np.ndarray:
    """Mean true influence of the two examples that the halves of the members find strongest."""
    from influence_jax.estimators.difference_of_means import without_self
    from influence_jax.estimators.scan import scan_for

    own = np.arange(N)
    left = without_self(masks, (losses - losses.mean(axis=0)).astype(np.float32), own)
    scan = scan_for(masks)
    found = []
    halves = scan.candidate_regressors(left / np.abs(left).max(), own, 8)[:2]
    for part, candidates in enumerate(halves):
        of = slice(part, None, 2)
        values, _ = welch(masks[of], left[of].astype(float))
        at = np.take_along_axis(values.T, candidates, axis=1)
        at[candidates == own[:, None]] = -np.inf
        best = np.take_along_axis(candidates, at.argmax(axis=1)[:, None], axis=1)[:, 0]
        found.append(effects[best, own])
    return np.mean(found, axis=0)


def main_groups() -> None:
    """60 groups of 5, M = 256; every target of a group gains 3 by the group."""
    print('| estimator | mean of 3.0 | coverage of these | false pairs |\n|---|---|---|---|')
    for estimator in BUILT_IN:
        means, hits, false = [], [], []
        for seed in range(10):
            generator = np.random.default_rng(seed)
            masks = np.repeat(generator.random((256, 60)) < 0.5, 5, axis=1)
            losses = generator.normal(size=(256, 300)) - 3 * masks
            found = estimator(masks, losses)
            low, high = intervals(found, members=256)
            group = np.arange(300) // 5
            same = group[:, None] == group[None, :]
            means.append(found.values[same].mean())
            hits.append(((low <= 3) & (high >= 3))[same].mean())
            pairs = summarize(masks, losses, estimator=estimator).pairs
            false.append((group[pairs.examples] != group[pairs.targets]).mean())
        print(
            f'| {estimator.name} | {np.mean(means):.3f} | {100 * np.mean(hits):.1f} % | '
            f'{100 * np.mean(false):.1f} % |',
            flush=True,
        )


def main_shuffled(*runs: str) -> None:
    """Masks of other members: whatever is listed is false."""
    print('| run | M | false pairs a matrix, before | difference | adjusted | coverage |')
    print('|---|---|---|---|---|---|')
    for directory in runs:
        run = store.open_run(directory)
        masks = run.masks[run.complete]
        losses = run.measurement('loss')[run.complete]
        for members in (24, 48, 128, 400):
            if members > len(masks):
                continue
            found: dict[str, list[tuple[int, float]]] = {}
            for seed in range(12 if members < 400 else 4):
                generator = np.random.default_rng([seed, members])
                some = generator.permutation(len(masks))[:members]
                shuffled, of = masks[generator.permutation(some)], losses[some]
                included = shuffled.sum(axis=0)
                known = (included >= 2) & (members - included >= 2)
                shuffled, of = shuffled[:, known], of[:, known]
                found.setdefault('before', []).append(before(shuffled, of))
                for estimator in (difference_in_means, adjusted):
                    if enough(estimator, members):
                        found.setdefault(estimator.name, []).append(now(estimator, shuffled, of))
            cells = [
                f'{np.mean(found[key], axis=0)[0]:.2f}' if key in found else ''
                for key in ('before', 'difference', 'adjusted')
            ]
            covered = 100 * np.mean(found['difference'], axis=0)[1]
            print(
                f'| {directory} | {members} | ' + ' | '.join(cells) + f' | {covered:.2f} % |',
                flush=True,
            )


if __name__ == '__main__':
    {
        'noise': main_noise,
        'estimators': main_estimators,
        'designs': main_designs,
        'own': main_own,
        'selected': main_selected,
        'groups': main_groups,
        'shuffled': main_shuffled,
    }[sys.argv[1]](*sys.argv[2:])
