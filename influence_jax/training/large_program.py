"""The compiled functions of large members, each spread over several devices of a mesh.

The mesh's axis of members is manual, so that every collective stays within a member whatever the
compiler makes of it; along the other two axes the compiler spreads what the rules leave open.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import jax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from influence_jax.training import member as one
from influence_jax.training.member import Program, State
from influence_jax.training.mesh import Axis, MeshShape
from influence_jax.training.processes import place
from influence_jax.training.sharding import Rules, specs, state_specs
from influence_jax.training.warm_start import WarmStart
from influence_jax.types import AnyArray, Batch, Params, PRNGKey, Task

Outputs = TypeVar('Outputs')

_EVERYWHERE, _BY_MEMBER = PartitionSpec(), PartitionSpec(Axis.MEMBER)


class LargeProgram(NamedTuple):
    """Functions of C members at once, each traced at its first call.

    begin: (key, members, base) -> their states before the first step.
    schedule: (key, members, masks) -> which examples each of their steps trains on.
    step: (states, number, key, members, schedule, examples, kept_base) -> the states a step
        later. Those given are used up.
    measure: (params, targets, kept_base) -> the measurements of every target.
    state: shapes and shardings of the states, leading axis C.
    base: those of the base.
    kept_base: those of what is needed of the base once members have begun: all of it or, where
        they only begin with it, None.
    mesh: the devices.
    """

    begin: Callable[[PRNGKey, Int[AnyArray, ' C'], Params | None], State]
    schedule: Callable[
        [PRNGKey, Int[AnyArray, ' C'], Bool[AnyArray, 'C N']], Int[Array, 'C steps B']
    ]
    step: jax.stages.Wrapped
    measure: Callable[[Params, Batch, Params | None], dict[str, Float[Array, 'C T']]]
    state: State
    base: Params | None
    kept_base: Params | None
    mesh: Mesh

    @property
    def everywhere(self) -> NamedSharding:
        """Of what every device has."""
        return NamedSharding(self.mesh, _EVERYWHERE)

    @property
    def by_member(self) -> NamedSharding:
        """Of what has one entry a member."""
        return NamedSharding(self.mesh, _BY_MEMBER)


def only_begins_with_base(program: Program) -> bool:
    """Whether members need the base no more once they have begun, so that it makes room."""
    return isinstance(program.task, WarmStart)


def compile_program(
    program: Program,
    shape: MeshShape,
    *,
    rules: Rules,
    base: Params | None = None,
    devices: Sequence[Any] | None = None,
) -> LargeProgram:
    """The functions that train C = `shape.members_at_once` members.

    Args:
        program: the task and how to train it.
        shape: of the mesh.
        rules: where a member's parameters lie, and those of the base.
        base: what the members share, for a `BasedTask`; arrays or their shapes.
        devices: of the mesh; by default the first ones that jax sees.

    Raises:
        ValueError: too few devices, or parameters that the rules cannot place.
    """
    mesh = shape.mesh(devices)
    abstract = jax.eval_shape(lambda b: one.begin(program.on(b), key=jax.random.key(0)), base)
    states = _states(abstract, state_specs(abstract, rules, shape), shape.members_at_once, mesh)
    base = _lying(base, specs(base, rules, shape), mesh)
    everywhere = NamedSharding(mesh, _EVERYWHERE)
    by_member = NamedSharding(mesh, _BY_MEMBER)
    begun, kept_base = program, base
    if only_begins_with_base(program):
        begun, kept_base = program._replace(task=cast(WarmStart, program.task).task), None
    of_states, of_kept_base = _shardings(states), _shardings(kept_base)

    within_members = functools.partial(_within_members, mesh)
    functions = _Lifted(begun)
    return LargeProgram(
        begin=jax.jit(
            within_members(_Lifted(program).begin, _EVERYWHERE, _BY_MEMBER, _EVERYWHERE),
            in_shardings=(everywhere, by_member, _shardings(base)),
            out_shardings=of_states,
        ),
        schedule=jax.jit(
            within_members(functions.schedule, _EVERYWHERE, _BY_MEMBER, _BY_MEMBER),
            in_shardings=(everywhere, by_member, by_member),
            out_shardings=by_member,
        ),
        step=jax.jit(
            within_members(
                functions.step,
                *(_BY_MEMBER, _EVERYWHERE, _EVERYWHERE),
                *(_BY_MEMBER, _BY_MEMBER, _EVERYWHERE, _EVERYWHERE),
            ),
            in_shardings=(
                *(of_states, everywhere, everywhere),
                *(by_member, by_member, everywhere, of_kept_base),
            ),
            out_shardings=of_states,
            donate_argnums=0,
        ),
        measure=jax.jit(
            within_members(functions.measure, _BY_MEMBER, _EVERYWHERE, _EVERYWHERE),
            in_shardings=(of_states.params, everywhere, of_kept_base),
            out_shardings=by_member,
        ),
        state=states,
        base=base,
        kept_base=kept_base,
        mesh=mesh,
    )


def lying(params: Params, shape: MeshShape, *, rules: Rules) -> Params:
    """One member's parameters, or the base, on the devices where the rules want them.

    Raises:
        ValueError: as for `compile_program`.
    """
    return place(params, _on_mesh(specs(params, rules, shape), shape.mesh()))


def over_members(
    function: Callable[[Params, Params | None, Any], Outputs],
    shape: MeshShape,
    *,
    rules: Rules,
    params: Params,
    base: Params | None = None,
) -> Callable[[Params, Params | None, Any], Outputs]:
    """Jits a function of one trained member, to be called on those of all groups at once.

    Parameters and base may lie on hosts or on the devices already.

    Args:
        function: of a member's parameters, the base and what else all members share.
        shape: of the mesh.
        rules: where a member's parameters lie, and those of the base.
        params: of one member; arrays or their shapes.
        base: what the members share; arrays or their shapes.

    Returns:
        The same with a leading axis of members on parameters and results, a multiple of
        `shape.member`.

    Raises:
        ValueError: as for `compile_program`.
    """
    mesh = shape.mesh()

    def of_all(params: Params, base: Params | None, shared: Any) -> Outputs:
        return jax.vmap(lambda own: function(own, base, shared))(params)

    of_params, of_base = (
        _on_mesh(specs(params, rules, shape), mesh, Axis.MEMBER),
        _on_mesh(specs(base, rules, shape), mesh),
    )
    jitted = jax.jit(
        _within_members(mesh, of_all, _BY_MEMBER, _EVERYWHERE, _EVERYWHERE),
        in_shardings=(of_params, of_base, NamedSharding(mesh, _EVERYWHERE)),
        out_shardings=NamedSharding(mesh, _BY_MEMBER),
    )

    def call(params: Params, base: Params | None, shared: Any) -> Outputs:
        return jitted(place(params, of_params), place(base, of_base), shared)

    return call


def _on_mesh(specs: Params, mesh: Mesh, *lead: str) -> Params:
    return jax.tree.map(lambda spec: NamedSharding(mesh, PartitionSpec(*lead, *spec)), specs)


def _within_members(mesh: Mesh, function: Callable, *arguments: PartitionSpec) -> Callable:
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=arguments,
        out_specs=_BY_MEMBER,
        axis_names={Axis.MEMBER},
        check_vma=False,  # nothing crosses members, so there is nothing to check
    )


class _Lifted(NamedTuple):
    """The pieces of a member's training, over a leading axis of members."""

    program: Program

    def begin(self, key: PRNGKey, members: Array, base: Params | None) -> State:
        program = self._on(base)
        return jax.vmap(lambda m: one.begin(program, key=_own(key, m)))(members)

    def schedule(self, key: PRNGKey, members: Array, masks: Array) -> Array:
        def of_one(member: Array, mask: Array) -> Array:
            return one.schedule(self.program, mask, key=_own(key, member))

        return jax.vmap(of_one)(members, masks)

    def step(
        self,
        states: State,
        number: Array,
        key: PRNGKey,
        members: Array,
        schedule: Array,
        examples: Batch,
        base: Params | None,
    ) -> State:
        program = self._on(base)

        def of_one(state: State, member: Array, indices: Array) -> State:
            batch = one.take(examples, indices)
            return one.step(program, state, number, batch, key=_own(key, member))

        indices = lax.dynamic_index_in_dim(schedule, number, axis=1, keepdims=False)
        return jax.vmap(of_one)(states, members, indices)

    def measure(
        self, params: Params, targets: Batch, base: Params | None
    ) -> dict[str, Float[Array, 'C T']]:
        program = self._on(base)
        return jax.vmap(lambda p: one.measure(program, p, targets))(params)

    def _on(self, base: Params | None) -> Program:
        based = self.program.on(base)
        return based._replace(task=_SpreadBatches(cast(Task, based.task)))


