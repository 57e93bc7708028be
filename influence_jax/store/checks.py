"""What may be written to a run: shapes, names and types, each refusal one line."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.store.manifest import Manifest
from influence_jax.types import AnyArray


def masks(values: Bool[AnyArray, 'M N'], manifest: Manifest) -> Bool[np.ndarray, 'M N']:
    """A copy of the masks; ValueError where they do not fit the manifest."""
    values = np.array(values)
    expected = (manifest.members, len(manifest.example_ids))
    if values.dtype != np.bool_ or values.shape != expected:
        raise ValueError(
            f'masks are {values.dtype}{list(values.shape)}, expected bool{list(expected)}'
        )
    return values


def members(indices: Int[AnyArray, ' C'], *, total: int) -> Int[np.ndarray, ' C']:
    """The indices; ValueError unless they are distinct and in `0..total - 1`."""
    indices = np.asarray(indices)
    if indices.ndim != 1 or not np.issubdtype(indices.dtype, np.integer):
        raise ValueError(
            f'members must be a list of indices, not {indices.dtype}{list(indices.shape)}'
        )
    if np.any((indices < 0) | (indices >= total)):
        raise ValueError(f'members {indices.tolist()} are not all in 0..{total - 1}')
    if len(np.unique(indices)) != len(indices):
        raise ValueError(f'members {indices.tolist()} are not distinct')
    return indices


def rows(
    measurements: Mapping[str, Float[AnyArray, 'C T']], manifest: Manifest, *, count: int
) -> dict[str, Float[np.ndarray, 'C T']]:
    """The measurements as float32; ValueError where names or shapes do not fit the manifest."""
    names = manifest.measurements
    if set(measurements) != set(names):
        raise ValueError(f'measurements are {sorted(measurements)}, expected {sorted(names)}')
    expected = (count, len(manifest.target_ids))
    checked = {}
    for name in names:
        # What float32 cannot hold becomes infinite, and so the member diverged.
        with np.errstate(over='ignore', invalid='ignore'):
            checked[name] = np.asarray(measurements[name]).astype(np.float32)
        if checked[name].shape != expected:
            raise ValueError(
                f'measurement {name} has shape {list(checked[name].shape)}, '
                f'expected {list(expected)}'
            )
    return checked
