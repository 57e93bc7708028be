"""Controls against their definitions, and the list of methods."""

import jax
import numpy as np
import pytest

from influence_jax import attribution
from influence_jax.attribution import (
    BM25,
    EmbeddingSimilarity,
    GradientNorm,
    Loss,
    Model,
    PixelDistance,
    Records,
)
from influence_jax.tasks.language_modeling import TokenBatch


def whole(columns):
    return np.asarray(columns.read(np.arange(columns.targets)))


def test_norms_and_losses_are_the_same_for_every_target(mlp):
    model, examples = mlp
    other = Model(model.task, jax.tree.map(lambda leaf: leaf * 0.5, model.variables))
    records = Records(examples, jax.tree.map(lambda leaf: leaf[:3], examples), batch=4)
    norms, losses = [], []
    for one in (model, other):
        slope = jax.grad(lambda p, row, one=one: one.measure(p, row, 'loss'))
        gradients = jax.jit(jax.vmap(slope, (None, 0)))(one.chosen, examples)
        squares = sum((leaf**2).sum(tuple(range(1, leaf.ndim))) for leaf in gradients.values())
        norms.append(np.sqrt(squares))
        losses.append(np.asarray(one.losses(one.chosen, examples, 'loss')))
    for method, expected in ((GradientNorm(), norms), (Loss(), losses)):
        found = whole(method([model, other], records))
        assert found.shape == (7, 3)
        for column in found.T:
            np.testing.assert_allclose(column, np.mean(expected, axis=0), rtol=1e-4)
    assert Loss()([model], records).unit == 'nats'


def test_embeddings_are_what_enters_the_last_layer(mlp):
    model, examples = mlp
    first = {path: np.asarray(leaf) for path, leaf in model.chosen.items() if '/0/' in path}
    hidden = np.maximum(examples['inputs'] @ first['layers/0/kernel'] + first['layers/0/bias'], 0)
    unit = hidden / np.linalg.norm(hidden, axis=1, keepdims=True)
    found = whole(EmbeddingSimilarity()([model], Records(examples, examples)))
    np.testing.assert_allclose(found, unit @ unit.T, atol=1e-5)


def test_embeddings_of_texts_leave_out_padding(networks):
    model, records = networks['gpt_neo']()
    padded = records._replace(tokens=np.where(np.arange(9) < records.lengths[:, None], 0, 7))
    padded = records._replace(
        tokens=np.where(np.arange(9) < records.lengths[:, None], records.tokens, 3).astype(np.int32)
    )
    one = whole(EmbeddingSimilarity()([model], Records(records, records)))
    np.testing.assert_allclose(
        whole(EmbeddingSimilarity()([model], Records(padded, padded))), one, atol=1e-5
    )


def test_distance_of_pixels(mlp):
    model, _ = mlp
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 3, 1)).astype(np.uint8)
    rows = {'inputs': images, 'label': np.arange(4)}
    found = whole(PixelDistance()([model], Records(rows, rows)))
    for i, t in np.ndindex(4, 4):
        difference = (images[i].astype(float) - images[t]) / 255
        assert found[i, t] == pytest.approx(-np.sqrt((difference**2).mean()), abs=2e-3)
    with pytest.raises(ValueError, match='image'):
        whole(PixelDistance('image')([model], Records(rows, rows)))


def test_bm25_is_its_formula(mlp):
    model, _ = mlp
    texts = [[1, 2, 2, 3], [2, 5], [1, 1, 4, 4, 4]]
    tokens = np.array([text + [0] * (6 - len(text)) for text in texts], np.int32)
    records = TokenBatch(tokens, np.array([4, 2, 5], np.int32), np.zeros(3, np.int32))
    found = whole(BM25()([model], Records(records, records)))
    for i, t in np.ndindex(3, 3):
        expected = 0.0
        for token in texts[t]:
            having = sum(token in text for text in texts)
            count = texts[i].count(token)
            rarity = np.log(1 + (3 - having + 0.5) / (having + 0.5))
            length = 1 - 0.75 + 0.75 * len(texts[i]) / (11 / 3)
            expected += rarity * count * 2.5 / (count + 1.5 * length)
        assert found[i, t] == pytest.approx(expected, rel=1e-5)
    rows = {'inputs': tokens}
    with pytest.raises(ValueError, match='tokens and lengths'):
        whole(BM25()([model], Records(rows, rows)))


def test_methods_have_names_of_their_own():
    names = [one.method.name for one in attribution.BUILT_IN]
    assert len(set(names)) == len(names)
    for name in names:
        assert attribution.by_name(name.upper()).method.name == name
    with pytest.raises(ValueError, match='ekfac'):
        attribution.by_name('nonsense')
