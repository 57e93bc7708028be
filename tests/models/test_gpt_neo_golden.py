"""Parity with what PyTorch's GPTNeoForCausalLM gave once (fixtures_gpt_neo/make.py)."""

from pathlib import Path

import jax
import numpy as np
import pytest

from influence_jax.models.gpt_neo import bind, greedy, hugging_face
from influence_jax.trees import named
from tests.models.gpt_neo_cases import jit, logits, loss_and_gradient

FOLDER = Path(__file__).parent / 'fixtures_gpt_neo'


@pytest.fixture(scope='module')
def answers():
    with np.load(FOLDER / 'answers.npz') as file:
        return dict(file)


@pytest.fixture(scope='module')
def model():
    return hugging_face.load(FOLDER)


def test_logits(model, answers):
    assert answers['tokens'].shape[1] > 4 * model[0].window
    actual = logits(*model, answers['tokens'])
    np.testing.assert_allclose(actual, answers['logits'], atol=1e-4)


def test_parameters_in_host_memory_may_be_constants_of_a_program(model, answers):
    config, params = model
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(params))
    actual = jit(bind(config, params))(answers['tokens'])
    np.testing.assert_allclose(actual, answers['logits'], atol=1e-4)


def test_loss_and_gradients(model, answers):
    config, params = model
    loss, gradient = loss_and_gradient(config, params, answers['tokens'], answers['lengths'])
    np.testing.assert_allclose(loss, answers['loss'], rtol=1e-5)
    gradient = jax.device_get(named(gradient))
    for name, (path, layer, transposed) in hugging_face.places(config).items():
        found = gradient[path] if layer is None else gradient[path][layer]
        found = (found.T if transposed else found).ravel()
        *first, norm = answers[f'gradient/transformer.{name}']
        np.testing.assert_allclose(found[:4], first, rtol=1e-3, atol=1e-3 * norm, err_msg=name)
        np.testing.assert_allclose(np.linalg.norm(found), norm, rtol=1e-3, err_msg=name)


def test_greedy_decoding(model, answers):
    config, params = model
    prompts, lengths = np.repeat(answers['tokens'][:, :9], 2, axis=0), np.array([5, 9, 5, 9])
    decoded = jit(lambda p: greedy(config, p, prompts, lengths, new_tokens=10, end=-1))(params)
    np.testing.assert_array_equal(decoded[0::2], answers['greedy'][0])
    np.testing.assert_array_equal(decoded[1::2], answers['greedy'][1])


def test_the_fixture_is_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 100_000
