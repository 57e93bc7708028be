"""Whose a row is: digests that bind it to its run, member and measurement, and to the status.

A file's own checksum tells that it is whole, not that it is the file that was written there.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

SIZE = 16
"""Bytes of a digest."""


def canonical(value: Any) -> bytes:
    """JSON of a value, the same for equal values, in whatever order its keys are."""
    return json.dumps(value, sort_keys=True, separators=(',', ':')).encode()


def of_json(value: Any) -> str:
    """The sha256 of a value of what JSON can hold."""
    return hashlib.sha256(canonical(value)).hexdigest()


def of_masks(masks: Bool[np.ndarray, 'M N']) -> str:
    """The sha256 of masks and of their shape."""
    digest = hashlib.sha256(canonical(list(masks.shape)))
    for row in masks:
        digest.update(np.packbits(row).tobytes())
    return digest.hexdigest()


def of_row(
    run: str, name: str, member: int, row: Float[np.ndarray, ' T']
) -> UInt8[np.ndarray, ' B']:
    """The digest of a member's row of a measurement.

    Args:
        run: the run's identity.
        name: of the measurement.
        member: whose row it is.
        row: the values.
    """
    return _digest([run, 'row', name, member], row.astype('<f4').tobytes())


def of_rows(
    run: str,
    members: Int[np.ndarray, ' C'],
    rows: Mapping[str, Float[np.ndarray, 'C T']],
    status: Int[np.ndarray, ' C'],
) -> UInt8[np.ndarray, 'C D B']:
    """What is recorded of members: the digest of the record itself, then those of their rows."""
    recorded = np.empty((len(members), 1 + len(rows), SIZE), np.uint8)
    for record, member, state, *own in zip(
        recorded, members.tolist(), status.tolist(), *rows.values(), strict=True
    ):
        for k, (name, row) in enumerate(zip(rows, own, strict=True)):
            record[1 + k] = of_row(run, name, member, row)
        record[0] = of_record(run, member, state, record[1:])
    return recorded


def of_record(
    run: str, member: int, status: int, rows: UInt8[np.ndarray, 'K B']
) -> UInt8[np.ndarray, ' B']:
    """The digest of a member's status and of the digests of its rows."""
    return _digest([run, 'record', member, status], rows.tobytes())


def _digest(head: Sequence[Any], content: bytes) -> UInt8[np.ndarray, ' B']:
    digest = hashlib.blake2b(canonical(list(head)), digest_size=SIZE)
    digest.update(content)
    return np.frombuffer(digest.digest(), np.uint8)
