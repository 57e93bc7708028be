"""Grows an ensemble, member after member, until its estimates are precise enough."""

import math
from typing import NamedTuple

import jax

from experiments.settings import AnalysisSettings
from influence_jax import store
from influence_jax.analysis.convergence import Precision, members_needed, precision
from influence_jax.subsets import Design

_FIRST_CHECK = 16
_BEYOND = 1.03


class Check(NamedTuple):
    """What the members at hand are worth.

    precision: theirs.
    wanted: the standard error that is asked for, nats.
    untrained: how many members there may be besides.
    """

    precision: Precision
    wanted: float
    untrained: int

    @property
    def enough(self) -> bool:
        """The standard error is reached, and there is one of every example."""
        found = self.precision
        return found.standard_error <= self.wanted and not found.unknown_examples

    @property
    def needed(self) -> int | None:
        """How many members it is likely to take; None where that cannot be told yet."""
        found = self.precision
        if not math.isfinite(found.standard_error):
            return None
        return members_needed(found.standard_error, members=found.members, wanted=self.wanted)

    @property
    def next_check(self) -> int:
        """At how many members to look again: where it should be enough.

        At most at twice as many, since a prediction from few members is rough, and after a tenth
        more at the earliest, since every look costs a compilation.
        """
        members = self.precision.members
        soonest, latest = members + math.ceil(members / 10), 2 * members
        if self.needed is None:
            return latest
        # A little beyond, as just too few would cost that tenth.
        return min(max(math.ceil(_BEYOND * self.needed), soonest), latest)

    @property
    def more(self) -> int:
        """How many more members will be trained, as far as can be told."""
        if self.enough:
            return 0
        likely = self.untrained if self.needed is None else self.needed - self.precision.members
        return min(self.untrained, max(likely, 1))

    def __str__(self) -> str:
        found = self.precision
        if self.enough:
            return f'{self._reached}, {self.wanted:g} wanted: precise enough'
        if found.unknown_examples:
            text = (
                f'not known for {found.unknown_examples:,} examples, in or out of fewer than 2 '
                f'of {found.members:,} members'
            )
        elif self.needed is None:
            text = f'not known with {found.members:,} members'
        else:
            text = f'{self._reached}, {self.wanted:g} takes about {self.needed:,}'
        if self.untrained:
            return text
        return f'{text}, but --max_members are trained: allow more, in a new --output_dir'

    @property
    def _reached(self) -> str:
        found = self.precision
        return f'{found.standard_error:.3g} nats with {found.members:,} members'


class Growth:
    """When an ensemble has been looked at, what was seen, and when it is looked at next."""

    def __init__(self, settings: AnalysisSettings, design: Design, *, key: jax.Array) -> None:
        """Refuses (ValueError) what cannot be grown.

        Args:
            settings: what is wanted.
            design: of the masks; one in which a first part of the members is as good as any.
            key: draws the targets on which the standard error is measured.
        """
        if design is Design.BALANCED:
            raise ValueError(
                '--design=balanced puts every example into a fixed share of all members, so it '
                'cannot stop early: use independent or exact_size with --until_standard_error'
            )
        if settings.max_members < settings.least_members:
            raise ValueError(
                f'--max_members={settings.max_members} is too few for the estimator '
                f'{settings.estimator.value}: allow at least {settings.least_members}'
            )
        self._settings, self._key = settings, key
        self._next_check = max(_FIRST_CHECK, settings.least_members)
        self._last: Check | None = None

    def look(self, run: store.Run) -> Check | None:
        """Looks, when it is time to; None when it is not. Members that diverged do not count."""
        if len(run.complete) < self._next_check:
            return None
        check = self.check(run)
        self._next_check = check.next_check
        return check

    def check(self, run: store.Run) -> Check:
        """What the members at hand are worth, whether or not it is time to look."""
        if self._last is None or self._last.precision.members != len(run.complete):
            found = precision(
                run.masks,
                run.measurement('loss'),
                key=self._key,
                estimator=self._settings.estimator,
            )
            wanted = self._settings.until_standard_error
            self._last = Check(found, wanted, len(run.missing))
        return self._last
