"""Planning, as far as it needs no compiler for TPUs."""

import importlib.util

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec as P

from influence_jax import planning as plan
from influence_jax.planning import proposal
from influence_jax.planning.topology import GENERATIONS
from influence_jax.training import Program, WarmStart
from influence_jax.training.mesh import MeshShape
from influence_jax.types import BasedTask, Task

RULES = (('', P('data', 'model')),)
INPUTS = plan.Inputs({'x': jax.ShapeDtypeStruct((8, 4), jnp.float32)})


class Matrix(Task):
    """A task whose only parameter takes `gib` of memory, and is never made."""

    measurements = ()

    def __init__(self, gib):
        self.rows = int(gib * 2**30 / 4 / 1024)

    def init(self, *, key):
        return jnp.zeros((self.rows, 1024))


def _program(gib, *, batch_size=8, optimizer=None):
    return Program(Matrix(gib), optimizer or optax.sgd(0.1), 3, batch_size, 8, 8)


def test_slices():
    slice_ = plan.find('v5e:4x8')
    assert (slice_.chips, slice_.generation.memory_gib) == (32, 15.75)
    assert plan.find('v5p:2x2x4').chips == 16


@pytest.mark.parametrize('name', ['', 'v5e', 'v5e:', 'v5e:3x3', 'v5e:2x2x4', 'v9:4x4', '4x4'])
def test_a_slice_that_does_not_exist(name):
    with pytest.raises(
        ValueError, match=f"no TPU topology '{name}' is known; write one as v5e:4x4"
    ):
        plan.find(name)
    with pytest.raises(ValueError) as raised:
        plan.find(name)
    message = str(raised.value)
    assert '\n' not in message
    assert all(kind in message for kind in GENERATIONS)
    assert '16x16' in message


def test_without_libtpu(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'influence_jax\[tpu\]'$"):
        plan.find('v5e:2x2').devices()


def test_a_mesh_of_another_size():
    with pytest.raises(ValueError, match=r'\(4, 4, 2\) takes 32 devices, but v5e:4x4 has 16'):
        plan.compile_step(
            _program(1), plan.find('v5e:4x4'), MeshShape(4, 4, 2), rules=RULES, inputs=INPUTS
        )


def _candidates(gib, *, inputs=INPUTS, vmapped=1, **more):
    found = plan.candidates(
        _program(gib, **more), plan.find('v5e:2x2'), rules=RULES, inputs=inputs, vmapped=vmapped
    )
    return [shape.sizes for shape in found]


def test_candidates_have_most_members_first():
    assert _candidates(1) == [(4, 1, 1), (2, 2, 1), (2, 1, 2), (1, 4, 1), (1, 2, 2), (1, 1, 4)]


def test_candidates_fit_with_their_gradients():
    """15.75 GiB a chip, twice the parameters for plain SGD and four times for Adam."""
    assert _candidates(7.8)[0] == (4, 1, 1)
    assert _candidates(8)[0] == (2, 2, 1)
    assert _candidates(8, optimizer=optax.adam(0.1))[0] == (1, 4, 1)
    assert _candidates(16, optimizer=optax.adam(0.1)) == []
    assert _candidates(4, vmapped=2)[0] == (2, 2, 1)


def test_candidates_spread_batches_over_no_more_devices_than_there_are_records():
    assert _candidates(1, batch_size=2) == [(4, 1, 1), (2, 2, 1), (2, 1, 2), (1, 2, 2), (1, 1, 4)]


class OnBase(BasedTask):
    """Begins as `WarmStart` does, but nothing says that it needs the base no more after that."""

    measurements = ()

    def __init__(self, task):
        self.on = WarmStart(task).on


@pytest.mark.parametrize(
    ('task', 'gib', 'first'),
    [(OnBase, 5, (4, 1, 1)), (OnBase, 5.5, (2, 2, 1)), (WarmStart, 5.5, (4, 1, 1))],
)
def test_candidates_make_room_for_the_base(task, gib, first):
    """It lies beside states and gradients, unless members only begin with it."""
    program = _program(gib)._replace(task=task(Matrix(gib)))
    inputs = INPUTS._replace(base=jax.ShapeDtypeStruct((Matrix(gib).rows, 1024), jnp.float32))
    found = plan.candidates(program, plan.find('v5e:2x2'), rules=RULES, inputs=inputs)
    assert next(found).sizes == first


@pytest.fixture
def compiled(monkeypatch):
    """Meshes for which the step was compiled, in place of doing it; it fits on 4 chips a member."""
    shapes = []

    def compile_step(program, topology, shape, *, rules, inputs):
        shapes.append(shape)
        if shape.devices_per_member < 4:
            raise plan.TooLarge('too large')
        return shape

    monkeypatch.setattr(proposal, 'compile_step', compile_step)
    return shapes


def _propose(gib, topology):
    return plan.propose(_program(gib), plan.find(topology), rules=RULES, inputs=INPUTS)


def test_one_mesh_of_each_size_is_tried(compiled):
    """The one that cuts least; on the others of its size it would seldom fit."""
    found = _propose(1, 'v5e:4x4')
    assert [shape.sizes for shape in compiled] == [(16, 1, 1), (8, 2, 1), (4, 4, 1)]
    assert found == (MeshShape(4, 4, 1), tuple(compiled))


def test_no_more_than_a_few_are_tried(compiled, monkeypatch):
    monkeypatch.setattr(proposal, '_TRIES', 2)
    found = _propose(1, 'v5e:4x4')
    assert found == (None, (MeshShape(16), MeshShape(8, 2)))
    assert _propose(100, 'v5e:2x2') == (None, ())
    assert len(compiled) == 2


def test_chip_hours():
    """197 TFLOP/s at one half for an hour, on 16 chips."""
    found = plan.cost(
        plan.find('v5e:4x4'),
        MeshShape(4, 4, 1),
        members=6,
        flops_per_member=197e12 * 0.5 * 3600,
        utilization=0.5,
    )
    assert found.chip_hours == pytest.approx(8)  # two chunks of 4, the last half empty
    assert found.hours == pytest.approx(0.5)
    assert found.flops == pytest.approx(6 * 197e12 * 0.5 * 3600)


@pytest.mark.parametrize('utilization', [0, -0.1, 1.1])
def test_utilization_is_a_share(utilization):
    with pytest.raises(ValueError, match=r'utilization must lie in \(0, 1\]'):
        plan.cost(
            plan.find('v5e:2x2'),
            MeshShape(4),
            members=1,
            flops_per_member=1.0,
            utilization=utilization,
        )
