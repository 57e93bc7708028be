"""Cheaper scores of what the ensemble measures, from the parameters of one or a few members.

A method is called with models and records and returns `estimators.Columns`: scores `[N T]` of the
sign of influence (positive where including the example lowers the measurement), read block by
block. `summarize`, `report` and all that takes columns take them.
"""

from influence_jax.attribution.astra import ASTRA
from influence_jax.attribution.compression import Compressed, Dropout, LoGra
from influence_jax.attribution.controls import (
    BM25,
    EmbeddingSimilarity,
    GradientNorm,
    Loss,
    PixelDistance,
)
from influence_jax.attribution.costs import Cost, Stage, cost
from influence_jax.attribution.data_value_embedding import DataValueEmbedding
from influence_jax.attribution.gradients import Gradients
from influence_jax.attribution.influence_function import Curvature, InfluenceFunction
from influence_jax.attribution.kfac import KFAC, Fisher, Spectrum
from influence_jax.attribution.layers import Layer, Network
from influence_jax.attribution.metagradient import (
    Metagradients,
    combined_metagradients,
    metagradients,
    metasmoothness,
    random_combinations,
    sketch,
)
from influence_jax.attribution.method import Attribution, Records
from influence_jax.attribution.mirrored import Mirrored
from influence_jax.attribution.model import Model, Training
from influence_jax.attribution.parts import by_module, by_token, by_token_of_pairs
from influence_jax.attribution.relatif import RelatIF
from influence_jax.attribution.runs import read_run
from influence_jax.attribution.solvers import Arnoldi, ConjugateGradients, Exact, LiSSA
from influence_jax.attribution.source import SOURCE
from influence_jax.attribution.trak import TRAK
from influence_jax.attribution.z0_inf import Z0Inf, Z0InfCheckpoints

BUILT_IN: tuple[Attribution, ...] = (
    Gradients(),
    Gradients(cosine=True),
    TRAK(),
    KFAC(corrected=False),
    KFAC(),
    InfluenceFunction(Exact()),
    InfluenceFunction(ConjugateGradients()),
    InfluenceFunction(LiSSA()),
    InfluenceFunction(Arnoldi()),
    ASTRA(),
    Compressed(LoGra()),
    Compressed(Dropout()),
    GradientNorm(),
    Loss(),
    EmbeddingSimilarity(),
    PixelDistance(),
    BM25(),
    Metagradients(),
    Mirrored(),
    Z0Inf(),
    DataValueEmbedding(),
    SOURCE(),
)
"""The methods of this package with their own settings; the one place that lists them."""


def by_name(name: str) -> Attribution:
    """The method of `BUILT_IN` that has this name, in upper or lower case: for flags.

    Raises:
        ValueError: there is none, listing those that there are.
    """
    names = {one.method.name: one for one in BUILT_IN}
    if name.lower() not in names:
        raise ValueError(f'no attribution method {name!r}: use one of {", ".join(names)}')
    return names[name.lower()]


__all__ = [
    'ASTRA',
    'BM25',
    'BUILT_IN',
    'KFAC',
    'SOURCE',
    'TRAK',
    'Arnoldi',
    'Attribution',
    'Compressed',
    'ConjugateGradients',
    'Cost',
    'Curvature',
    'DataValueEmbedding',
    'Dropout',
    'EmbeddingSimilarity',
    'Exact',
    'Fisher',
    'GradientNorm',
    'Gradients',
    'InfluenceFunction',
    'Layer',
    'LiSSA',
    'LoGra',
    'Loss',
    'Metagradients',
    'Mirrored',
    'Model',
    'Network',
    'PixelDistance',
    'Records',
    'RelatIF',
    'Spectrum',
    'Stage',
    'Training',
    'Z0Inf',
    'Z0InfCheckpoints',
    'by_module',
    'by_name',
    'by_token',
    'by_token_of_pairs',
    'combined_metagradients',
    'cost',
    'metagradients',
    'metasmoothness',
    'random_combinations',
    'read_run',
    'sketch',
]
