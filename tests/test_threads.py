"""Work on all cores: in order, what fails is raised, and nothing runs far ahead."""

import threading
import time

import numpy as np
import pytest
import threadpoolctl

from influence_jax import threads
from influence_jax.estimators import summarize
from influence_jax.threads import in_threads, side_by_side


def test_pieces_come_in_order_and_what_fails_is_raised():
    def work(piece):
        if piece.start == 40:
            raise ValueError('piece of 40')
        return piece.start

    assert in_threads(work, 40, step=8) == [0, 8, 16, 24, 32]
    with pytest.raises(ValueError, match='piece of 40'):
        in_threads(work, 400, step=8)
    assert in_threads(work, 0, step=8) == []


def test_items_are_worked_on_at_once_and_come_in_order(monkeypatch):
    monkeypatch.setattr(threads, 'num_cores', lambda: 2)
    together = threading.Barrier(2)

    def work(item):
        if item < 2:
            together.wait(timeout=30)  # neither goes on before both are there
        time.sleep(0.02 * (item % 2 == 0))
        return item

    assert list(side_by_side(work, range(7))) == list(range(7))
    assert list(side_by_side(work, [])) == []


def test_within_an_item_pieces_stay_in_its_thread():
    def work(item):
        return set(in_threads(lambda piece: threading.get_ident(), 64, step=1))

    of_items = list(side_by_side(work, range(4)))
    assert all(len(one) == 1 for one in of_items)
    assert threading.get_ident() not in set.union(*of_items)


def test_a_single_item_may_use_all_cores(monkeypatch):
    monkeypatch.setattr(threads, 'num_cores', lambda: 2)
    together = threading.Barrier(2)

    def work(item):
        return in_threads(lambda piece: together.wait(timeout=30) >= 0, 2, step=1)

    assert list(side_by_side(work, range(1))) == [[True, True]]


def test_work_within_work_takes_no_more_threads(monkeypatch):
    monkeypatch.setattr(threads, 'num_cores', lambda: 4)
    seen = set()

    def innermost(piece):
        seen.add(threading.get_ident())
        time.sleep(0.001)

    def inner(piece):
        in_threads(innermost, 8, step=1)
        list(side_by_side(lambda item: innermost(item), range(4)))

    in_threads(inner, 8, step=1)
    assert len(seen) <= 4
    seen.clear()
    list(side_by_side(inner, range(8)))
    assert len(seen) <= 4


def test_blas_has_its_threads_again_whoever_ends_first():
    def now():
        return [one['num_threads'] for one in threadpoolctl.threadpool_info()]

    before = now()
    several = [side_by_side(lambda item: item, range(9)) for _ in range(2)]
    for one in several:
        next(one)
    assert set(now()) == {1}
    several[0].close()
    assert set(now()) == {1}
    several[1].close()
    assert now() == before


def test_few_items_are_begun_before_the_first_is_taken(monkeypatch):
    monkeypatch.setattr(threads, 'num_cores', lambda: 2)
    asked = []

    def items():
        for item in range(100):
            asked.append(item)
            yield item

    several = side_by_side(lambda item: item, items())
    assert next(several) == 0
    assert len(asked) <= 3
    several.close()
    assert len(asked) <= 3


def test_what_fails_in_an_item_is_raised_where_it_would_come():
    def work(item):
        if item == 2:
            raise ValueError('item 2')
        return item

    several = side_by_side(work, range(50))
    assert [next(several), next(several)] == [0, 1]
    with pytest.raises(ValueError, match='item 2'):
        next(several)


@pytest.mark.parametrize('cores', [1, 3])
def test_a_summary_is_the_same_on_any_number_of_cores(monkeypatch, cores):
    generator = np.random.default_rng(0)
    masks = generator.random((40, 300)) < 0.5
    losses = (generator.normal(size=(40, 300)) - masks).astype(np.float32)
    expected = summarize(masks, losses)
    monkeypatch.setattr('influence_jax.estimators.scan.compiled.num_cores', lambda: cores)
    monkeypatch.setattr(threads, 'num_cores', lambda: cores)
    found = summarize(masks, losses)
    for name in ('top_examples', 'z_histogram', 'quantiles', 'self_influence', 'margin'):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for one, other in zip(found.pairs, expected.pairs, strict=True):
        np.testing.assert_array_equal(one, other)
