"""Activations are placed where there is a mesh to place them on, and nowhere else."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from influence_jax.models.gpt_neo.network import over_data
from influence_jax.training.mesh import MeshShape


def test_without_a_mesh_nothing_is_asked_for():
    rows = jnp.ones((4, 2))
    assert over_data(rows) is rows
    assert 'sharding_constraint' not in str(jax.make_jaxpr(over_data)(rows))


def test_rows_are_spread_over_data_within_members():
    mesh = MeshShape(2, 2).mesh()

    def both(rows):
        return jax.shard_map(
            jax.vmap(over_data),
            mesh=mesh,
            in_specs=P('member'),
            out_specs=P('member'),
            axis_names={'member'},
        )(rows)

    rows = jnp.arange(24.0).reshape(2, 6, 2)
    spread = jax.jit(both)(rows)
    assert spread.sharding.is_equivalent_to(jax.NamedSharding(mesh, P('member', 'data')), 3)
    assert (spread == rows).all()


def test_a_single_row_stays_whole():
    with jax.set_mesh(MeshShape(1, 2).mesh()):
        assert 'sharding_constraint' not in str(jax.make_jaxpr(over_data)(jnp.ones((1, 2))))
        assert 'sharding_constraint' in str(jax.make_jaxpr(over_data)(jnp.ones((2, 2))))
