"""Leave-one-out retraining to convergence, where that is possible: logistic regression."""

from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.special
from jaxtyping import Float, Int

from influence_jax.analysis.convergence.agreement import correlation
from influence_jax.estimators import Columns

_STEPS = 100
_SUFFICIENT = 1e-4
_HELPS = 0.3
"""Share of the gradient that may be left after a step."""


class LeaveOneOut(NamedTuple):
    """What leaving out single examples does, exactly.

    kernel: `[D C]` of the model that was trained on all examples.
    bias: `[C]`
    left_out: `[G]` which examples were left out, one at a time.
    differences: `[G N]` loss of every example without the one that was left out, less that with
        all, in nats: positive where including it lowers the loss.
    """

    kernel: Float[np.ndarray, 'D C']
    bias: Float[np.ndarray, ' C']
    left_out: Int[np.ndarray, ' G']
    differences: Float[np.ndarray, 'G N']


def leave_one_out(
    features: Float[np.ndarray, 'N D'],
    labels: Int[np.ndarray, ' N'],
    left_out: Int[np.ndarray, ' G'],
    *,
    weight_decay: float,
    tolerance: float = 1e-10,
) -> LeaveOneOut:
    """Retrains multinomial logistic regression without each of some examples, to convergence.

    Minimizes sum_j loss_j / N + weight_decay / 2 |kernel, bias|^2 in float64 by Newton's method.
    An example that is left out leaves the sum; N stays, as in the definition of influence functions
    (Koh and Liang 2017, arXiv 1703.04730, section 2).

    Args:
        features: `[N D]`.
        labels: `[N]` classes from 0.
        left_out: `[G]` which examples.
        weight_decay: of kernel and bias, positive: the optimum is then unique.
        tolerance: of the norm of the gradient.

    Raises:
        ValueError: `weight_decay` that is not positive, or Newton's method does not converge.
    """
    if not weight_decay > 0:
        raise ValueError(f'{weight_decay=} must be positive: else the optimum is not unique')
    inputs = np.column_stack([features, np.ones(len(features))]).astype(np.float64)
    targets = np.eye(int(labels.max()) + 1)[labels]
    start = np.zeros((inputs.shape[1], targets.shape[1]))
    weights = np.ones(len(inputs))
    settings = weight_decay, tolerance
    whole = _minimum(inputs, targets, weights, start, *settings)
    before = _losses(inputs, targets, whole)
    differences = np.empty((len(left_out), len(inputs)))
    for row, example in enumerate(left_out):
        weights[example] = 0
        without = _minimum(inputs, targets, weights, whole, *settings)
        differences[row] = _losses(inputs, targets, without) - before
        weights[example] = 1
    return LeaveOneOut(whole[:-1], whole[-1], np.asarray(left_out), differences)


class LeaveOneOutAgreement(NamedTuple):
    """Correlations of scores with exact leave-one-out differences.

    pearson: over all pairs of an example that was left out and another one.
    spearman: the same, of ranks.
    self_pearson: over the examples that were left out, of what they do to themselves.
    """

    pearson: float
    spearman: float
    self_pearson: float


def leave_one_out_agreement(columns: Columns, truth: LeaveOneOut) -> LeaveOneOutAgreement:
    """Compares scores `[N N]`, of the examples as targets, with exact differences.

    Raises:
        ValueError: scores of another number of examples or targets.
    """
    count = truth.differences.shape[1]
    if (columns.examples, columns.targets) != (count, count):
        raise ValueError(
            f'scores are [{columns.examples} {columns.targets}], the differences of {count} '
            f'examples: give scores of the same examples, which are the targets, too'
        )
    scores = np.asarray(columns.column(np.arange(count)).values, np.float64)[truth.left_out]
    own = np.arange(count) == truth.left_out[:, None]
    pearson, spearman = (
        correlation(scores[~own], truth.differences[~own], ranks=ranks) for ranks in (False, True)
    )
    return LeaveOneOutAgreement(
        pearson, spearman, correlation(scores[own], truth.differences[own], ranks=False)
    )


def _losses(
    inputs: Float[np.ndarray, 'N D'],
    targets: Float[np.ndarray, 'N C'],
    found: Float[np.ndarray, 'D C'],
) -> Float[np.ndarray, ' N']:
    logits = inputs @ found
    return scipy.special.logsumexp(logits, axis=1) - (logits * targets).sum(axis=1)


def _minimum(
    inputs: Float[np.ndarray, 'N D'],
    targets: Float[np.ndarray, 'N C'],
    weights: Float[np.ndarray, ' N'],
    found: Float[np.ndarray, 'D C'],
    weight_decay: float,
    tolerance: float,
) -> Float[np.ndarray, 'D C']:
    """Newton's method with backtracking, from `found`; a Hessian serves as long as it helps."""
    count = len(inputs)

    def objective(at: Float[np.ndarray, 'D C']) -> float:
        loss = weights @ _losses(inputs, targets, at) / count
        return float(loss + weight_decay / 2 * (at**2).sum())

    factor, before = None, np.inf
    for _ in range(_STEPS):
        likely = scipy.special.softmax(inputs @ found, axis=1)
        gradient = inputs.T @ (weights[:, None] * (likely - targets)) / count + weight_decay * found
        norm = float(np.linalg.norm(gradient))
        if norm <= tolerance:
            return found
        if factor is None or norm > _HELPS * before:
            hessian = _hessian(inputs, likely, weights / count)
            hessian[np.diag_indices_from(hessian)] += weight_decay
            factor = scipy.linalg.cho_factor(hessian)
        before = norm
        step = scipy.linalg.cho_solve(factor, gradient.T.ravel()).reshape(gradient.T.shape).T
        now, slope = objective(found), float((gradient * step).sum())
        # Near the optimum, values differ by rounding alone, and whole steps are right.
        while slope > tolerance and objective(found - step) > now - _SUFFICIENT * slope:
            step, slope = step / 2, slope / 2
        found = found - step
    raise ValueError(
        f"Newton's method has a gradient of {np.linalg.norm(gradient):.1e} after {_STEPS} steps, "
        f'above {tolerance=}: allow more, or standardize the features'
    )


def _hessian(
    inputs: Float[np.ndarray, 'N D'],
    likely: Float[np.ndarray, 'N C'],
    weights: Float[np.ndarray, ' N'],
) -> Float[np.ndarray, '_ _']:
    """Of the mean loss, class by class: `[C D C D]` as a matrix."""
    (_, width), classes = inputs.shape, likely.shape[1]
    found = np.empty((classes, width, classes, width))
    for a in range(classes):
        for b in range(a + 1):
            scale = weights * likely[:, a] * ((a == b) - likely[:, b])
            found[a, :, b] = found[b, :, a] = inputs.T @ (scale[:, None] * inputs)
    return found.reshape(classes * width, -1)
