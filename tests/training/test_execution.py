"""Which members share a device, a program and an operation never changes a result."""

import jax
import numpy as np
import optax
import pytest

from influence_jax import training
from influence_jax.training import (
    Automatic,
    Executor,
    MeshShape,
    automatic,
    engine,
    sequential,
    vmapped,
)
from influence_jax.training.checkpoint import Checkpointer
from influence_jax.training.member import schedule

MEMBERS = 11
ONE_BY_ONE = sequential(1, in_turn=1)
KEY = jax.random.key(7)


@pytest.fixture(scope='module')
def masks():
    return np.random.default_rng(5).random((MEMBERS, 24)) < 0.6


@pytest.fixture(scope='module')
def program(make_program):
    # Few steps: AdamW divides by the root of the second moment, which where gradients are small
    # amplifies differences in rounding without bound as steps go by.
    return make_program(noise=0.3, optimizer=optax.adamw(0.05), steps=4)


@pytest.fixture(scope='module')
def train(program, points, masks):
    """Trains members and stacks what comes, by member."""

    def run(members=range(MEMBERS), how=ONE_BY_ONE):
        chunks = list(
            training.train(
                program,
                key=KEY,
                masks=masks,
                members=members,
                examples=points,
                targets=points,
                executor=how,
                keep_params=True,
            )
        )
        np.testing.assert_array_equal(np.concatenate([c.members for c in chunks]), members)
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *[c.result for c in chunks])

    return run


@pytest.fixture(scope='module')
def one_by_one(train):
    return train()


def _assert_equal(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def _assert_close(actual, expected):
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5), actual, expected
    )


def _assert_each_traced_once(traces):
    """Over several chunks, the last of which is not full; `init` is asked for its shapes too."""
    assert sorted(traces) == ['init', 'init', 'measure', 'train_loss']


def test_members_differ(one_by_one):
    assert one_by_one.measurements['loss'].shape == (MEMBERS, 24)
    assert len(np.unique(one_by_one.measurements['loss'][:, 0])) == MEMBERS


def test_a_member_is_what_train_member_makes_of_it(one_by_one, program, points, masks):
    alone = jax.jit(
        lambda key, mask: training.train_member(
            program, key=key, mask=mask, examples=points, targets=points
        )
    )(jax.random.fold_in(KEY, 4), masks[4])
    _assert_close(jax.tree.map(lambda leaf: leaf[4], one_by_one), alone)


def test_one_after_another_in_one_call_is_exactly_the_same(train, one_by_one, traces):
    _assert_equal(train(how=sequential(1, in_turn=3)), one_by_one)
    _assert_each_traced_once(traces)


@pytest.mark.parametrize('members', [[6], [9, 2, 5]], ids=str)
def test_other_members_make_exactly_no_difference(train, one_by_one, members):
    """As after a kill: only some are trained, in other company and in other places."""
    expected = jax.tree.map(lambda leaf: leaf[members], one_by_one)
    _assert_equal(train(members, sequential(1, in_turn=2)), expected)


@pytest.mark.parametrize(
    'how',
    [
        vmapped(4, 1),
        Executor(MeshShape(vmapped=2), in_turn=2),
        sequential(4, in_turn=1),
        Executor(MeshShape(2, vmapped=2), in_turn=2),
    ],
    ids=str,
)
def test_every_executor_gives_the_same(train, one_by_one, how, traces):
    _assert_close(train(how=how), one_by_one)
    _assert_each_traced_once(traces)


def test_other_targets_and_no_parameters(program, points, masks, one_by_one):
    some = type(points)(points.x[5:9], points.y[5:9])
    (trained,) = training.train(
        program,
        key=KEY,
        masks=masks,
        members=[3, 1],
        examples=points,
        targets=some,
        executor=sequential(1, in_turn=2),
    )
    expected = one_by_one.measurements['loss'][[3, 1], 5:9]
    np.testing.assert_allclose(trained.result.measurements['loss'], expected, rtol=1e-5)
    assert trained.result.params is None  # they are kept only on request


def test_no_members_is_nothing_to_do(program, points, masks):
    settings = {'examples': points, 'targets': points, 'executor': ONE_BY_ONE}
    assert not list(training.train(program, key=KEY, masks=masks, members=[], **settings))


def test_a_subset_smaller_than_promised_is_refused(program, points, masks):
    masks = masks.copy()
    masks[2, 3:] = False
    settings = {'examples': points, 'targets': points, 'executor': ONE_BY_ONE}
    with pytest.raises(ValueError, match=r'member 2 holds .* fewer than smallest_sub'):
        list(training.train(program, key=KEY, masks=masks, members=[0, 2], **settings))


