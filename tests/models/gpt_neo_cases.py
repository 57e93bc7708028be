"""Networks for the tests, with weights large enough for every part to count."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from influence_jax.models import gpt_neo
from influence_jax.models.gpt_neo import Attention, GPTNeoConfig
from influence_jax.trees import map_named

# A window shorter than the texts.
SMALL = GPTNeoConfig(
    vocab_size=31,
    hidden=16,
    layers=2,
    heads=4,
    inner=24,
    max_positions=16,
    window=3,
    attention=(Attention.LOCAL, Attention.GLOBAL),
)

# The tests run for milliseconds, but would compile for minutes.
COMPILE_QUICKLY = {'xla_backend_optimization_level': 0, 'xla_llvm_disable_expensive_passes': True}
jit = functools.partial(jax.jit, compiler_options=COMPILE_QUICKLY)


def params(config=SMALL, seed=0, scale=0.3):
    """Drawn by numpy, which compiles nothing."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        drawn = rng.normal(0, scale, leaf.shape) + path.endswith('norm/scale')
        return jnp.asarray(drawn, jnp.float32)

    return map_named(draw, gpt_neo.abstract(config))


def tokens(batch=2, length=12, config=SMALL, seed=1):
    rng = np.random.default_rng(seed)
    return rng.integers(0, config.vocab_size, (batch, length)).astype(np.int32)


@functools.partial(jit, static_argnames='config')
def logits(config, params, tokens, adapters=None):
    return gpt_neo.bind(config, params)(tokens, adapters)


def total_loss(config, params, tokens, lengths, adapters=None):
    """Sum over texts of the mean loss of their tokens, as PyTorch's `labels` have it."""
    predicted = gpt_neo.bind(config, params)(tokens[:, :-1], adapters)
    following = tokens[:, 1:, None]
    losses = jax.nn.logsumexp(predicted, axis=-1) - jnp.take_along_axis(
        predicted, following, axis=-1
    ).squeeze(-1)
    counts = (lengths - 1)[:, None]
    counted = jnp.arange(tokens.shape[1] - 1)[None] < counts
    return jnp.where(counted, losses / counts, 0).sum()


value_and_gradient = jax.value_and_grad(total_loss, argnums=1)
loss_and_gradient = jit(value_and_gradient, static_argnums=0)


def assert_trees_close(actual, expected, rtol=1e-5, atol=1e-6):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=rtol, atol=atol)
