"""The mesh's sizes, and what is said of wrong ones."""

import jax
import pytest
from jax.experimental import mesh_utils
from jax.sharding import AxisType

from influence_jax.training.mesh import Axis, MeshShape


def test_sizes_and_members():
    shape = MeshShape(2, 4, 3, vmapped=5)
    assert shape.devices == 24
    assert shape.devices_per_member == 12
    assert shape.members_at_once == 10
    assert shape.size(None) == 1
    assert shape.size('data') == 4
    assert shape.size(('model', 'data')) == 12


def test_from_text():
    assert MeshShape.parse('4, 2,1', vmapped=3) == MeshShape(4, 2, 1, 3)


@pytest.mark.parametrize('text', ['', '4', '4,4', '4,4,1,1', '4,x,1', '4,-1,1', '4,1.0,1'])
def test_what_is_no_mesh(text):
    with pytest.raises(ValueError, match='a mesh is three sizes') as raised:
        MeshShape.parse(text)
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize('field', ['member', 'data', 'model', 'vmapped'])
def test_sizes_are_positive(field):
    with pytest.raises(ValueError, match=f'{field} must be at least 1, not 0'):
        MeshShape(**{field: 0})


def test_the_mesh_leaves_its_axes_to_the_compiler():
    mesh = MeshShape(1, 2, 2).mesh()
    assert mesh.axis_names == tuple(Axis) == ('member', 'data', 'model')
    assert mesh.devices.shape == (1, 2, 2)
    assert set(mesh.axis_types) == {AxisType.Auto}


@pytest.mark.parametrize('error', [AssertionError, NotImplementedError, ValueError])
def test_devices_that_are_no_grid_are_taken_in_order(monkeypatch, error):
    def fail(*args, **rest):
        raise error('no such topology')

    monkeypatch.setattr(mesh_utils, 'create_device_mesh', fail)
    mesh = MeshShape(1, 3).mesh()
    assert mesh.devices.shape == (1, 3, 1)
    assert mesh.devices.ravel().tolist() == jax.devices()[:3]


def test_devices_that_are_not_there():
    with pytest.raises(ValueError, match=r'\(4, 4, 1\) takes 16 devices, but there are 4'):
        MeshShape(4, 4, 1).mesh()
    with pytest.raises(ValueError, match='takes 2 devices, but there are 4'):
        MeshShape(2).mesh(jax.devices())
