"""Ensemble and cheap scores, apart and together, judged by members trained on other subsets.

    python -m benchmarks.assisted RUN --held_out=DIR [--models=DIR] [--scores=FILE.npy,...]

All three are runs of the embedded clip art with one recipe; HELD_OUT has another seed and repeats
of its masks, MODELS kept its parameters. LDS: Spearman, target by target, between what scores
predict of a held-out mask and the mean loss over its repeats, on masks that leave the target out;
mean over targets, with 95 % bootstrap intervals over masks and targets. 'ceiling' is what the
repeats' own reliability leaves any method to reach. AUROC is that of margins for near-duplicates
by pixels, 'with scores' that of `estimators.joint_margin` with each score's own margin; 'twin' how
often the strongest other example of a near-duplicate is one of its near-duplicates.
"""

import sys
from collections.abc import Iterator, Mapping

import numpy as np
from absl import app, flags
from jaxtyping import Float

import influence_jax
from influence_jax import analysis, attribution, data
from influence_jax.analysis.margins import top1_margin
from influence_jax.data.pixel_distance import has_near_duplicate, near_duplicates
from influence_jax.estimators import adjusted, joint_margin, shrunk, with_scores
from influence_jax.types import AnyArray

_HELD_OUT = flags.DEFINE_string('held_out', '', 'run whose masks are to be predicted.')
_MODELS = flags.DEFINE_string('models', '', 'run whose parameters give cosine and EK-FAC scores.')
_NUM_MODELS = flags.DEFINE_integer('num_models', 10, 'how many members of --models.')
_SCORES = flags.DEFINE_list('scores', [], 'files NAME.npy of scores [examples targets].')
_MEMBERS = flags.DEFINE_list('members', ['50', '100', '250'], 'sizes of the ensemble.')

_RESAMPLES = 300


class HeldOut:
    """Held-out masks, the ranks of their losses, and the near-duplicates among the examples."""

    def __init__(self, run: influence_jax.Run, dataset: influence_jax.Dataset) -> None:
        masks, losses = run.masks[run.complete], run.measurement('loss')[run.complete]
        self.masks, index = np.unique(masks, axis=0, return_inverse=True)
        index = index.ravel()
        self.repeats = [losses[index == mask] for mask in range(len(self.masks))]
        self.losses = np.array([of.mean(axis=0) for of in self.repeats])
        pairs = near_duplicates(dataset)
        self.near_duplicated = has_near_duplicate(pairs, dataset.num_examples)
        self.twins = np.zeros((dataset.num_examples,) * 2, bool)
        self.twins[pairs[:, 0], pairs[:, 1]] = self.twins[pairs[:, 1], pairs[:, 0]] = True

    def ceiling(self) -> float:
        """Root of the reliability of the mean over repeats (Spearman and Brown)."""
        even = np.array([of[::2].mean(axis=0) for of in self.repeats])
        odd = np.array([of[1::2].mean(axis=0) for of in self.repeats])
        between = self._spearman(even, odd, np.arange(len(self.masks))).mean()
        return float(np.sqrt(2 * between / (1 + between)))

    def lds(self, scores: Float[np.ndarray, 'N T'], key: int = 0) -> tuple[float, float, float]:
        """LDS, and the ends of its interval."""
        predicted = -(self.masks.astype(np.float32) @ scores)
        found = self._spearman(predicted, self.losses, np.arange(len(self.masks))).mean()
        generator, resampled = np.random.default_rng(key), []
        for _ in range(_RESAMPLES):
            masks = generator.integers(len(self.masks), size=len(self.masks))
            of_targets = self._spearman(predicted, self.losses, masks)
            resampled.append(generator.choice(of_targets, len(of_targets)).mean())
        # Resampled masks hold ties, which move the mean: only the spread is taken from them.
        half = 1.96 * np.std(resampled)
        return float(found), float(found - half), float(found + half)

    def _spearman(
        self, a: Float[np.ndarray, 'K T'], b: Float[np.ndarray, 'K T'], masks: np.ndarray
    ) -> Float[np.ndarray, ' T']:
        """By target, on those of the masks that leave it out."""
        out = ~self.masks[masks]
        ranks = [_ranks(np.where(out, of[masks], np.inf)) * out for of in (a, b)]
        count = out.sum(axis=0)
        centered = [(of - of.sum(axis=0) / count) * out for of in ranks]
        norm = np.sqrt(np.prod([np.square(of).sum(axis=0) for of in centered], axis=0))
        return (centered[0] * centered[1]).sum(axis=0) / np.where(norm > 0, norm, np.inf)

    def auroc(self, margin: Float[np.ndarray, ' T']) -> float:
        """Of low margins for near-duplicates."""
        return analysis.auroc(-np.where(np.isnan(margin), np.inf, margin), self.near_duplicated)

    def twin_rate(self, scores: Float[np.ndarray, 'N T']) -> float:
        """Share of near-duplicates whose strongest other example is one of theirs."""
        others = np.where(np.eye(len(scores), dtype=bool), -np.inf, scores)
        strongest = others.argmax(axis=0)
        found = self.twins[strongest, np.arange(len(strongest))]
        return float(found[self.near_duplicated].mean())


