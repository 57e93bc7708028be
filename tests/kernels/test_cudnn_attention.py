"""What is asked of cuDNN, and derivatives around it; what it computes only a GPU can tell."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_jax.kernels import cudnn_attention, functions
from influence_jax.kernels.cudnn_attention import CausalAttention
from influence_jax.models.gpt_neo import network

SHAPE = (2, 3, 12, 8)


def heads(dtype=jnp.float32, shape=SHAPE):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape, np.float32), dtype) for _ in range(3)]


@dataclasses.dataclass(frozen=True)
class Library(CausalAttention):
    """Asks jax.nn for the same on the CPU, once and twice the result: to be told apart."""

    factor: float = 1.0
    platform = 'cpu'

    def _fused(self, *arrays):
        assert all(array.ndim == 4 for array in arrays)

        def asked_for(*arrays, implementation, **options):
            assert implementation == 'cudnn' and arrays[0].shape[1] % 2 == 0
            return asked(*arrays, **options)

        asked = functools.partial(jax.nn.dot_product_attention, implementation='xla')
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jax.nn, 'dot_product_attention', asked_for)
            return self.factor * super()._fused(*arrays)


def both(window, factor=1.0):
    form = functools.partial(network._attended, window or SHAPE[2])
    return functools.partial(functions.call, Library(window, form, factor)), form


def close(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def gradients(attend):
    return jax.grad(lambda *arrays: jnp.sin(attend(*arrays)).sum(), argnums=(0, 1, 2))


@pytest.mark.parametrize('window', [None, 1, 5])
def test_what_is_asked_for_is_the_form_in_jax_of_one_member_and_of_many(window):
    fused, form = both(window)
    close(jax.jit(fused)(*heads()), form(*heads()))
    close(jax.jit(gradients(fused))(*heads()), gradients(form)(*heads()))
    members = [jnp.stack([array, -array]) for array in heads()]
    close(jax.jit(jax.vmap(gradients(fused)))(*members), jax.vmap(gradients(form))(*members))
    shared = (0, None, 0)
    close(
        jax.jit(jax.vmap(fused, shared))(members[0], heads()[1], members[2]),
        jax.vmap(form, shared)(members[0], heads()[1], members[2]),
    )


def test_of_an_odd_number_of_tokens():
    fused, form = both(5)
    odd = heads(shape=(2, 3, 11, 8))
    close(jax.jit(fused)(*odd), form(*odd))
    close(jax.jit(gradients(fused))(*odd), gradients(form)(*odd))


def test_the_kernel_computes_first_derivatives_and_the_form_all_others():
    twice, form = both(5, factor=2.0)
    close(jax.jit(twice)(*heads()), 2 * form(*heads()))
    # sin'(2 x) times the gradients of twice the attention.
    expected = jax.grad(lambda *arrays: jnp.sin(2 * form(*arrays)).sum())(*heads())
    close(jax.jit(gradients(twice))(*heads())[0], expected)
    tangents = [jnp.cos(array) for array in heads()]
    pushed = jax.jit(lambda: jax.jvp(twice, tuple(heads()), tuple(tangents))[1])()
    close(pushed, jax.jvp(form, tuple(heads()), tuple(tangents))[1])
    once = both(5)
    close(
        *(
            jax.jit(lambda a=a: jax.jvp(gradients(a), tuple(heads()), tuple(tangents))[1])()
            for a in once
        )
    )


def known(monkeypatch):
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    monkeypatch.setattr(cudnn, 'check_cudnn_version', lambda: 91002)
    monkeypatch.setattr(cudnn, 'check_compute_capability', lambda _: True)
    monkeypatch.setattr(cudnn, 'is_cuda_compute_capability_equal', lambda _: False)


def test_cudnn_is_asked_for_a_window_of_so_many_tokens(monkeypatch):
    known(monkeypatch)
    monkeypatch.setattr(CausalAttention, 'serves', lambda *_: True)
    texts = heads(jnp.bfloat16)
    traced = jax.make_jaxpr(functools.partial(network.causal_attention, window=5))(*texts)
    (equation,) = traced.eqns
    form = equation.params['form']
    assert (form.window, form.platform) == (5, 'cuda')
    attended = str(jax.make_jaxpr(form.value)(*texts))
    assert 'sliding_window_length=5' in attended
    assert 'MaskType.CAUSAL' in attended
    gradients = str(jax.make_jaxpr(form.gradients)(*texts, texts[0]))
    assert 'dot_product_attention_bwd' in gradients
    traced = jax.make_jaxpr(functools.partial(network.causal_attention, window=12))(*texts)
    assert traced.eqns[0].params['form'].window is None


class Client:
    platform_version = 'PJRT C API\ncuda 13000'


class Card:
    client = Client()
    compute_capability = '9.0'


def serves(shape=(1, 1, 4, 64), dtype=jnp.bfloat16):
    cudnn_attention._is_known.cache_clear()
    try:
        return CausalAttention(None, network._form_in_jax(4)).serves(*[jnp.zeros(shape, dtype)] * 3)
    finally:
        cudnn_attention._is_known.cache_clear()


def test_it_serves_cards_shapes_and_types_that_cudnn_knows(monkeypatch):
    assert not serves()
    monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
    monkeypatch.setattr(jax, 'devices', lambda: [Card()])
    assert not serves()  # there is no cuDNN here
    known(monkeypatch)
    assert serves()
    assert serves((2, 3, 7, 128))
    assert not serves(dtype=jnp.float32)
    assert not serves((1, 1, 4, 60))
    assert not serves((1, 1, 4, 512))
    monkeypatch.setattr(Card, 'compute_capability', '7.0')
    assert not serves()
