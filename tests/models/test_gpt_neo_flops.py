"""FLOPs counted by hand against the compiler's count of one unrolled layer, and against 6 N."""

import jax
import jax.numpy as jnp
import pytest

from influence_jax.models.gpt_neo import GPTNeoConfig, abstract, bind
from influence_jax.models.gpt_neo.config import flops


def test_as_the_compiler_counts():
    config = GPTNeoConfig(500, hidden=64, layers=2, heads=4, max_positions=32)
    tokens = jax.ShapeDtypeStruct((8, 32), jnp.int32)
    forward = jax.jit(lambda p, t: bind(config, p)(t)).lower(abstract(config), tokens)
    counted = forward.compile().cost_analysis()['flops']
    # The compiler also counts norms, softmax and GELU.
    assert flops(config, batch=8, tokens=32).forward == pytest.approx(counted, rel=0.08)


def test_about_six_for_each_parameter_and_token():
    config = GPTNeoConfig(
        50257, hidden=2048, layers=24, heads=16, max_positions=2048, compute_dtype=jnp.bfloat16
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(abstract(config)))
    assert count == pytest.approx(1.3156e9, rel=1e-4)
    assert flops(config, batch=50, tokens=99).step() == pytest.approx(6 * count * 4950, rel=0.02)


def test_a_frozen_model_has_no_gradient_of_its_weights():
    config = GPTNeoConfig(500, hidden=64)
    plain = flops(config, batch=2, tokens=9)
    adapted = flops(config, batch=2, tokens=9, adapter_parameters=100)
    assert adapted.adapters == 2 * 18 * 100
    assert adapted.step(frozen=True) == 2 * plain.forward + 3 * adapted.adapters
