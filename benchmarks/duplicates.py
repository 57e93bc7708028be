"""Near-duplicates found from influence, beside pixel distance and self-influence alone.

    python -m benchmarks.duplicates RUN_DIRECTORY [FIGURE.png]

The run must be of the embedded clip art. True pairs: of one class and nearer than 0.06 in RMS
distance of pixels; and, so that pixels do not define the truth, the same playing card in
different decks, by file name. FIGURE shows the best pairs that the first truth denies.
"""

import re
import sys
from typing import TypeAlias

import jax
import numpy as np

from influence_jax import analysis, data, store
from influence_jax.analysis import duplicates
from influence_jax.analysis.duplicates import CandidatePairs, ScoredPairs
from influence_jax.data import Dataset
from influence_jax.data.pixel_distance import has_near_duplicate, near_duplicates, rms_distances
from influence_jax.estimators import Summary, adjusted, difference_in_means, summarize

Pairs: TypeAlias = ScoredPairs | CandidatePairs

KEY = jax.random.key(0)
DENIED_SHOWN = 16


def main(directory: str, figure: str | None = None) -> None:
    run = store.open_run(directory)
    dataset = data.load('clipart')
    if run.manifest.dataset.fingerprint != dataset.fingerprint:
        raise SystemExit(f'{directory} is not a run of the embedded clip art')
    masks, losses = run.masks[run.complete], run.measurement('loss')[run.complete]
    pixels = dataset.arrays['image'].reshape(dataset.num_examples, -1) / np.float32(255)
    distances = rms_distances(pixels, pixels)
    truth = near_duplicates(dataset)
    print(f'{len(masks)} members, {len(truth)} true pairs: one class, RMS distance below 0.06')

    summaries = {
        estimator: summarize(masks, losses, estimator=estimator)
        for estimator in (difference_in_means, adjusted)
    }
    candidates = {e.name: duplicates.candidate_pairs(s) for e, s in summaries.items()}
    found = summaries[adjusted]
    wide = summarize(masks, losses, estimator=adjusted, top_k=dataset.num_examples)
    scored: dict[str, Pairs] = {
        **candidates,
        'adjusted, whole matrix': duplicates.candidate_pairs(wide),
        'the same, all pairs scored': duplicates.candidate_pairs(wide, z_threshold=-np.inf),
        'self-influence alone': duplicates.low_self_influence_pairs(found.self_influence),
        'pixel distance': by_distance(distances),
    }
    for name, pairs in scored.items():
        report(name, pairs, truth, dataset.num_examples)

    print('\nfewer members')
    for members in (125, 250, 500):
        some = summarize(masks[:members], losses[:members], estimator=adjusted)
        pairs = duplicates.candidate_pairs(some)
        report(f'adjusted, {members} members', pairs, truth, dataset.num_examples)

    same_card(scored, dataset)
    print_looser_truths(candidates['adjusted'], distances, dataset.arrays['label'])
    print_targets(found, candidates['adjusted'], truth)
    print_other_scores(masks, losses, truth)
    print_noise_of_both_directions(masks, losses, dataset.arrays['label'])
    print_clusters(candidates['adjusted'], dataset.arrays['label'])
    denied = first_denied(candidates['adjusted'], truth)
    for place in denied[:DENIED_SHOWN]:
        i, j = candidates['adjusted'].examples[place]
        print(
            f'denied: place {place + 1}, score {candidates["adjusted"].scores[place]:.2f}, '
            f'distance {distances[i, j]:.3f}: {dataset.names[i]} | {dataset.names[j]}'
        )
    if figure:
        draw(figure, [candidates['adjusted'].examples[p] for p in denied], distances, dataset)


def by_distance(distances: np.ndarray) -> ScoredPairs:
    pairs = np.column_stack(np.triu_indices(len(distances), 1))
    return ScoredPairs(pairs, -distances[pairs[:, 0], pairs[:, 1]])


def report(name: str, pairs: Pairs, truth: np.ndarray, examples: int) -> None:
    found = duplicates.evaluate(pairs, truth, examples=examples, key=KEY)
    intervals = (found.auroc, found.average_precision, *found.precision)
    told = ', '.join(f'{x.value:.3f} ({x.low:.3f} .. {x.high:.3f})' for x in intervals)
    print(
        f'{name:28} {len(pairs.scores):8} pairs, {found.found} true; AUROC, AP, precision at '
        f'{found.ks}: {told}'
    )


def same_card(scored: dict[str, Pairs], dataset: Dataset) -> None:
    """Among the cards alone: the same rank and suit in another deck."""
    pattern = re.compile(r'recreation/games/cards/\w+/[^_]+_(\w+)\.png')
    face = {k: m[1] for k, name in enumerate(dataset.names) if (m := pattern.fullmatch(name))}
    cards = np.array(list(face))
    place = np.full(dataset.num_examples, -1)
    place[cards] = np.arange(len(cards))
    pairs = np.column_stack(np.triu_indices(len(cards), 1))
    faces = np.array([face[card] for card in cards])
    truth = pairs[faces[pairs[:, 0]] == faces[pairs[:, 1]]]
    print(f'\namong {len(cards)} playing cards, {len(truth)} pairs of the same card')
    for name, every in scored.items():
        inside = (place[every.examples] >= 0).all(axis=1)
        some = ScoredPairs(place[every.examples[inside]], every.scores[inside])
        report(name, some, truth, len(cards))


