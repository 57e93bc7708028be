"""How a member is trained: how long, in what batches, by which optimiser, from which keys."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from influence_jax.training.compute_dtype import ComputeDtype
from influence_jax.training.member import Program
from influence_jax.types import BasedTask, Masks, Params, PRNGKey, Task

_VECTOR = re.compile(r'(bias|scale|shift)\W*(value)?\W*$')


class EnsembleKeys(NamedTuple):
    """The keys of an ensemble; nothing else of it is random.

    masks: of the subsets.
    members: of the members: member m's own is `fold_in(members, m)`.
    full_data_model: of the one model that is trained on all examples.
    """

    masks: PRNGKey
    members: PRNGKey
    full_data_model: PRNGKey

    @classmethod
    def of(cls, seed: int) -> 'EnsembleKeys':
        """The keys of a seed; the first of four is for the choice of data."""
        return cls(*jax.random.split(jax.random.key(seed), 4)[1:])


@dataclasses.dataclass(frozen=True)
class Recipe:
    """AdamW under a learning rate that rises linearly and falls to zero as a cosine.

    Attributes:
        epochs: passes over a subset of the expected size.
        batch_size: B, examples of one training step.
        learning_rate: the schedule's peak.
        warmup: share of the steps in which the learning rate rises.
        weight_decay: decoupled (arXiv 1711.05101), of matrices and kernels only.
        b1: decay of the first moment.
        b2: decay of the second moment.
        compute_dtype: of the factors of products while members train; bfloat16 is for accelerators,
            and for convolutions on CPUs with instructions for it. None, as launches of ResNets
            have it: that of the run that is continued, or else bfloat16 where that is faster.
            Parameters, sums, losses and what is measured are float32 in any case.
    """

    epochs: float = 12.0
    batch_size: int = 48
    learning_rate: float = 3e-3
    warmup: float = 0.2
    weight_decay: float = 0.05
    b1: float = 0.8
    b2: float = 0.95
    compute_dtype: ComputeDtype | None = ComputeDtype.FLOAT32

    def __post_init__(self) -> None:
        for name in ('epochs', 'batch_size', 'learning_rate'):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f'{name} must be positive, not {getattr(self, name)}')
        if not 0 <= self.warmup <= 1:
            raise ValueError(f'warmup must lie in [0, 1], not {self.warmup}')
        for name, below in {'weight_decay': math.inf, 'b1': 1, 'b2': 1}.items():
            if not 0 <= getattr(self, name) < below:
                raise ValueError(f'{name} must lie in [0, {below}), not {getattr(self, name)}')

    @classmethod
    def of_manifest(cls, fields: Mapping[str, Any]) -> 'Recipe':
        """Returns the recipe that `described` describes."""
        dtype = ComputeDtype(fields.get('compute_dtype', ComputeDtype.FLOAT32))
        return cls(**{**fields, 'compute_dtype': dtype})

    def described(self) -> dict[str, Any]:
        """Returns what a manifest keeps: every setting, the dtype where it is not float32.

        Raises:
            ValueError: no dtype was chosen yet.
        """
        fields = dataclasses.asdict(self) | {'compute_dtype': self._dtype()}
        if self.compute_dtype is ComputeDtype.FLOAT32:  # as before there was a choice
            del fields['compute_dtype']
        return fields

    def steps(self, expected_subset: float) -> int:
        """Training steps of every member: the same for all, whatever its subset's size."""
        return max(1, round(self.epochs * expected_subset / self.batch_size))

    def program(
        self, task: Task | BasedTask, masks: Masks, inclusion_prob: float, *, measure_batch: int
    ) -> Program:
        """How the members of these subsets are trained and measured.

        Raises:
            ValueError: a subset holds fewer examples than a batch, or no dtype was chosen yet.
        """
        masks = np.asarray(masks)
        smallest = int(masks.sum(axis=1).min())
        if smallest < self.batch_size:
            raise ValueError(
                f'the smallest subset holds {smallest} examples, fewer than batch_size='
                f'{self.batch_size}; use a smaller batch, more examples or a larger inclusion_prob'
            )
        steps = self.steps(inclusion_prob * masks.shape[1])
        return Program(
            task,
            self.optimizer(steps),
            steps,
            self.batch_size,
            measure_batch,
            smallest,
            self._dtype(),
        )

    def _dtype(self) -> ComputeDtype:
        if self.compute_dtype is None:
            raise ValueError('compute_dtype=None is for training: give float32 or bfloat16')
        return self.compute_dtype

    def optimizer(self, steps: int) -> optax.GradientTransformation:
        """The optimiser of a run of so many steps."""
        warmup = max(1, round(self.warmup * steps))
        return optax.adamw(
            optax.warmup_cosine_decay_schedule(0, self.learning_rate, warmup, steps + 1),
            b1=self.b1,
            b2=self.b2,
            weight_decay=self.weight_decay,
            mask=_is_matrix,
        )


def _is_matrix(params: Params) -> Params:
    # Layers may be stacked: a bias of all of them has two axes as well.
    def decays(path: tuple, leaf: jax.Array) -> bool:
        return leaf.ndim > 1 and not _VECTOR.search(jax.tree_util.keystr(path))

    return jax.tree_util.tree_map_with_path(decays, params)
