"""What compressed gradients cost, and how far their scores agree with those of whole gradients.

    python -m benchmarks.compression --models=DIR [--data_dir=DIR] [--targets=64] [--num_models=1] \
        [--ranks=1,2,4,8,16,32] [--counts=64,256,1024,4096]

DIR is a run of image models with parameters (--keep_params). For LoGra of each rank and dropout of
each number of coordinates: bytes kept of a record, seconds for all examples and some targets drawn
at random (compiling included), and the mean over targets of Spearman's correlation with methods
that compress nothing: EK-FAC, EK-FAC of the empirical Fisher information (which is what compressed
gradients have), and the inner product of gradients.
"""

import time

import jax
import numpy as np
import scipy.stats
from absl import app, flags
from jaxtyping import Float

from experiments import remake
from influence_jax import attribution, open_run
from influence_jax.attribution import (
    KFAC,
    Attribution,
    Compressed,
    Dropout,
    Fisher,
    Gradients,
    LoGra,
    Model,
    Records,
)
from influence_jax.attribution.compression import Compression

_MODELS = flags.DEFINE_string('models', None, 'run with parameters', required=True)
_DATA_DIR = flags.DEFINE_string('data_dir', None, 'of the data')
_TARGETS = flags.DEFINE_integer('targets', 64, 'how many targets')
_NUM_MODELS = flags.DEFINE_integer('num_models', 1, 'models whose scores are averaged')
_RANKS = flags.DEFINE_list('ranks', ['1', '2', '4', '8', '16', '32'], 'of LoGra')
_COUNTS = flags.DEFINE_list('counts', ['64', '256', '1024', '4096'], 'of dropout')


def main(arguments: list[str]) -> None:
    del arguments
    run = open_run(_MODELS.value)
    dataset, _ = remake.dataset_and_task(run, data_dir=_DATA_DIR.value)
    models, records = attribution.read_run(run, dataset, range(_NUM_MODELS.value))
    some = np.random.default_rng(0).permutation(records.num_targets)[: _TARGETS.value]
    targets = jax.tree.map(lambda leaf: np.asarray(leaf)[np.sort(some)], records.targets)
    records = Records(records.examples, targets)

    print(f'{records.num_examples} examples, {records.num_targets} targets, {len(models)} models')
    references: dict[str, Attribution] = {
        'EK-FAC': KFAC(),
        'EK-FAC, empirical': KFAC(fisher=Fisher.EMPIRICAL),
        'product': Gradients(),
    }
    print(f'| gradients | bytes a record | {" | ".join(references)} | seconds |')
    print('|---|---|---|---|---|---|')
    whole = {name: timed(method, models, records) for name, method in references.items()}
    scores = [found for found, _ in whole.values()]
    for name, (found, seconds) in whole.items():
        line(f'whole, {name}', 4 * models[0].size, scores, found, seconds)
    compressions: dict[str, Compression] = {
        **{f'LoGra, rank {rank}': LoGra(int(rank)) for rank in _RANKS.value},
        **{f'dropout, {count} coordinates': Dropout(int(count)) for count in _COUNTS.value},
    }
    for name, compression in compressions.items():
        found, seconds = timed(Compressed(compression), models, records)
        network = models[0].network(records.examples, records.loss)
        line(name, 4 * sum(compression.widths(network)), scores, found, seconds)


def timed(
    method: Attribution, models: list[Model], records: Records
) -> tuple[Float[np.ndarray, 'N T'], float]:
    start = time.perf_counter()
    found = method(models, records).column(np.arange(records.num_targets)).values
    return np.asarray(found), time.perf_counter() - start


def spearman(one: Float[np.ndarray, 'N T'], other: Float[np.ndarray, 'N T']) -> float:
    """The mean over targets."""
    pairs = zip(one.T, other.T, strict=True)
    return float(np.mean([scipy.stats.spearmanr(*pair).statistic for pair in pairs]))


def line(
    name: str,
    width: int,
    references: list[Float[np.ndarray, 'N T']],
    found: Float[np.ndarray, 'N T'],
    seconds: float,
) -> None:
    agreement = ' | '.join(f'{spearman(one, found):.3f}' for one in references)
    print(f'| {name} | {width:,} | {agreement} | {seconds:.1f} |', flush=True)


if __name__ == '__main__':
    app.run(main)