def print_looser_truths(pairs: Pairs, distances: np.ndarray, labels: np.ndarray) -> None:
    i, j = pairs.examples.T
    print('\nshare of the first pairs of one class within a distance (adjusted)')
    for distance in (0.06, 0.08, 0.1):
        near = (distances[i, j] < distance) & (labels[i] == labels[j])
        shares = ', '.join(f'{k}: {near[:k].mean():.2f}' for k in (10, 50, 100, 200))
        print(f'{distance:.2f}   {shares}')


def print_targets(summary: Summary, pairs: Pairs, truth: np.ndarray) -> None:
    duplicated = has_near_duplicate(truth, len(summary.margin))
    print('\nAUROC of "has a near-duplicate", by target (adjusted)')
    for name, score in {
        'best pair': duplicates.best_scores(pairs, examples=len(duplicated)),
        'low margin': -summary.margin,
        'low floored margin': -summary.floored_margin,
        'low z-margin': -summary.z_margin,
        'low self-influence': -summary.self_influence,
    }.items():
        known = ~np.isnan(score)
        auroc = analysis.auroc(score[known], duplicated[known])
        print(f'{name:20} {auroc:.3f} ({known.sum()} targets)')


def print_other_scores(masks: np.ndarray, losses: np.ndarray, truth: np.ndarray) -> None:
    """Scores that were tried, of all pairs, from the whole adjusted matrix."""
    values, errors = map(np.asarray, adjusted(masks, losses))
    i, j = np.triu_indices(len(values), 1)
    positives = np.zeros(values.shape, bool)
    positives[truth[:, 0], truth[:, 1]] = True
    own, own_error = np.diag(values), np.diag(errors)

    def both(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return matrix[j, i], matrix[i, j]

    tried = {'influence': both(values), 'z-score': both(values / errors)}
    for floor in (2, 4, 8):
        tried[f'ratio, floor {floor} errors'] = both(values / np.maximum(own, floor * own_error))
    print('\naverage precision over all pairs: mean of both directions, smaller, larger')
    for name, (there, back) in tried.items():
        for way in ((there + back) / 2, np.minimum(there, back), np.maximum(there, back)):
            name += f'  {analysis.ranking.average_precision(way, positives[i, j]):.3f}'
        print(name)


def print_noise_of_both_directions(
    masks: np.ndarray, losses: np.ndarray, labels: np.ndarray
) -> None:
    """Of pairs of different classes, which are taken not to influence one another."""
    i, j = np.triu_indices(len(labels), 1)
    far = labels[i] != labels[j]
    i, j = i[far], j[far]
    print(f'\n{far.sum()} pairs of different classes: their z-scores in the two directions')
    for estimator in (difference_in_means, adjusted):
        values, errors = estimator(masks, losses)
        there, back = values[j, i] / errors[j, i], values[i, j] / errors[i, j]
        mean = (there + back) / 2
        print(
            f'{estimator.name:12} correlation {np.corrcoef(there, back)[0, 1]:.3f}, standard '
            f'deviation of the mean {mean.std():.3f}, above 3: {(mean > 3).sum()}'
        )


def print_clusters(pairs: Pairs, labels: np.ndarray) -> None:
    print('\nclusters (adjusted)')
    for threshold in (0.5, 0.6, 0.7, 0.8, 0.9):
        found = duplicates.clusters(pairs, examples=len(labels), threshold=threshold)
        sizes = np.bincount(found)
        several = np.flatnonzero(sizes > 1)
        pure = np.mean([len(np.unique(labels[found == c])) == 1 for c in several])
        print(
            f'threshold {threshold}: {len(several)} clusters of {sizes[several].sum()} examples, '
            f'largest {np.sort(sizes)[::-1][:4].tolist()}, {pure:.0%} within one class'
        )


def first_denied(pairs: Pairs, truth: np.ndarray) -> np.ndarray:
    true = {tuple(pair) for pair in truth.tolist()}
    return np.flatnonzero([tuple(pair) not in true for pair in pairs.examples.tolist()])


def draw(path: str, pairs: list, distances: np.ndarray, dataset: Dataset) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.2), layout='constrained')
    gap = np.full((32, 2, 3), 255, np.uint8)
    images = dataset.arrays['image']
    for axes, (i, j) in zip(figure.subplots(4, 4).flat, pairs, strict=False):
        axes.imshow(np.hstack([images[i], gap, images[j]]))
        axes.set_title(f'RMS {distances[i, j]:.3f}', fontsize=8)
        axes.axis('off')
    figure.savefig(path, dpi=100)


if __name__ == '__main__':
    main(*sys.argv[1:])
