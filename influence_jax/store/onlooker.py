"""A run as a process knows it that trains members with others, one of which writes the run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from influence_jax.store import checks, status
from influence_jax.store.manifest import Manifest
from influence_jax.types import AnyArray


class Onlooker(status.Statuses):
    """Knows which members there are, as the `Run` of the process that writes does; no more.

    directory, manifest, masks: as of that `Run`.
    """

    def __init__(
        self,
        directory: Path | str,
        manifest: Manifest,
        masks: Bool[AnyArray, 'M N'],
        statuses: Int8[np.ndarray, ' M'],
    ) -> None:
        self.directory = Path(directory).absolute()
        self.manifest = manifest
        self.masks = checks.masks(masks, manifest)
        self._status = statuses.copy()

    def write(
        self, members: Int[AnyArray, ' C'], measurements: Mapping[str, Float[AnyArray, 'C T']]
    ) -> None:
        """Remembers that they are there; somebody else records them."""
        rows = checks.rows(measurements, self.manifest, count=len(members))
        self._status[np.asarray(members)] = status.of_rows(rows)

    def require_in_place(self) -> None:
        """Nothing: somebody else writes there, and looks."""

    def note(self, name: str, value: Any) -> None:
        """Nothing: somebody else keeps it."""

    def write_texts(self, name: str, texts: Sequence[str]) -> None:
        """Nothing: somebody else keeps them."""