@dataclasses.dataclass(frozen=True, eq=False)
class _SpreadBatches:
    """A task whose batches are spread over the devices of a member."""

    task: Task

    @property
    def measurements(self) -> tuple[str, ...]:
        return self.task.measurements

    def init(self, *, key: PRNGKey) -> Params:
        return self.task.init(key=key)

    def train_loss(self, params: Params, batch: Batch, *, key: PRNGKey) -> Float[Array, ' B']:
        return self.task.train_loss(params, _over_data(batch), key=key)

    def measure(self, params: Params, batch: Batch) -> Mapping[str, Float[Array, ' B']]:
        return self.task.measure(params, _over_data(batch))


def _over_data(batch: Batch) -> Batch:
    return lax.with_sharding_constraint(batch, PartitionSpec(Axis.DATA))


def _own(key: PRNGKey, member: Array) -> PRNGKey:
    return jax.random.fold_in(key, member)


def _states(one: State, where: State, members: int, mesh: Mesh) -> State:
    many = jax.tree.map(lambda s: jax.ShapeDtypeStruct((members, *s.shape), s.dtype), one)
    return _lying(many, jax.tree.map(lambda spec: PartitionSpec(Axis.MEMBER, *spec), where), mesh)


def _lying(tree: Params, where: Params, mesh: Mesh) -> Params:
    def at(leaf: Any, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        sharding = NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(at, tree, where)


def _shardings(tree: Params) -> Params:
    return jax.tree.map(lambda leaf: leaf.sharding, tree)
