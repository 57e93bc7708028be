"""Large members are the small ones, trained on a mesh, one call a step."""

import dataclasses
import functools
import itertools
import shutil

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from influence_jax.training import MeshShape, WarmStart, engine, sequential, sharded, train
from influence_jax.training.checkpoint import Checkpointer
from influence_jax.training.compiled import compile_program

KEY = jax.random.key(7)
MASKS = np.random.default_rng(5).random((6, 24)) < 0.5
SPREAD = (('w', P('model')), ('', P()))
"""The weights are 3 long, so over 1 device or 3."""


def _train(program, points, shape, *, members=range(6), rules=SPREAD, **more):
    common = {'masks': MASKS, 'members': members, 'examples': points, 'targets': points}
    return train(program, key=KEY, executor=sharded(shape, rules), **common, **more)


def _joined(trained):
    trained = list(trained)
    results = [one.result for one in trained]
    return (
        np.concatenate([one.members for one in trained]),
        jax.tree.map(lambda *leaves: np.concatenate(leaves), *results),
    )


@pytest.fixture(scope='module')
def program(make_program):
    return make_program(noise=0.3, optimizer=optax.sgd(0.05, momentum=0.9))


@pytest.fixture(scope='module', autouse=True)
def compiled_once():
    """Tests that train the same program on the same mesh share what is compiled."""
    cached = functools.cache(compile_program)

    def compiled(program, executor, *, base):
        return compile_program(program, executor, base=base) if base else cached(program, executor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, 'compile_program', compiled)
        yield


@pytest.fixture(scope='module')
def expected(program, points):
    """Of the same members, trained as small ones."""
    return _joined(
        train(
            program,
            key=KEY,
            masks=MASKS,
            members=range(6),
            examples=points,
            targets=points,
            executor=sequential(1),
            keep_params=True,
        )
    )


@pytest.mark.parametrize(
    'shape',
    [MeshShape(2, 2), MeshShape(1, 1, 3), MeshShape(1, 4, vmapped=3)],
    ids=str,
)
def test_a_large_member_is_the_small_one(program, points, expected, shape):
    members, result = _joined(_train(program, points, shape, keep_params=True))
    np.testing.assert_array_equal(members, range(6))
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=2e-5, atol=2e-6), result, expected[1]
    )


def test_some_members_in_any_order_and_without_parameters(program, points, expected):
    members, result = _joined(_train(program, points, MeshShape(2), members=[4, 1, 3]))
    np.testing.assert_array_equal(members, [4, 1, 3])
    assert result.params is None
    np.testing.assert_allclose(
        result.measurements['loss'],
        expected[1].measurements['loss'][[4, 1, 3]],
        rtol=2e-5,
        atol=2e-6,
    )


def test_no_members(program, points):
    assert list(_train(program, points, MeshShape(), members=[])) == []


def test_the_step_is_traced_once(program, points, traces):
    """For three chunks of five steps, and the last chunk is not full."""
    list(_train(program._replace(smallest_subset=5), points, MeshShape(2), members=range(5)))
    assert traces.count('train_loss') == 1
    assert traces.count('measure') == 1


def test_the_state_is_used_up_and_lies_as_the_rules_say(program, points):
    run = compile_program(program, sharded(MeshShape(1, 1, 3), SPREAD))
    members = np.arange(1, dtype=np.int32)
    state = run.begin(KEY, members, None)
    weights = state.params['w']
    schedule = run.schedule(KEY, members, MASKS[:1])
    after = run.advance(state, np.int32(0), np.int32(1), KEY, members, schedule, points, None)
    assert weights.is_deleted()
    for leaf in (after.params['w'], after.optimizer_state[0].trace['w']):
        assert leaf.sharding.spec == P('member', 'model')


def test_members_that_start_from_a_base(program, points, from_base, make_program):
    _, base = from_base
    warm = program._replace(task=WarmStart(program.task), steps=1, optimizer=optax.sgd(0.0))
    _, result = _joined(_train(warm, points, MeshShape(2, 2), base=base, keep_params=True))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[3], b), result.params, base)


@dataclasses.dataclass(frozen=True)
class Shift:
    """Members train a shift of a frozen base: what an adapter is, in its least form."""

    task: object
    base: dict | None = dataclasses.field(default=None, compare=False)
    measurements = ('loss', 'prediction')

    def on(self, base):
        return dataclasses.replace(self, base=base)

    def init(self, *, key):
        return {'shift': jax.random.normal(key, ())}

    def train_loss(self, params, batch, *, key):
        return self.task.train_loss(self._shifted(params), batch, key=key)

    def measure(self, params, batch):
        return self.task.measure(self._shifted(params), batch)

    def _shifted(self, params):
        return {'w': self.base['w'], 'b': self.base['b'] + params['shift']}


