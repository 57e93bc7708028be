"""How well scores of influence, of whatever source, agree with retraining."""

from influence_jax.analysis.judge.ceiling import Ceilings, degree_one_weight, reliability
from influence_jax.analysis.judge.convex import (
    LeaveOneOut,
    LeaveOneOutAgreement,
    leave_one_out,
    leave_one_out_agreement,
)
from influence_jax.analysis.judge.detection import (
    Detection,
    EnsembleAgreement,
    MislabelScores,
    NearDuplicateScores,
    Sanity,
    entries_agreement,
    mislabel_scores,
    near_duplicate_scores,
    sampled_targets,
)
from influence_jax.analysis.judge.ensemble_size import EnsembleCurve, Worth, estimate
from influence_jax.analysis.judge.held_out import (
    HeldOut,
    Split,
    held_out_members,
    hold_out_last,
    split_by,
)
from influence_jax.analysis.judge.interventions import (
    LeaveOut,
    Removal,
    Rise,
    leave_out,
    remove_group,
)
from influence_jax.analysis.judge.leaderboard import Judge, Leaderboard, Row, cross_validated
from influence_jax.analysis.judge.prediction import (
    Agreement,
    Estimate,
    Resamples,
    predictions,
    rank_agreement,
)

__all__ = [
    'Agreement',
    'Ceilings',
    'Detection',
    'EnsembleAgreement',
    'EnsembleCurve',
    'Estimate',
    'HeldOut',
    'Judge',
    'Leaderboard',
    'LeaveOneOut',
    'LeaveOneOutAgreement',
    'LeaveOut',
    'MislabelScores',
    'NearDuplicateScores',
    'Removal',
    'Resamples',
    'Rise',
    'Row',
    'Sanity',
    'Split',
    'Worth',
    'cross_validated',
    'degree_one_weight',
    'entries_agreement',
    'estimate',
    'held_out_members',
    'hold_out_last',
    'leave_one_out',
    'leave_one_out_agreement',
    'leave_out',
    'mislabel_scores',
    'near_duplicate_scores',
    'predictions',
    'rank_agreement',
    'reliability',
    'remove_group',
    'sampled_targets',
    'split_by',
]
