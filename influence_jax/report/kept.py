"""Masks and losses kept beside a report, so that whole columns can be estimated again."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from influence_jax.estimators.ensemble import finite_members
from influence_jax.report import storage
from influence_jax.report.run import ReportedRun, examples_of_targets

TENSORS = 'tensors.zarr'
"""Name of the kept tensors in a report's directory."""


class KeptTensors(NamedTuple):
    """Masks and losses of the complete members.

    mask_bits: `[M b]` masks, eight examples a byte, the first in the highest bit.
    examples: N.
    losses: `[M T]`.
    target_examples: `[T]` the example that each target is, -1 where it is none.
    """

    mask_bits: UInt8[np.ndarray, 'M b']
    examples: int
    losses: Float[np.ndarray, 'M T']
    target_examples: Int[np.ndarray, ' T']

    @classmethod
    def of(cls, run: ReportedRun, measurement: str = 'loss') -> 'KeptTensors':
        """Takes those of a run.

        Raises:
            ValueError: it has no such measurement, or no complete member.
        """
        masks, losses = finite_members(run.masks, run.measurement(measurement))
        return cls(
            np.packbits(masks, axis=1),
            masks.shape[1],
            np.asarray(losses, np.float32),
            np.asarray(examples_of_targets(run), np.int64),
        )

    @classmethod
    def load(cls, directory: Path | str) -> 'KeptTensors':
        """Reads those beside a report.

        Raises:
            FileNotFoundError: there are none.
            ValueError: they are damaged or of another version; one line.
        """
        kept = storage.load(Path(directory) / TENSORS, cls)
        members, width = kept.mask_bits.shape
        if not 0 <= 8 * width - kept.examples < 8 or not members:
            raise ValueError(
                f'{Path(directory) / TENSORS} has {width} bytes of masks for {kept.examples} '
                f'examples; write the report again'
            )
        return kept

    def save(self, directory: Path) -> None:
        """Writes them to a directory that has none; durable on return."""
        storage.save(directory / TENSORS, self)

    @property
    def masks(self) -> Bool[np.ndarray, 'M N']:
        """Returns the masks, a byte an entry."""
        return np.unpackbits(self.mask_bits, axis=1, count=self.examples).view(bool)
