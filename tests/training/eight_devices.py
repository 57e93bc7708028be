"""Run by test_large_meshes.py: losses of GPT-Neo members on meshes of 8 CPU devices, as JSON."""

import json
import sys

import jax
import numpy as np
import optax

from influence_jax.models.gpt_neo import SHARDING_RULES, GPTNeoConfig, init
from influence_jax.tasks.language_modeling import LanguageModeling, TokenBatch
from influence_jax.training import Program, WarmStart, sharded, train
from influence_jax.training.mesh import MeshShape

RECORDS, TOKENS, MEMBERS = 12, 10, 2
# Every second layer looks back 4 tokens; the layers are scanned, and computed anew backwards.
CONFIG = GPTNeoConfig(61, hidden=16, layers=5, heads=4, max_positions=TOKENS, window=4, remat=True)


def losses(shape):
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, TOKENS + 1, RECORDS).astype(np.int32)
    tokens = rng.integers(0, CONFIG.vocab_size, (RECORDS, TOKENS)).astype(np.int32)
    records = TokenBatch(tokens, lengths, np.ones(RECORDS, np.int32))
    program = Program(
        WarmStart(LanguageModeling(CONFIG)),
        optax.adamw(1e-2),
        steps=3,
        batch_size=5,  # which does not divide over 2 devices
        measure_batch=6,
        smallest_subset=6,
    )
    trained = train(
        program,
        key=jax.random.key(3),
        masks=np.arange(RECORDS) % 2 == np.arange(MEMBERS)[:, None] % 2,
        members=range(MEMBERS),
        examples=records,
        targets=records,
        executor=sharded(shape, SHARDING_RULES),
        base=init(CONFIG, key=jax.random.key(1)),
    )
    return np.concatenate([one.result.measurements['loss'] for one in trained]).tolist()


if __name__ == '__main__':
    jax.config.update('jax_num_cpu_devices', 8)
    jax.config.update('jax_numpy_rank_promotion', 'raise')
    jax.config.update('jax_disable_most_optimizations', True)  # compiles faster
    shapes = [MeshShape.parse(text) for text in sys.argv[1:]]
    print(json.dumps([losses(shape) for shape in shapes]))
