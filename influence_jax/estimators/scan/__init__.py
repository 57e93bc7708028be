"""Columns of the influence matrix, computed and condensed without ever holding the matrix."""

import jax
import numpy as np
from jaxtyping import Bool

from influence_jax.estimators.scan.contract import (
    EDGES,
    Scan,
    SummaryRequest,
    SummaryResult,
    Targets,
)
from influence_jax.estimators.scan.device import DeviceScan
from influence_jax.estimators.scan.products import Product

__all__ = ['EDGES', 'Scan', 'SummaryRequest', 'SummaryResult', 'Targets', 'scan_for']

_MANY_ENTRIES = 2**24


def scan_for(masks: Bool[np.ndarray, 'M N'], *, targets: int) -> Scan:
    """The fastest scan for so many targets on this process's devices."""
    if any(device.platform != 'cpu' for device in jax.local_devices()):
        return DeviceScan(masks)
    if masks.shape[1] * targets < _MANY_ENTRIES:  # done before the host's scan is compiled
        return DeviceScan(masks, product=Product.FLOAT32)
    from influence_jax.estimators.scan.host import HostScan  # numba is slow to import

    return HostScan(masks)
