"""Columns of the influence matrix, computed and condensed without ever holding the matrix."""

import jax
import numpy as np
from jaxtyping import Bool

from influence_jax.estimators.scan.compiled import CompiledScan, read_columns
from influence_jax.estimators.scan.contract import (
    EDGES,
    Entries,
    Scan,
    SingleEntries,
    SummaryRequest,
    SummaryResult,
    Targets,
)
from influence_jax.estimators.scan.device import DeviceScan
from influence_jax.estimators.scan.host import HostScan

__all__ = [
    'EDGES',
    'Entries',
    'Scan',
    'SingleEntries',
    'SummaryRequest',
    'SummaryResult',
    'Targets',
    'on_accelerators',
    'read_columns',
    'scan_for',
]


def scan_for(masks: Bool[np.ndarray, 'M N']) -> Scan:
    """The scan for this process's devices."""
    if on_accelerators():
        return DeviceScan(masks)
    return CompiledScan.of(masks) or HostScan(masks)


def on_accelerators() -> bool:
    """Whether this process has other devices than CPUs."""
    return any(device.platform != 'cpu' for device in jax.local_devices())
