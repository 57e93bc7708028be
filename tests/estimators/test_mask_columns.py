"""Which examples go together, as the masks tell."""

import numpy as np

from influence_jax.estimators.mask_columns import distinct, nearly_equal
from influence_jax.estimators.packed import PackedColumns


def partition(cluster):
    return {frozenset(np.flatnonzero(cluster == c).tolist()) for c in np.unique(cluster)}


def test_equal_columns_are_one_cluster_in_order_of_appearance():
    masks = np.random.default_rng(0).random((40, 4))[:, [2, 0, 2, 3, 0]] < 0.5
    found = distinct(masks)
    np.testing.assert_array_equal(found.cluster, [0, 1, 0, 2, 1])
    np.testing.assert_array_equal(found.first, [0, 1, 3])
    assert not found.trivial


def test_nearly_equal_columns_are_found_and_others_are_not():
    generator = np.random.default_rng(1)
    masks = np.repeat(generator.random((300, 200)) < 0.3, 3, axis=1)
    for column in range(0, 600, 3):
        masks[generator.permutation(300)[:4], column] ^= True
    found = nearly_equal(masks)
    assert partition(found.cluster) == {frozenset({i, i + 1, i + 2}) for i in range(0, 600, 3)}


def test_a_column_and_its_complement_are_one_cluster():
    masks = np.random.default_rng(4).random((100, 6)) < 0.5
    masks[:, 4] = ~masks[:, 1]
    assert partition(nearly_equal(masks).cluster) == {
        frozenset(one) for one in ({0}, {1, 4}, {2}, {3}, {5})
    }


def test_independent_columns_are_each_alone_even_if_rare():
    masks = np.random.default_rng(2).random((200, 500)) < 0.03
    masks[:2] = True  # none is empty
    assert nearly_equal(np.random.default_rng(3).random((64, 900)) < 0.5).trivial
    assert len(nearly_equal(masks).first) == len(distinct(masks).first)


def test_packed_columns_are_the_columns():
    masks = np.random.default_rng(0).random((13, 5000)) < 0.5
    packed, chosen = PackedColumns.of(masks), np.array([[3, 4999], [2048, 3]])
    np.testing.assert_array_equal(packed.columns(chosen), masks.T[chosen])
    assert packed.bits.nbytes == 2 * 5000
