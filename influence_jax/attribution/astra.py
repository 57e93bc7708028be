"""ASTRA-style influence functions: EK-FAC refined by iterations on the system that it approximates.

Our reconstruction: the authors' code is not public, and draws batches for a Neumann series. Here
the damped Gauss-Newton system is solved by conjugate gradients with EK-FAC as preconditioner.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from influence_jax.attribution.influence_function import InfluenceFunction, scorer
from influence_jax.attribution.kfac import KFAC
from influence_jax.attribution.method import Attribution, Records, Scorer, working_bytes
from influence_jax.attribution.model import Model
from influence_jax.attribution.solvers import ConjugateGradients, Product, conjugate_gradients
from influence_jax.estimators.estimator import Method


@dataclasses.dataclass(frozen=True)
class ASTRA(Attribution):
    """Influence functions of the Gauss-Newton matrix, EK-FAC being the first step towards them.

    score as of `InfluenceFunction`; all parameters count. Each iteration takes a pass over all
    examples for each target.

    Attributes:
        iterations: at most.
        tolerance: of the residual, relative to the gradient, at which iterations end.
        damping: as of `InfluenceFunction`; EK-FAC is damped alike.
        seed: of the labels that are drawn for EK-FAC.
    """

    iterations: int = 10
    tolerance: float = 1e-3
    damping: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f'iterations={self.iterations} must be at least 1')
        InfluenceFunction(damping=self.damping)  # refuses what is not positive

    @property
    def method(self) -> Method:
        """See `Attribution`."""
        return Method(
            'astra',
            'ASTRA-style refinement of EK-FAC',
            'the influence function of the Gauss-Newton matrix, EK-FAC refined (reconstruction)',
        )

    def unit(self, model: Model, records: Records) -> str:
        """See `Attribution`."""
        return model.unit(records.measurement)

    def bytes_needed(self, models: Sequence[Model], records: Records) -> int:
        """That of EK-FAC, and of conjugate gradients."""
        size = models[0].size
        iterations = ConjugateGradients().bytes_needed(size, records.batch)
        factors = KFAC(seed=self.seed).bytes_needed(models, records)
        return factors + working_bytes(size, records) + iterations

    @property
    def for_chosen_targets(self) -> bool:
        """See `Attribution`."""
        return True

    def prepare(self, models: Sequence[Model], records: Records) -> Scorer:
        """See `Attribution`."""
        solves = [self._solve(model, records) for model in models]
        return scorer(models, records, solves, None)

    def _solve(self, model: Model, records: Records) -> Product:
        operator = InfluenceFunction(damping=self.damping).operator(model, records)
        precondition = _by_ekfac(model, records, KFAC(damping=operator.damping, seed=self.seed))
        return lambda rows: conjugate_gradients(
            operator,
            rows,
            tolerance=self.tolerance,
            iterations=self.iterations,
            precondition=precondition,
        )


def _by_ekfac(model: Model, records: Records, method: KFAC) -> Product:
    """The product with EK-FAC's inverse; what is in no layer is divided by the mean eigenvalue."""
    network = model.network(records.examples, records.loss)
    spectra = method.spectra(model, records)
    pairs = list(zip(network.layers, spectra, strict=True))
    count = sum(spectrum.values.size for spectrum in spectra)
    mean = sum(float(spectrum.values.sum()) for spectrum in spectra) / max(count, 1)
    damping = spectra[0].damping if spectra else 1.0
    ones, unravel = ravel_pytree(jax.tree.map(jnp.ones_like, model.chosen))

    def summed(parts: list[dict[str, Array]]) -> Float[Array, ' P']:
        total = {path: jnp.zeros_like(leaf) for path, leaf in model.chosen.items()}
        for part in parts:
            total |= {path: total[path] + leaf for path, leaf in part.items()}
        return ravel_pytree(total)[0]

    there = unravel(ones)
    covered = summed([layer.leaves(layer.block(there), network.shapes) for layer, _ in pairs]) > 0

    @jax.jit
    def product(rows: Float[Array, 'r P']) -> Float[Array, 'r P']:
        def of_one(row: Float[Array, ' P']) -> Float[Array, ' P']:
            params = unravel(row)
            parts = []
            for layer, spectrum in pairs:
                solved = spectrum.solve(layer.block(params)[None])[0]
                parts.append(layer.leaves(solved, network.shapes))
            return jnp.where(covered, summed(parts), row / (mean + damping))

        return jax.vmap(of_one)(rows)

    return product
