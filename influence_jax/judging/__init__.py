"""Judges methods from finished runs: how well their scores agree with retraining.

    board = judging.judge_run(run, held_out=truth, models=models, dataset=dataset)
    report.leaderboard.save(board, 'judged')

The scores and statistics themselves are in `analysis.judge`, which knows arrays alone.
"""

from influence_jax.judging.kept import (
    estimate_identity,
    kept_columns,
    opened_columns,
    scores_identity,
)
from influence_jax.judging.retraining import Retraining
from influence_jax.judging.runs import USUAL_METHODS, choose_targets, judge_members, judge_run

__all__ = [
    'USUAL_METHODS',
    'Retraining',
    'choose_targets',
    'estimate_identity',
    'judge_members',
    'judge_run',
    'kept_columns',
    'opened_columns',
    'scores_identity',
]
