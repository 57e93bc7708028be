"""Ensemble and cheap scores, apart and together, judged by members trained on other subsets.

    python -m experiments.judge --run=RUN --held_out=DIR --models=DIR --num_models=10 \
        --attribution=cosine,trak,ekfac --estimator=none --output_dir=OUT
    python -m benchmarks.assisted RUN --held_out=DIR --scores=OUT/scores

All runs are of the embedded clip art with one recipe; HELD_OUT has another seed and repeats of its
masks. The first command computes the scores of ten models. LDS and its ceiling are those of
`analysis.judge`, on masks that leave the target out, with 95 % bootstrap intervals over masks and
targets. AUROC is that of low margins for near-duplicates by pixels, 'with scores' that of
`estimators.joint_margin` with each score's own margin; 'twin' how often the strongest other example
of a near-duplicate is one of its group.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from absl import app, flags, logging
from jaxtyping import Bool, Float, Int

from influence_jax import analysis, data, judging, open_run
from influence_jax.analysis import judge
from influence_jax.data.pixel_distance import clusters, near_duplicates
from influence_jax.estimators import (
    Columns,
    Estimator,
    adjusted,
    joint_margin,
    shrunk,
    summarize,
    with_scores,
)
from influence_jax.store import ScoreAxes

_HELD_OUT = flags.DEFINE_string(
    'held_out', None, 'run whose masks are to be predicted', required=True
)
_SCORES = flags.DEFINE_string('scores', None, 'directory of scores, all of which are used')
_MEMBERS = flags.DEFINE_list('members', ['50', '100', '250'], 'sizes of the ensemble')

_RESAMPLES = 300
_KEY = jax.random.key(0)


class Truth(NamedTuple):
    """What scores are judged by.

    held_out: masks with repeats.
    counted: `[K T]` which masks left each target out.
    resamples: of masks and targets.
    groups: `[N]` of near-duplicates.
    twins: `[T]` whether a target has a near-duplicate.
    """

    held_out: judge.HeldOut
    counted: Bool[np.ndarray, 'K T']
    resamples: judge.Resamples
    groups: Int[np.ndarray, ' N']
    twins: Bool[np.ndarray, ' T']

    @classmethod
    def of(cls, held_out: judge.HeldOut, dataset: data.Dataset) -> 'Truth':
        """Draws resamples and looks for near-duplicates."""
        count = dataset.num_examples
        pairs = near_duplicates(dataset)
        groups = clusters(pairs, count)
        resamples = judge.Resamples.draw(
            _KEY, masks=len(held_out.masks), groups=groups, resamples=_RESAMPLES
        )
        twins = np.isin(np.arange(count), pairs)
        return cls(held_out, held_out.without(np.arange(count)), resamples, groups, twins)

    @property
    def ceiling(self) -> float:
        """What any prediction can reach."""
        found = judge.reliability(self.held_out, self.counted, self.resamples, key=_KEY)
        return float(np.sqrt(max(found[0], 0)))

    def show(
        self, name: str, columns: Columns, margins: Mapping[str, Float[np.ndarray, ' T']]
    ) -> Float[np.ndarray, ' T']:
        """Prints how well these scores do, and returns their margins."""
        own = np.arange(columns.targets)
        values = np.asarray(columns.column(own).values)
        columns = Columns.of_matrix(values)
        predicted = judge.predictions(columns, self.held_out.masks)
        lds = judge.rank_agreement(predicted, self.held_out.mean, self.counted, self.resamples).mean
        found, low, high = lds.interval()
        summary = summarize(columns, target_examples=own, top_k=2)
        twins = judge.near_duplicate_scores(summary, self.groups, own, key=_KEY)
        assert twins is not None
        line = f'{name:48s} LDS {found:.3f} [{low:.3f}, {high:.3f}] AUROC {twins.auroc.value:.3f}'
        if margins:
            joint = joint_margin(summary.margin, *margins.values())
            line += f' (with scores {analysis.auroc(-joint, self.twins):.3f})'
        print(f'{line} twin {twins.twin_first:.3f}', flush=True)
        return summary.margin


def main(arguments: list[str]) -> None:
    """Prints a line for each part, and for both together, at each size of the ensemble."""
    logging.set_verbosity(logging.WARNING)
    run, held_out = open_run(arguments[1]), open_run(_HELD_OUT.value)
    own = run.target_examples
    measured = judge.held_out_members(held_out.masks, held_out.measurement('loss'))
    split = judge.split_by(run.masks, run.measurement('loss'), measured)
    truth = Truth.of(measured, data.load('clipart'))
    print(f'ceiling {truth.ceiling:.3f}')
    scores: dict[str, Columns] = {}
    for path in sorted(Path(_SCORES.value).glob('*.npy')) if _SCORES.value else []:
        columns, _, _ = judging.opened_columns(path, ScoreAxes.of(run.manifest))
        scores[columns.method.name] = columns
    margins = {name: truth.show(name, columns, {}) for name, columns in scores.items()}
    sets = {name: {name: columns} for name, columns in scores.items()}
    if len(scores) > 1:
        sets['all scores'] = scores

    for members in map(int, _MEMBERS.value):

        def estimate(estimator: Estimator, members: int = members) -> Columns:
            masks, losses = split.masks[:members], split.losses[:members]
            return judge.estimate(masks, losses, own, estimator=estimator)

        for estimator in (adjusted, shrunk):
            truth.show(f'{estimator.name}, M = {members}', estimate(estimator), {})
        for name, chosen in sets.items():
            of_chosen = {one: margins[one] for one in chosen}
            columns = estimate(with_scores(chosen))
            truth.show(f'assisted by {name}, M = {members}', columns, of_chosen)
            permuted = {one: _permuted(columns) for one, columns in chosen.items()}
            columns = estimate(with_scores(permuted))
            truth.show(f'  the same with rows permuted, M = {members}', columns, {})


def _permuted(columns: Columns) -> Columns:
    """Scores that know nothing: those of other examples."""
    rows = np.random.default_rng(0).permutation(columns.examples)
    return Columns.of_matrix(columns.column(np.arange(columns.targets)).values[rows])


if __name__ == '__main__':
    app.run(main)
