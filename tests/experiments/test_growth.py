"""An ensemble that grows until it is precise enough: when it stops, goes on, and gives up."""

import math
import re

import jax
import numpy as np
import pytest

from experiments import launch
from influence_jax import store, training
from influence_jax.analysis.convergence import precision
from influence_jax.estimators import adjusted, difference_in_means
from influence_jax.report.facts import Precision, precision_of
from influence_jax.subsets import Design
from influence_jax.training import Trained

pytestmark = pytest.mark.slow  # whole launches

GROWING = {'estimator': difference_in_means, 'until_standard_error': 0.3, 'max_members': 400}


@pytest.fixture
def trained(monkeypatch):
    """Made-up training, eight members at a time: losses are noise of standard deviation 1.

    The standard error of M members is 2 / sqrt(M), and 0.3 takes 44 of them.
    """
    calls: list[list[int]] = []

    def train(program, *, members, masks, targets, **_):
        calls.append([])
        for chunk in np.split(np.asarray(members), range(8, len(members), 8)):
            calls[-1].extend(chunk.tolist())
            losses = np.array(
                [np.random.default_rng(m).normal(size=len(targets['label'])) for m in chunk]
            )
            rows = dict.fromkeys(program.task.measurements, losses.astype(np.float32))
            yield Trained(chunk, training.Member(rows, None))

    monkeypatch.setattr(training, 'train', train)
    return calls


@pytest.fixture
def reported(monkeypatch):
    """In place of the report: how precise the run says it is."""
    seen: list[Precision | None] = []
    monkeypatch.setattr(launch.report, 'gather', lambda run, **_: seen.append(precision_of(run)))
    monkeypatch.setattr(launch.terminal, 'save_and_show', lambda *_, **__: None)
    return seen


def test_stops_as_soon_as_it_is_precise_enough(run_here, trained, reported, capsys):
    run, directory = run_here
    run(**GROWING)
    assert reported[0].enough
    seen = store.open_run(directory)
    np.testing.assert_array_equal(seen.complete, np.arange(len(seen.complete)))
    assert 40 <= len(seen.complete) <= 64
    assert seen.manifest.members == 400
    whole = precision(seen.masks, seen.measurement('loss'), key=jax.random.key(0))
    assert whole.standard_error <= 0.3
    before = np.arange(400) < len(seen.complete) - 16  # it was not so two chunks before
    losses = np.where(before[:, None], seen.measurement('loss'), np.nan)
    assert precision(seen.masks, losses, key=jax.random.key(0)).standard_error > 0.3
    assert '0.3 takes about' in capsys.readouterr().err


def test_the_report_says_that_no_more_were_needed(run_here, trained, capsys):
    run, directory = run_here
    run(**GROWING)
    members = len(store.open_run(directory).complete)
    printed = ' '.join(capsys.readouterr().out.split())
    assert f'members: {members} of at most 400' in printed
    assert f'nats with {members} members, 0.3 wanted: precise enough' in printed
    page = (directory / 'report' / 'index.html').read_text()
    assert 'not trained yet' not in page
    assert f'{400 - members} of at most 400 members were not needed' in page


def test_the_same_command_again_trains_nothing(run_here, trained, reported):
    run, directory = run_here
    run(**GROWING)
    members = len(store.open_run(directory).complete)
    run(**GROWING)
    assert len(trained) == 1
    assert len(store.open_run(directory).complete) == members
    assert reported[1] == reported[0]


def test_goes_on_where_more_is_wanted_and_after_a_stop(run_here, trained, reported, monkeypatch):
    run, directory = run_here
    run(**GROWING)
    first = len(store.open_run(directory).complete)
    train = training.train

    def stopped(*arguments, **rest):
        chunks = train(*arguments, **rest)
        yield next(chunks)
        raise KeyboardInterrupt

    more = GROWING | {'until_standard_error': 0.2}
    with monkeypatch.context() as patch:
        patch.setattr(training, 'train', stopped)
        with pytest.raises(KeyboardInterrupt):
            run(**more)
    run(**more)
    assert trained[1][0] == first
    assert trained[2][0] == first + 8
    seen = store.open_run(directory)
    assert 90 <= len(seen.complete) <= 120
    # The members are those of a run that was never stopped.
    for m in seen.complete[[0, first, first + 8]]:
        expected = np.random.default_rng(m).normal(size=48).astype(np.float32)
        np.testing.assert_array_equal(seen.measurement('loss')[m], expected)


def test_says_so_where_it_is_never_precise_enough(run_here, trained, reported):
    run, directory = run_here
    run(**GROWING | {'until_standard_error': 0.1, 'max_members': 64})
    assert len(store.open_run(directory).complete) == 64
    assert not reported[0].enough
    needed, advice = re.search(r'takes about (\d+), (.*)', reported[0].text).groups()
    assert int(needed) == pytest.approx(400, rel=0.15)
    assert 'but all members are trained' in advice
    run(**GROWING | {'until_standard_error': 0.1, 'max_members': 64})
    assert len(trained) == 1


def test_without_it_max_members_means_nothing(run_here, trained, reported):
    run, directory = run_here
    run(members=24, max_members=400)
    assert store.open_run(directory).manifest.members == len(trained[0]) == 24
    assert reported == [None]


def test_only_the_capacity_is_of_the_manifest(run_here, trained, reported):
    run, directory = run_here
    run(**GROWING)
    # The same tensors, whatever is estimated from them and however many there are.
    run(members=400, estimator=adjusted)
    assert len(store.open_run(directory).complete) == 400
    with pytest.raises(store.FewerMembers, match='at least 400'):
        run(**GROWING | {'max_members': 300})


def test_examples_always_in_at_first_do_not_stop_it(run_here, trained, reported):
    """In the first members nearly every image is always in: not precise yet, but no error."""
    run, directory = run_here
    run(**GROWING | {'keep': 0.9, 'until_standard_error': 0.65, 'batch_size': 8})
    seen = store.open_run(directory)
    out = (~seen.masks[seen.complete]).sum(axis=0)
    assert out.min() >= 2
    assert len(seen.complete) < 200


def test_members_that_diverge_do_not_count(run_here, trained, reported, monkeypatch):
    train = training.train

    def diverging(*arguments, **rest):
        for chunk, result in train(*arguments, **rest):
            lost = {name: rows.copy() for name, rows in result.measurements.items()}
            for rows in lost.values():
                rows[chunk % 2 == 0] = np.nan
            yield Trained(chunk, training.Member(lost, None))

    monkeypatch.setattr(training, 'train', diverging)
    run, directory = run_here
    run(**GROWING)
    seen = store.open_run(directory)
    assert 40 <= len(seen.complete) <= 64
    assert abs(len(seen.diverged) - len(seen.complete)) <= 1


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        ({'design': Design.BALANCED}, 'balanced.*cannot stop early: use independent'),
        ({'until_standard_error': -0.1}, 'until_standard_error must be 0 .* not -0.1'),
        ({'until_standard_error': math.nan}, 'until_standard_error must be 0 .* not nan'),
        ({'max_members': 0}, 'max_members must be at least 1, not 0'),
        ({'max_members': 47, 'estimator': adjusted}, 'members=47 are too few .* at least 48'),
    ],
    ids=str,
)
def test_what_cannot_be_grown_is_refused(run_here, wrong, message):
    run, directory = run_here
    with pytest.raises(ValueError, match=message):
        run(**GROWING | wrong)
    assert not directory.exists()