@pytest.mark.slow
def test_adapters_vmapped_on_a_frozen_base_that_is_spread(program, points, from_base):
    _, base = from_base
    adapting = program._replace(task=Shift(program.task))
    one_by_one = _joined(_train(adapting, points, MeshShape(), base=base))[1].measurements
    shape = MeshShape(1, 1, 3, vmapped=3)
    together = _joined(_train(adapting, points, shape, base=base))[1].measurements
    np.testing.assert_allclose(together['loss'], one_by_one['loss'], rtol=2e-5, atol=2e-6)


class Looking:
    """Checkpoints that keep nothing, but see what is on the devices between steps."""

    def __init__(self, leaf):
        self.leaf, self.seen = leaf, []

    def look(self):
        live = [array for array in jax.live_arrays() if array.shape == self.leaf.shape]
        self.seen.append(any(np.array_equal(array, self.leaf) for array in live))

    def open(self, identity, *, masks, untrained):
        return untrained[:0]

    def resume(self, like): ...

    def save(self, members, steps, state):
        self.look()

    def clear(self): ...


@pytest.mark.parametrize(('task', 'stays'), [(WarmStart, False), (Shift, True)])
def test_the_base_is_on_the_devices_while_it_is_needed(program, points, from_base, task, stays):
    """Members that start from it need it then alone; adapters in every step and to be measured."""
    base = {**from_base[1], 'w': np.array([0.123, 0.456, 0.789], np.float32)}
    based, looking = program._replace(task=task(program.task)), Looking(base['w'])
    for _ in _train(based, points, MeshShape(2), base=base, checkpointer=looking):
        looking.look()
    assert looking.seen == [stays] * 3 * based.steps  # 3 chunks


def test_wrong_sizes_are_said_before_anything_is_trained(program, points):
    with pytest.raises(ValueError, match='takes 16 devices, but there are 4'):
        next(_train(program, points, MeshShape(16)))
    with pytest.raises(ValueError, match='axis 0 of w, 3 long, does not divide over model = 2'):
        next(_train(program, points, MeshShape(1, 1, 2)))
    with pytest.raises(ValueError, match='fewer than smallest_subset=20'):
        next(_train(program._replace(smallest_subset=20), points, MeshShape()))


class Killed(BaseException):
    """What a kill is to the code that is killed: no chance to tidy up."""


class KilledAfter(Checkpointer):
    """Checkpoints after so many of which the process dies."""

    def __init__(self, directory, *, after, **more):
        super().__init__(directory, **more)
        self.left = after

    def save(self, members, steps, state):
        super().save(members, steps, state)
        self.left -= 1
        if not self.left:
            raise Killed


@pytest.fixture
def killed(killed_once, tmp_path):
    """A directory of members 2 and 3, killed after 3 of their 5 steps; 0 and 1 are done."""
    return shutil.copytree(killed_once, tmp_path / 'checkpoint')


@pytest.fixture(scope='module')
def killed_once(program, points, tmp_path_factory):
    directory = tmp_path_factory.mktemp('killed') / 'checkpoint'
    checkpoints = KilledAfter(directory, after=4 + 3, every=1, configuration={'rate': 1})
    done = []
    with pytest.raises(Killed):
        done.extend(_train(program, points, MeshShape(2), checkpointer=checkpoints))
    # list.extend keeps what came before the exception.
    assert [one.members.tolist() for one in done] == [[0, 1]]
    return directory


def _again(directory, **changes):
    return Checkpointer(directory, **{'every': 1, 'configuration': {'rate': 1}, **changes})


@pytest.mark.parametrize('shape', [MeshShape(2), MeshShape(1, 2, vmapped=2)], ids=str)
def test_killed_members_go_on(program, points, expected, killed, monkeypatch, shape):
    """Also on another mesh, with as many members at once."""
    assert [path.name for path in killed.iterdir()] == ['3']  # older ones are gone
    steps = itertools.count()
    kept = Checkpointer.save
    monkeypatch.setattr(Checkpointer, 'save', lambda *a: (next(steps), kept(*a)))
    trained = _train(
        program, points, shape, members=range(2, 6), checkpointer=_again(killed), keep_params=True
    )
    first = next(trained)
    assert next(steps) == 1  # after step 4; the fifth is the last, which keeps none
    members, result = _joined([first, *trained])
    np.testing.assert_array_equal(members, range(2, 6))
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e[2:], rtol=2e-5, atol=2e-6),
        result,
        expected[1],
    )
    assert not killed.exists()


