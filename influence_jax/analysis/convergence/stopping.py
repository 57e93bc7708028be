"""Sequential stopping: train members until their estimates are precise enough, and no more."""

import math
from typing import NamedTuple

import numpy as np

from influence_jax.analysis.convergence.agreement import least_half
from influence_jax.analysis.convergence.standard_errors import Precision, members_needed, precision
from influence_jax.estimators import EstimatorLike, as_estimator, difference_in_means
from influence_jax.types import Masks, Measurement, PRNGKey

_FIRST_CHECK = 16
_BEYOND = 1.03


class Check(NamedTuple):
    """How precise the members at hand are, and what it will take.

    precision: theirs.
    wanted: the median standard error off the diagonal that is to be reached.
    missing: how many more members can be trained.
    unit: of the standard errors.
    """

    precision: Precision
    wanted: float
    missing: int
    unit: str = 'nats'

    @property
    def enough(self) -> bool:
        """Whether the standard error is reached, and there is one of every example."""
        found = self.precision
        return found.standard_error <= self.wanted and not found.unknown_examples

    @property
    def needed(self) -> int | None:
        """How many members it is likely to take; None where that is not known yet."""
        found = self.precision
        if not math.isfinite(found.standard_error):
            return None
        return members_needed(found.standard_error, members=found.members, wanted=self.wanted)

    @property
    def next_check(self) -> int:
        """The number of members at which to check again: where it should be enough.

        At most twice as many, since a prediction from few members is rough, and a tenth more at
        the least, since every check costs a compilation.
        """
        members = self.precision.members
        soonest, latest = members + math.ceil(members / 10), 2 * members
        if self.needed is None:
            return latest
        # A little beyond, as just too few would cost that tenth.
        return min(max(math.ceil(_BEYOND * self.needed), soonest), latest)

    @property
    def more(self) -> int:
        """How many more members will be trained, as far as is known."""
        if self.enough:
            return 0
        likely = self.missing if self.needed is None else self.needed - self.precision.members
        return min(self.missing, max(likely, 1))

    def __str__(self) -> str:
        found = self.precision
        reached = f'{found.standard_error:.3g} {self.unit} with {found.members:,} members'
        if self.enough:
            return f'{reached}, {self.wanted:g} wanted: precise enough'
        if found.unknown_examples:
            text = (
                f'not known for {found.unknown_examples:,} examples, in or out of fewer than 2 '
                f'of {found.members:,} members'
            )
        elif self.needed is None:
            text = f'not known with {found.members:,} members'
        else:
            text = f'{reached}, {self.wanted:g} takes about {self.needed:,}'
        return text if self.missing else f'{text}, but all members are trained: allow more'


class SequentialStopping:
    """Decides, as members arrive, whether they are enough, and when to check again.

    Members must be trained in order, under a design of which a first part is as good as any:
    independent or exact-size masks, not balanced ones.

    Args:
      wanted: the median standard error off the diagonal, in the unit of the measurement.
      estimator: whose standard error, see `as_estimator`.
      key: draws the targets on which it is measured.
      unit: of the measurement, for messages.

    Raises:
      ValueError: `wanted` is not positive and finite.
    """

    def __init__(
        self,
        wanted: float,
        estimator: EstimatorLike = difference_in_means,
        *,
        key: PRNGKey,
        unit: str = 'nats',
    ) -> None:
        if not 0 < wanted < math.inf:
            raise ValueError(f'{wanted=} standard error must be positive and finite')
        self._wanted, self._estimator = wanted, as_estimator(estimator)
        self._key, self._unit = key, unit
        self._next_check = max(_FIRST_CHECK, 2 * least_half(self._estimator))
        self._last: tuple[int, Check] | None = None

    def is_due(self, members: int) -> bool:
        """Whether so many complete members are a reason to check again."""
        return members >= self._next_check

    def check(self, masks: Masks, losses: Measurement, *, missing: int = 0) -> Check:
        """Measures how precise the members at hand are; the same ones are measured once.

        Args:
          masks: `[M N]` bool.
          losses: `[M T]`; members that are missing or diverged hold NaN, and do not count.
          missing: how many more members can be trained.

        Raises:
          ValueError: as in `precision`.
        """
        complete = int(np.isfinite(losses).all(axis=1).sum())
        if self._last is None or self._last[0] != complete:
            found = precision(masks, losses, key=self._key, estimator=self._estimator)
            self._last = complete, Check(found, self._wanted, missing, self._unit)
            self._next_check = self._last[1].next_check
        return self._last[1]._replace(missing=missing)
