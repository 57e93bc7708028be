"""Audits of membership for tests of reports."""

import jax
import numpy as np

from influence_jax.analysis.membership import MembershipResults, audit


def audit_of(targets: int, *, own: np.ndarray | None = None) -> MembershipResults:
    """Of 64 members that memorize the first target alone."""
    rng = np.random.default_rng(0)
    masks = rng.random((64, targets)) < 0.5
    losses = rng.gamma(4.0, 0.25, masks.shape)
    losses[masks[:, 0], 0] *= 1e-3
    found = audit(masks, losses.astype(np.float32), key=jax.random.key(0), target_examples=own)
    assert found is not None
    return found
