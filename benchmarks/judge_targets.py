"""Judges methods on some of a large run's targets, drawn at random, from Python.

    python -m benchmarks.judge_targets RUN --held_out=DIR --models=DIR --data_dir=DIR \
        [--targets=2000] [--num_models=1] [--attribution=cosine,ekfac,embedding]

For runs of many targets: as experiments.judge, but scores and estimates are computed of these
targets alone, in one block, and every example's gradients once.
"""

import dataclasses
import time

import jax
import numpy as np
from absl import app, flags

from experiments import remake
from influence_jax import attribution, estimators, open_run
from influence_jax.analysis import judge
from influence_jax.analysis.judge import HeldOut, Split
from influence_jax.estimators import Columns
from influence_jax.report import leaderboard
from influence_jax.report.leaderboard import Leaderboard

_HELD_OUT = flags.DEFINE_string('held_out', None, 'run with repeats', required=True)
_MODELS = flags.DEFINE_string('models', None, 'run with parameters', required=True)
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'of the data')
_TARGETS = flags.DEFINE_integer('targets', 2000, 'how many targets')
_NUM_MODELS = flags.DEFINE_integer('num_models', 1, 'models whose scores are averaged')
_ATTRIBUTION = flags.DEFINE_list('attribution', ['cosine', 'ekfac', 'embedding'], 'methods')
_ESTIMATORS = flags.DEFINE_list('estimators', ['difference', 'adjusted', 'shrunk'], 'estimators')
_OUTPUT = flags.DEFINE_string('output_dir', 'runs/judge_targets', 'of the leaderboard')


def main(arguments: list[str]) -> None:
    run, truth = open_run(arguments[1]), open_run(_HELD_OUT.value)
    models_run = open_run(_MODELS.value)
    dataset, _ = remake.dataset_and_task(models_run, data_dir=_DATA_DIR.value)
    generator = np.random.default_rng(0)
    some = np.sort(generator.permutation(len(run.target_ids))[: _TARGETS.value])
    held = judge.held_out_members(truth.masks, truth['loss'])
    split = Split(run.masks, run['loss'][:, some], HeldOut(held.masks, held.measured[..., some]))
    own = run.target_examples[some]
    by = judge.Judge(split, own, jax.random.key(0), resamples=200)
    rows, computed = [], {}

    def judged(columns: Columns) -> None:
        start = time.perf_counter()
        values = np.asarray(columns.column(np.arange(len(some))).values)
        kept = dataclasses.replace(columns, read=lambda targets: values[:, targets])
        computed[columns.method.name] = kept
        seconds = time.perf_counter() - start
        rows.append(by(kept)._replace(cost=judge.Cost(seconds, None)))
        print(columns.method.name, f'{seconds:.0f} s', rows[-1].lds.mean.interval(), flush=True)

    for name in _ESTIMATORS.value:
        estimator = estimators.by_name(name)
        judged(judge.estimate(split.masks, split.losses, own, estimator=estimator))
    models, records = attribution.read_run(models_run, dataset, range(_NUM_MODELS.value))
    targets = jax.tree.map(lambda leaf: np.asarray(leaf)[some], records.targets)
    records = dataclasses.replace(records, targets=targets, memory=2**33, block=len(some))
    for name in _ATTRIBUTION.value:
        judged(attribution.by_name(name)(models, records))
    if _ATTRIBUTION.value:
        scores = {name: computed[name] for name in _ATTRIBUTION.value}
        assisted = estimators.with_scores(scores)
        judged(judge.estimate(split.masks, split.losses, own, estimator=assisted))
    board = Leaderboard(
        f'Judged by retraining, {len(some):,} targets: {run.manifest.dataset.name}',
        tuple(rows),
        by.ceilings,
        by.ceilings_all,
    )
    print(leaderboard.save(board, _OUTPUT.value))
    print(by.ceilings and (by.ceilings.any.interval(), by.ceilings.linear.interval()))
    print(by.curve and list(zip(by.curve.members, by.curve.scores, strict=True)))


if __name__ == '__main__':
    app.run(main)
