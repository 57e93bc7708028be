"""The run directory: what was configured, who trained on what, and what was measured.

    DIR/manifest.json            written last on creation: without it DIR is not a run
    DIR/masks.zarr               bool [M N]
    DIR/measurements/NAME.zarr   float32 [M T], one member a chunk, NaN where missing
    DIR/digests.zarr             uint8 [M 1+K 16], bind the rows of K measurements to member and run
    DIR/status.zarr              uint8 [M], a member's entry written after all of its rows
    DIR/examples.json            what reports show of the examples; their pixels in examples.zarr
    DIR/scores/NAME.npy          float32 [N T] of attribution, NAME.json says whose
    DIR/texts/NAME.json          a text for each target, where there are any
    DIR/notes.json               choices kept for whoever continues the run; holds no results
    DIR/lock                     held by the one writer

All arrays are zarr 3 with checksums, the manifest has one of itself and of the masks, and digests
bind each member's status and rows to the member and the run; runs of earlier versions have neither
of the latter. Nothing in the directory can run code. A kill at any moment loses the members under
way and no other. A run grows: resumed with more members, it is extended in place, and opens with
the old or with the new number of members whenever that is interrupted.
"""

from influence_jax.store.files import (
    BadManifest,
    ConfigurationMismatch,
    CorruptRun,
    FewerMembers,
    NotARun,
    RunError,
    RunGone,
    RunLocked,
    StorageFailed,
)
from influence_jax.store.layout import (
    COMPLETIONS,
    FULL_DATA_MODEL,
    IN_TRAINING,
    PARAMS,
    read_manifest,
)
from influence_jax.store.manifest import DatasetIdentity, Manifest, git_commit, versions
from influence_jax.store.members import MemberStatus, ReadOnlyRun
from influence_jax.store.run import Run, create_or_resume, open_run
from influence_jax.store.scores import (
    SCORES,
    KeptScores,
    ScoreAxes,
    ScoreSource,
    kept_scores,
    open_scores,
)
from influence_jax.store.shown import Shown

__all__ = [
    'COMPLETIONS',
    'FULL_DATA_MODEL',
    'IN_TRAINING',
    'PARAMS',
    'SCORES',
    'BadManifest',
    'ConfigurationMismatch',
    'CorruptRun',
    'DatasetIdentity',
    'FewerMembers',
    'KeptScores',
    'Manifest',
    'MemberStatus',
    'NotARun',
    'ReadOnlyRun',
    'Run',
    'RunError',
    'RunGone',
    'RunLocked',
    'ScoreAxes',
    'ScoreSource',
    'Shown',
    'StorageFailed',
    'create_or_resume',
    'git_commit',
    'kept_scores',
    'open_run',
    'open_scores',
    'read_manifest',
    'versions',
]
