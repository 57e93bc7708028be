"""What a notebook shows of a run and of a column: true numbers, escaped, in no time."""

import re
import time

import numpy as np
import pytest

from influence_jax import notebook
from influence_jax.estimators import adjusted, difference_in_means
from influence_jax.run import Column

PLAIN = {'unit': 'nats', 'estimator': difference_in_means}
HOSTILE = '<script>alert(1)</script>\N{RIGHT-TO-LEFT OVERRIDE}\x00'


def test_the_most_memorized_have_the_difference_of_their_means():
    rng = np.random.default_rng(0)
    masks = rng.random((60, 9)) < 0.5
    losses = (1e3 + rng.normal(size=(60, 9)) - 4 * masks * np.arange(9)).astype(np.float32)
    own = np.array([0, 1, 2, 3, 4, 5, 6, 7, -1])
    text = notebook.memorized(masks, losses, own, [f't{i}' for i in range(9)], **PLAIN)
    rows = re.findall(r'<td[^>]*>(t\d)</td><td[^>]*>([^<]+)</td>', text)
    assert [name for name, _ in rows] == ['t7', 't6', 't5', 't4', 't3']
    one, others = losses[masks[:, 7], 7].astype(float), losses[~masks[:, 7], 7].astype(float)
    error = np.sqrt(one.var(ddof=1) / len(one) + others.var(ddof=1) / len(others))
    assert rows[0][1] == f'{others.mean() - one.mean():.2f} ± {error:.2f}'


def test_the_most_memorized_are_those_of_the_estimator_or_what_was_used_instead():
    rng = np.random.default_rng(0)
    masks = rng.random((120, 30)) < 0.5
    losses = (rng.normal(size=(120, 30)) - 4 * masks).astype(np.float32)
    losses[:, 7] -= 5 * masks[:, 7] + 3 * masks[:, 8]
    ids = [f't{i}' for i in range(30)]
    text = notebook.memorized(masks, losses, np.arange(30), ids, unit='nats', estimator=adjusted)
    assert 'adjusted difference of means' in text
    values, errors = adjusted(masks, losses)
    first = re.findall(r'<td[^>]*>(t\d+)</td><td[^>]*>([^<]+)</td>', text)[0]
    assert first == ('t7', f'{values[7, 7]:.2f} ± {errors[7, 7]:.2f}')
    masks[:, 3] = True  # in all members: nothing can be said of it
    text = notebook.memorized(masks, losses, np.arange(30), ids, unit='nats', estimator=adjusted)
    assert 'Most memorized, by difference of means' in text and '>t7<' in text


@pytest.mark.parametrize('members', [0, 3])
def test_too_few_members_have_no_table(members):
    masks, losses = np.ones((members, 5), bool), np.zeros((members, 5), np.float32)
    assert not notebook.memorized(masks, losses, np.arange(5), 'abcde', **PLAIN)


def test_targets_that_are_no_examples_have_no_table():
    masks = np.random.default_rng(0).random((20, 5)) < 0.5
    losses = np.zeros((20, 5), np.float32)
    assert not notebook.memorized(masks, losses, np.full(5, -1), 'abcde', **PLAIN)


def test_names_are_text():
    text = notebook.table(HOSTILE, (HOSTILE, 'b'), [(HOSTILE, HOSTILE)])
    assert '<script' not in text and text.count('&lt;script&gt;') == 4
    assert '\x00' not in text and '\N{RIGHT-TO-LEFT OVERRIDE}' not in text
    column = Column(HOSTILE, np.arange(3.0), np.ones(3), 1, (HOSTILE, 'b', 'c'))
    assert '<script' not in column._repr_html_()


def test_a_column_shows_its_strongest_and_its_most_negative():
    values = np.array([0.1, 2.0, 0.3, -0.5, 0.2, 0.0, 0.15], np.float32)
    column = Column('t', values, np.full(7, 0.1), 1, tuple('abcdefg'))
    assert repr(column) == "Column('t': influence of 7 examples, itself 2.00 ± 0.10)"
    rows = re.findall(r'<td[^>]*>([^<]+)</td><td', column._repr_html_())
    assert rows == ['b (itself)', 'c', 'e', 'g', 'a', 'd']
    assert 'itself' not in repr(column._replace(self_index=None))
    assert 'noise' not in column._repr_html_()
    marked = column._replace(z_threshold=2.5)._repr_html_()
    noise = re.findall(
        r'<td[^>]*>(\w)(?: .itself.)?</td><td[^>]*>[^<]+</td><td[^>]*>may be', marked
    )
    assert noise == ['e', 'g', 'a']


def test_a_large_run_is_quick():
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 2, (1000, 20000), np.uint8).view(bool)
    losses = np.ones((1000, 20000), np.float32)
    begin = time.process_time()
    notebook.memorized(masks, losses, np.arange(20000), ['t'] * 20000, **PLAIN)
    assert time.process_time() - begin < 5  # under a second on a core of its own
