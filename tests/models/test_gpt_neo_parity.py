"""Parity with PyTorch's GPTNeoForCausalLM on random networks, where PyTorch is installed."""

import warnings

import jax
import numpy as np
import pytest

from influence_jax.models.gpt_neo import Attention, GPTNeoConfig, greedy, hugging_face
from influence_jax.models.gpt_neo.hugging_face import places
from influence_jax.trees import named
from tests.models.gpt_neo_cases import (
    assert_trees_close,
    jit,
    logits,
    loss_and_gradient,
    params,
    tokens,
)

torch = pytest.importorskip('torch')
with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    import transformers

G, L = Attention.GLOBAL, Attention.LOCAL
LENGTHS = np.array([24, 15, 9], np.int32)
NEW = 9
# Windows of one token, and shorter than the text; five layers are scanned.
CONFIGS = [
    GPTNeoConfig(40, hidden=16, layers=1, heads=1, max_positions=33, window=1, attention=(L,)),
    GPTNeoConfig(97, 32, 2, 4, 50, 64, window=7, attention=(L, G), norm_epsilon=1e-2),
    GPTNeoConfig(31, 16, 5, 8, max_positions=32, window=5, attention=(L, L, G, L, G), remat=True),
]


@pytest.fixture(scope='module', params=CONFIGS, ids=lambda c: f'{c.layers} layers')
def both(request, tmp_path_factory):
    """Our config and parameters, and PyTorch's network read from what we save."""
    config, folder = request.param, tmp_path_factory.mktemp('ours')
    weights = params(config)
    hugging_face.save(folder, config, weights, max_shard_bytes=10_000)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        theirs, info = transformers.GPTNeoForCausalLM.from_pretrained(
            folder, output_loading_info=True
        )
    assert not any(info[kind] for kind in ('missing_keys', 'unexpected_keys', 'mismatched_keys'))
    return config, weights, theirs.eval()


def _texts(config):
    return tokens(batch=3, length=24, config=config)


def test_logits(both):
    config, weights, theirs = both
    expected = theirs(torch.tensor(_texts(config), dtype=torch.long)).logits.detach().numpy()
    np.testing.assert_allclose(logits(config, weights, _texts(config)), expected, atol=1e-4)


def test_loss_and_gradients(both):
    """Padding included: PyTorch sees every text by itself, without any."""
    config, weights, theirs = both
    theirs.zero_grad()
    total = 0
    for text, length in zip(_texts(config), LENGTHS, strict=True):
        row = torch.tensor(text[None, :length], dtype=torch.long)
        total = total + theirs(row, labels=row).loss
    total.backward()
    loss, gradient = loss_and_gradient(config, weights, _texts(config), LENGTHS)
    np.testing.assert_allclose(loss, total.item(), rtol=1e-5)
    gradient = jax.device_get(named(gradient))
    expected = dict(theirs.named_parameters())
    for name, (path, layer, transposed) in places(config).items():
        found = gradient[path] if layer is None else gradient[path][layer]
        reference = expected[f'transformer.{name}'].grad.numpy()
        difference = np.linalg.norm((found.T if transposed else found) - reference)
        # Queries and keys of a window of one token have no gradient but rounding.
        assert difference <= 1e-3 * np.linalg.norm(reference) + 1e-5, name


def test_greedy_decoding(both):
    config, weights, theirs = both
    prompts, lengths = _texts(config)[:, :15], np.array([15, 4, 9])
    decoded = jit(lambda p: greedy(config, p, prompts, lengths, new_tokens=NEW, end=-1))(weights)
    for text, length, ours in zip(prompts, lengths, decoded, strict=True):
        prompt = torch.tensor(text[None, :length], dtype=torch.long)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            generated = theirs.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=NEW,
            )
        np.testing.assert_array_equal(ours, generated[0, length:].numpy())


def test_transformers_stops_at_the_end_that_was_saved(tmp_path):
    config, prompt = CONFIGS[1], _texts(CONFIGS[1])[:1, :6]
    decode = jit(lambda p: greedy(config, p, prompt, np.array([6]), new_tokens=NEW, end=-1))
    free = np.asarray(decode(params(config)))[0]
    hugging_face.save(tmp_path, config, params(config), end=int(free[2]))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        theirs = transformers.GPTNeoForCausalLM.from_pretrained(tmp_path)
        row = torch.tensor(prompt, dtype=torch.long)
        generated = theirs.generate(
            row, attention_mask=torch.ones_like(row), do_sample=False, max_new_tokens=NEW
        )
    stop = int(np.argmax(free == free[2])) + 1
    np.testing.assert_array_equal(generated[0, 6:].numpy(), free[:stop])


def test_what_transformers_saves_is_read(both, tmp_path):
    config, weights, theirs = both
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        theirs.save_pretrained(tmp_path)
    read, loaded = hugging_face.load(tmp_path, remat=config.remat)
    assert read == config
    assert_trees_close(loaded, weights, 0, 0)