@pytest.mark.parametrize('how', [ONE_BY_ONE, vmapped(3, 2)])
def test_members_start_from_the_base_that_they_share(make_program, from_base, points, masks, how):
    task, base = from_base
    for steps in (0, 3):
        program = make_program(task=task, steps=steps)
        for trained in training.train(
            program,
            key=KEY,
            masks=masks,
            members=range(3),
            examples=points,
            targets=points,
            executor=how,
            base=base,
            keep_params=True,
        ):
            for member, w in zip(trained.members, trained.result.params['w'], strict=True):
                batches = schedule(program, masks[member], key=jax.random.fold_in(KEY, member))
                expected = dict(base)
                for rows in batches:
                    error = points.x[rows] @ expected['w'] + expected['b'] - points.y[rows]
                    slope = 2 * error[:, None] * points.x[rows]
                    expected['w'] = expected['w'] - 0.05 * slope.mean(0)
                    expected['b'] = expected['b'] - 0.05 * 2 * error.mean()
                np.testing.assert_allclose(w, expected['w'], rtol=1e-5)


def test_autotuning_is_on_the_base(make_program, from_base, points):
    task, base = from_base
    how = training.autotune(
        make_program(task=task),
        members=2,
        devices=1,
        examples=points,
        targets=points,
        base=base,
        widths=(1, 2),
    )
    assert how.shape.vmapped in (1, 2)


def test_the_next_chunk_is_under_way_while_one_is_handled(program, points, masks, monkeypatch):
    dispatched = []
    compile_program = engine.compile_program

    def compiled(*arguments, **named):
        functions = compile_program(*arguments, **named)

        def begin(key, members, base):
            dispatched.append(sorted(set(members.tolist())))
            return functions.begin(key, members, base)

        return functions._replace(begin=begin)

    monkeypatch.setattr(engine, 'compile_program', compiled)
    chunks = training.train(
        program,
        key=KEY,
        masks=masks,
        members=range(5),
        examples=points,
        targets=points,
        executor=sequential(1, in_turn=2),
    )
    next(chunks)
    assert dispatched == [[0, 1], [2, 3]]
    assert [len(chunk.result.measurements['loss']) for chunk in chunks] == [2, 1]
    assert dispatched[2] == [4]


def test_small_members_go_on_from_a_checkpoint(program, points, masks, one_by_one, tmp_path):
    """Killed after 3 of 4 steps; what is kept is of every second one."""

    class Killed(BaseException):
        pass

    class Dying(Checkpointer):
        def save(self, members, steps, state):
            super().save(members, steps, state)
            raise Killed

    common = {'key': KEY, 'masks': masks, 'examples': points, 'targets': points}
    kept = {'every': 2, 'configuration': {}}
    how = sequential(2, in_turn=2)
    with pytest.raises(Killed):
        dying = Dying(tmp_path / 'in_training', **kept)
        list(training.train(program, members=range(4), executor=how, checkpointer=dying, **common))
    assert [path.name for path in (tmp_path / 'in_training').iterdir()] == ['2']
    checkpointer = Checkpointer(tmp_path / 'in_training', **kept)
    trained = list(
        training.train(program, members=range(4), executor=how, checkpointer=checkpointer, **common)
    )
    assert [one.members.tolist() for one in trained] == [[0, 1], [2, 3]]
    np.testing.assert_array_equal(
        np.concatenate([one.result.measurements['loss'] for one in trained]),
        one_by_one.measurements['loss'][:4],
    )
    assert not (tmp_path / 'in_training').exists()


def test_more_devices_than_there_are(train):
    with pytest.raises(ValueError, match='takes 9 devices, but there are 4'):
        train(how=sequential(9))


def test_impossible_executors():
    with pytest.raises(ValueError, match='vmapped must be at least 1, not 0'):
        vmapped(0)
    with pytest.raises(ValueError, match='in_turn must be at least 1, not 0'):
        sequential(1, in_turn=0)
    with pytest.raises(ValueError, match='one set of members, not 2'):
        Executor(in_turn=2, stepwise=True)
    with pytest.raises(ValueError, match=r'sharded\('):
        Executor(MeshShape(1, 2))


def test_chunk():
    assert Executor(MeshShape(2, vmapped=3), 5).chunk == 30


