"""Solvers of (curvature + damping) x = gradient, from products with vectors alone."""

import dataclasses
import logging
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

Product = Callable[[Float[Array, 'r P']], Float[Array, 'r P']]
"""Of each row with a symmetric matrix."""

_POWER_STEPS = 20
_SAFETY = 2.0

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Operator:
    """A curvature with its damping: a symmetric matrix `[P P]`, known by its products.

    Attributes:
        size: P.
        damping: what was added to every eigenvalue.
        product: with rows `[r P]`.
        sampled: the same, of a batch of examples that is drawn with a key.
    """

    size: int
    damping: float
    product: Product
    sampled: Callable[[Float[Array, 'r P'], Key[Array, '']], Float[Array, 'r P']]


@runtime_checkable
class Solver(Protocol):
    """A way of solving; implementations are frozen dataclasses of their settings."""

    @property
    def title(self) -> str:
        """For headings."""

    def prepare(self, operator: Operator) -> Product:
        """What is computed once; returns the product with the inverse.

        Raises:
            ValueError: here or when solving: the damping leaves an eigenvalue that is not positive.
        """

    def bytes_needed(self, size: int, rows: int) -> int:
        """About how much memory it holds for P = size, solving so many rows at once."""


@dataclasses.dataclass(frozen=True)
class Exact:
    """By the eigenvalues of the whole matrix; P of some thousands at most."""

    title = 'exact'

    def prepare(self, operator: Operator) -> Product:
        """See `Solver`."""
        rows = [
            np.asarray(operator.product(jnp.asarray(part, jnp.float32)), np.float64)
            for part in np.array_split(np.eye(operator.size), -(-operator.size // 256))
        ]
        matrix = np.concatenate(rows)
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        _check_positive(values[0], operator.damping)
        inverse = jnp.asarray((vectors / values) @ vectors.T, jnp.float32)
        return lambda rows: rows @ inverse

    def bytes_needed(self, size: int, rows: int) -> int:
        """See `Solver`."""
        return 32 * size**2 + 8 * rows * size


@dataclasses.dataclass(frozen=True)
class ConjugateGradients:
    """Conjugate gradients (Hestenes and Stiefel 1952), as Martens (2010) and Koh and Liang (2017).

    Attributes:
        tolerance: of the residual, relative to the right-hand side.
        iterations: at most; a residual that is left is logged.
    """

    tolerance: float = 1e-4
    iterations: int = 100

    title = 'conjugate gradients'

    def prepare(self, operator: Operator) -> Product:
        """See `Solver`."""
        return lambda rows: conjugate_gradients(
            operator, rows, tolerance=self.tolerance, iterations=self.iterations
        )

    def bytes_needed(self, size: int, rows: int) -> int:
        """See `Solver`."""
        return 32 * rows * size


def conjugate_gradients(
    operator: Operator,
    rows: Float[Array, 'r P'],
    *,
    tolerance: float,
    iterations: int,
    precondition: Product = lambda rows: rows,
) -> Float[Array, 'r P']:
    """Solves for each row by preconditioned conjugate gradients.

    Args:
        operator: the matrix.
        rows: right-hand sides.
        tolerance: as of `ConjugateGradients`.
        iterations: likewise.
        precondition: about the product with the inverse; symmetric and positive.

    Raises:
        ValueError: a direction of negative curvature is met.
    """

    def dot(a: Array, b: Array) -> Float[Array, 'r 1']:
        return (a * b).sum(axis=1, keepdims=True)

    size = jnp.sqrt(dot(rows, rows))
    found, residual = jnp.zeros_like(rows), rows
    direction = preconditioned = precondition(residual)
    energy = dot(residual, preconditioned)
    for _ in range(iterations):
        going = jnp.sqrt(dot(residual, residual)) > tolerance * size
        if not bool(going.any()):
            break
        product = operator.product(direction)
        curvature = dot(direction, product)
        steepness = jnp.where(going, curvature / jnp.maximum(dot(direction, direction), 1e-30), 1)
        _check_positive(float(steepness.min()), operator.damping)
        step = jnp.where(going, energy / jnp.where(going, curvature, 1), 0)
        found, residual = found + step * direction, residual - step * product
        preconditioned = precondition(residual)
        before, energy = energy, dot(residual, preconditioned)
        direction = preconditioned + jnp.where(going, energy / before, 0) * direction
    left = float((jnp.sqrt(dot(residual, residual)) / jnp.maximum(size, 1e-30)).max())
    if left > tolerance:
        _log.info('conjugate gradients: residual %.1e after %d iterations', left, iterations)
    return found


@dataclasses.dataclass(frozen=True)
class LiSSA:
    """The Neumann series of batches of examples (Agarwal et al. 2016; Koh and Liang 2017).

    x <- x + (gradient - (curvature + damping) x) / scale converges to the solution with this very
    damping. In the form that is common, x <- gradient + (1 - damping) x - curvature x / scale, what
    is solved for is damped by damping x scale instead.

    Attributes:
        steps: of the recursion. An eigenvalue v is solved for but for (1 - v / scale)^steps.
        repeats: recursions with batches of their own, whose mean is returned.
        scale: above half of the largest eigenvalue of any batch; by default twice an estimate of
            the largest by power iteration.
        seed: of the batches.
    """

    steps: int = 1000
    repeats: int = 1
    scale: float | None = None
    seed: int = 0

    title = 'LiSSA'

    def prepare(self, operator: Operator) -> Product:
        """See `Solver`."""
        root = jax.random.key(self.seed)
        scale = self.scale or _SAFETY * _largest_eigenvalue(operator, root)

        def solve(rows: Float[Array, 'r P']) -> Float[Array, 'r P']:
            total = jnp.zeros_like(rows)
            for repeat in range(self.repeats):
                found, key = rows / scale, jax.random.fold_in(root, repeat)
                for step in range(self.steps):
                    product = operator.sampled(found, jax.random.fold_in(key, step))
                    found = found + (rows - product) / scale
                total = total + found
            largest = float(jnp.abs(total).max())
            if not largest < 1e3 * float(jnp.abs(rows).max()) / operator.damping + 1e-30:
                raise ValueError(
                    f'LiSSA diverges with {scale=:.3g} and damping={operator.damping:.3g}: raise '
                    f'either, or use Curvature.GAUSS_NEWTON'
                )
            return total / self.repeats

        return solve

    def bytes_needed(self, size: int, rows: int) -> int:
        """See `Solver`."""
        return 24 * rows * size


def _largest_eigenvalue(operator: Operator, key: Key[Array, '']) -> float:
    """Of batches of examples, by power iteration."""
    vector = jax.random.normal(key, (1, operator.size))
    norm = jnp.linalg.norm(vector)
    for step in range(_POWER_STEPS):
        vector = operator.sampled(vector / norm, jax.random.fold_in(key, step))
        norm = jnp.linalg.norm(vector)
    return float(norm)


@dataclasses.dataclass(frozen=True)
class Arnoldi:
    """The inverse in the space of the strongest eigenvectors (Schioppa et al. 2022, 2112.03052).

    For symmetric matrices Arnoldi's iteration is Lanczos's. What is orthogonal to the space counts
    as 0. Vectors are made orthogonal to all before them, in float64; where the Krylov space ends
    early, another one is begun.

    Attributes:
        iterations: products with the matrix.
        rank: how many eigenvectors are kept, by the size of their eigenvalues without damping.
        seed: of the first vector.
    """

    iterations: int = 100
    rank: int = 50
    seed: int = 0

    title = 'Arnoldi'

    def prepare(self, operator: Operator) -> Product:
        """See `Solver`."""
        basis, projected = _lanczos(operator, min(self.iterations, operator.size), self.seed)
        values, vectors = np.linalg.eigh(projected)
        _check_positive(values[0], operator.damping)
        strongest = np.argsort(-np.abs(values - operator.damping))[: self.rank]
        kept = jnp.asarray(vectors[:, strongest].T @ basis, jnp.float32)
        inverse = jnp.asarray(1 / values[strongest], jnp.float32)
        return lambda rows: ((rows @ kept.T) * inverse[None]) @ kept

    def bytes_needed(self, size: int, rows: int) -> int:
        """See `Solver`."""
        return 8 * (min(self.iterations, size) + self.rank) * size + 8 * rows * size


def _lanczos(
    operator: Operator, count: int, seed: int
) -> tuple[Float[np.ndarray, 'k P'], Float[np.ndarray, 'k k']]:
    """Orthonormal vectors, and the matrix projected on them."""
    generator = np.random.default_rng(seed)
    basis = np.empty((count, operator.size))
    projected = np.zeros((count, count))

    def orthogonal(vector: np.ndarray, number: int) -> tuple[np.ndarray, float]:
        for _ in range(2):  # once is not enough in floating point
            vector = vector - basis[:number].T @ (basis[:number] @ vector)
        return vector, float(np.linalg.norm(vector))

    following, norm = orthogonal(generator.normal(size=operator.size), 0)
    for number in range(count):
        basis[number] = following / norm
        row = jnp.asarray(basis[number][None], jnp.float32)
        product = np.asarray(operator.product(row), np.float64)[0]
        projected[: number + 1, number] = basis[: number + 1] @ product
        following, norm = orthogonal(product, number + 1)
        if norm <= 1e-5 * np.linalg.norm(product):
            following, norm = orthogonal(generator.normal(size=operator.size), number + 1)
    return basis, np.triu(projected) + np.triu(projected, 1).T


def _check_positive(smallest: float, damping: float) -> None:
    if not smallest > 0:
        raise ValueError(
            f'{damping=:.3g} leaves curvature {smallest:.3g}, which is not positive: raise damping '
            f'above {damping - smallest:.3g}, or use Curvature.GAUSS_NEWTON'
        )