def _ranks(values: Float[np.ndarray, 'K T']) -> Float[np.ndarray, 'K T']:
    return values.argsort(axis=0).argsort(axis=0).astype(np.float64)


def all_scores(dataset: influence_jax.Dataset) -> Iterator[tuple[str, Float[np.ndarray, 'N T']]]:
    """Yields scores by name: those of files, and of models."""
    for path in _SCORES.value:
        yield path.rsplit('/', 1)[-1].removesuffix('.npy'), np.load(path, allow_pickle=False)
    if _MODELS.value:
        run = influence_jax.open_run(_MODELS.value)
        models, records = attribution.read_run(run, dataset, range(_NUM_MODELS.value))
        for method in (attribution.Gradients(cosine=True), attribution.KFAC()):
            columns = method(models, records)
            yield method.method.name, np.asarray(columns.column(np.arange(columns.targets)).values)


def main(argv: list[str]) -> None:
    """Prints a line for each part, and for both together, at each size of the ensemble."""
    run, dataset = influence_jax.open_run(argv[1]), data.load('clipart')
    truth = HeldOut(influence_jax.open_run(_HELD_OUT.value), dataset)
    masks, losses = run.masks[run.complete], run.measurement('loss')[run.complete]
    print(f'ceiling {truth.ceiling():.3f}')
    scores = dict(all_scores(dataset))
    margins = {name: top1_margin(of) for name, of in scores.items()}
    for name, of in scores.items():
        show(name, of, truth, {})
    sets = {name: {name: of} for name, of in scores.items()}
    if len(scores) > 1:
        sets['all scores'] = scores
    for members in map(int, _MEMBERS.value):
        some = masks[:members], losses[:members]
        for method in (adjusted, shrunk):
            show(f'{method.name}, M = {members}', method(*some).values, truth, {})
        for name, chosen_scores in sets.items():
            chosen = {one: margins[one] for one in chosen_scores}
            values = with_scores(chosen_scores)(*some).values
            show(f'assisted by {name}, M = {members}', values, truth, chosen)
            rows = np.random.default_rng(0).permutation(len(values))
            permuted = {one: matrix[rows] for one, matrix in chosen_scores.items()}
            values = with_scores(permuted)(*some).values
            show(f'  the same with rows permuted, M = {members}', values, truth, {})


def show(
    name: str,
    matrix: Float[AnyArray, 'N T'],
    truth: HeldOut,
    margins: Mapping[str, Float[np.ndarray, ' T']],
) -> None:
    """Prints what the truth says of these scores."""
    scores = np.asarray(matrix)
    found, low, high = truth.lds(scores)
    margin = top1_margin(scores)
    line = f'{name:48s} LDS {found:.3f} [{low:.3f}, {high:.3f}] AUROC {truth.auroc(margin):.3f}'
    if margins:
        joint = joint_margin(margin, *margins.values())
        line += f' (with scores {truth.auroc(joint):.3f})'
    print(f'{line} twin {truth.twin_rate(scores):.3f}', flush=True)


if __name__ == '__main__':
    sys.exit(app.run(main))