def test_what_is_left_of_members_that_are_done_is_removed(program, points, killed):
    trained = _train(program, points, MeshShape(2), members=[4, 5], checkpointer=_again(killed))
    assert next(trained).members.tolist() == [4, 5]


def test_a_kill_between_the_recording_of_two_members_locks_nothing(
    program, points, expected, killed
):
    """2 is on record, 3 is not, and what is in training is of both."""
    trained = _train(program, points, MeshShape(2), members=[3, 4], checkpointer=_again(killed))
    members, result = _joined(trained)
    np.testing.assert_array_equal(members, [3, 4])
    np.testing.assert_allclose(
        result.measurements['loss'],
        expected[1].measurements['loss'][3:5],
        rtol=2e-5,
        atol=2e-6,
    )
    assert not killed.exists()


def test_another_number_of_members_at_once_is_refused(program, points, killed):
    message = r'of another configuration \(members_at_once: 2 -> 1\)'
    with pytest.raises(ValueError, match=message):
        next(_train(program, points, MeshShape(), members=[2, 3], checkpointer=_again(killed)))
    assert (killed / '3').exists()


@pytest.mark.parametrize(('members', 'then'), [([1, 2, 3], [[1]]), (range(6), [[0, 1], [4, 5]])])
def test_members_in_training_come_first_whatever_else_is_missing(
    program, points, expected, killed, members, then
):
    trained = _train(program, points, MeshShape(2), members=members, checkpointer=_again(killed))
    first = next(trained)
    np.testing.assert_allclose(
        first.result.measurements['loss'],
        expected[1].measurements['loss'][2:4],
        rtol=2e-5,
        atol=2e-6,
    )
    assert [first.members.tolist(), *(one.members.tolist() for one in trained)] == [[2, 3], *then]


@pytest.mark.parametrize(
    ('changes', 'configuration', 'said'),
    [
        ({}, {'rate': 2}, 'configuration.rate: 1 -> 2'),
        ({'steps': 6}, {'rate': 1}, 'steps: 5 -> 6'),
        (
            {'optimizer': optax.sgd(0.1)},
            {'rate': 1},
            r'state\.optimizer_state/0/trace/b: float32\[\] -> None and 1 more',
        ),
    ],
)
def test_another_configuration_is_refused(program, points, killed, changes, configuration, said):
    checkpoints = _again(killed, configuration=configuration)
    changed = program._replace(**changes)
    with pytest.raises(ValueError, match=said) as raised:
        next(_train(changed, points, MeshShape(2), members=[2, 3], checkpointer=checkpoints))
    assert 'holds a checkpoint of another configuration' in str(raised.value)
    assert '\n' not in str(raised.value)
    assert (killed / '3').exists()


def test_other_examples_are_refused(program, points, killed):
    """As many, of the same shape: one number differs."""
    y = points.y.copy()
    y[7] += 1e-3
    other = points._replace(y=y)
    with pytest.raises(ValueError, match=r'another configuration \(examples: \w{64} -> \w{64}\)'):
        next(_train(program, other, MeshShape(2), members=[2, 3], checkpointer=_again(killed)))


def test_a_kill_in_the_middle_of_a_save_leaves_the_one_before(program, points, expected, killed):
    """What orbax writes is renamed when it is whole; until then its name says so."""
    half = killed / '4.orbax-checkpoint-tmp'
    half.mkdir()
    (half / 'junk').write_text('{')
    trained = _train(program, points, MeshShape(2), members=[2, 3], checkpointer=_again(killed))
    loss = next(trained).result.measurements['loss']
    np.testing.assert_allclose(loss, expected[1].measurements['loss'][2:4], rtol=2e-5, atol=2e-6)


def test_checkpoints_come_every_few_steps(program, points, tmp_path):
    directory = tmp_path / 'checkpoint'
    checkpoints = KilledAfter(directory, after=4, every=3, configuration={})
    with pytest.raises(Killed):
        list(_train(program, points, MeshShape(2), members=[0, 1], checkpointer=checkpoints))
    assert [path.name for path in directory.iterdir()] == ['3']
    with pytest.raises(ValueError, match='at least 1 step apart, not 0'):
        Checkpointer(directory, every=0, configuration={})
    with pytest.raises(ValueError, match='0 minutes or more apart, not -1'):
        Checkpointer(directory, every=1, configuration={}, least_minutes=-1)