def test_a_fitted_executor_makes_as_many_calls_and_wastes_less():
    for devices, width, in_turn in np.ndindex(3, 3, 5):
        how = Executor(MeshShape(devices + 1, vmapped=width + 1), in_turn + 1)
        for members in range(1, 40):
            fitted = how.fitted_to(members)
            assert fitted.chunk <= how.chunk
            calls = -(-members // fitted.chunk)
            assert calls == -(-members // how.chunk)
            wasted = calls * fitted.chunk - members
            assert 0 <= wasted < calls * how.shape.members_at_once


def test_the_automatic_executor_follows_from_devices_and_shapes(program, points, monkeypatch):
    def choose(recorded=None, members=1000, **how):
        return Automatic(**how).choose(
            program, members=members, examples=points, targets=points, recorded=recorded
        )

    assert choose(devices=2) == sequential(2)
    assert choose(devices=2, width=8) == vmapped(8, 2)
    assert choose(recorded=4) == vmapped(4)  # as the run was begun
    assert choose(recorded=4, autotune=True) == vmapped(4)
    assert choose(recorded=4, width=2) == vmapped(2)
    long = program._replace(steps=2**24)  # times a batch of several and 3 + 1 parameters
    how = Automatic(devices=2).choose(long, members=1000, examples=points, targets=points)
    assert how == sequential(2, in_turn=1)
    monkeypatch.setattr(automatic, '_LARGE', 1)
    assert choose() == sequential(4, in_turn=1)
    monkeypatch.setattr(automatic, '_platform', lambda: 'gpu')
    assert choose().shape == MeshShape(4, vmapped=128)  # 250 on each, in two calls
    assert choose(members=1200).shape == MeshShape(4, vmapped=64)  # 300, in five
    assert choose(members=19).shape == MeshShape(4, vmapped=4)  # 5 on each
    # The parameters are 3 + 1 numbers of 4 bytes; they and their gradients take twice that.
    monkeypatch.setattr(automatic, '_BUDGET', 5 * 2 * 16)
    assert choose().shape == MeshShape(4, vmapped=4)
    monkeypatch.setattr(automatic, '_BUDGET', 1)
    assert choose().shape == MeshShape(4)


def _autotune(monkeypatch, program, points, rates, members=10_000):
    """What is chosen where the wider `vmap`s are so fast, or raise; and which were measured."""
    measured = []

    def rate(short, how, examples, targets, base):
        width = how.shape.vmapped
        measured.append(width)
        assert short.steps == 4
        assert how.shape.member == 2
        if isinstance(rates[width], Exception):
            raise rates[width]
        return rates[width]

    monkeypatch.setattr(automatic, '_members_per_second', rate)
    chosen = training.autotune(program, members=members, devices=2, examples=points, targets=points)
    return chosen.shape.vmapped, measured


FULL = jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory')


@pytest.mark.parametrize(
    ('rates', 'width', 'measured'),
    [
        ({1: 10, 4: 8}, 1, [1, 4]),
        ({1: 10, 4: 10.5}, 1, [1, 4]),
        ({1: 10, 4: 20, 16: 21}, 4, [1, 4, 16]),
        ({1: 1, 4: 2, 16: 3, 64: 4, 256: 5}, 256, [1, 4, 16, 64, 256]),
        ({1: 1, 4: 2, 16: FULL}, 4, [1, 4, 16]),
    ],
    ids=str,
)
def test_the_fastest_width_is_chosen(monkeypatch, program, points, rates, width, measured):
    assert _autotune(monkeypatch, program, points, rates) == (width, measured)


def test_no_wider_than_there_are_members(monkeypatch, program, points):
    rates = {1: 1, 4: 2, 16: 3}
    assert _autotune(monkeypatch, program, points, rates, members=31) == (4, [1, 4])
    assert _autotune(monkeypatch, program, points, rates, members=1) == (1, [1])


@pytest.mark.parametrize(
    'rates', [{1: FULL}, {1: 1, 4: jax.errors.JaxRuntimeError('INTERNAL: broken')}], ids=str
)
def test_other_errors_are_not_hidden(monkeypatch, program, points, rates):
    with pytest.raises(jax.errors.JaxRuntimeError):
        _autotune(monkeypatch, program, points, rates)


@pytest.mark.slow
def test_choosing_by_real_measurements(program, points):
    chosen = training.autotune(
        program, members=4, devices=2, examples=points, targets=points, widths=(1, 2)
    )
    assert chosen in (sequential(2), vmapped(2, 2))
