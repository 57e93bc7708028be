"""The compiled functions that train many members at once, and where their arrays are."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import jax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from influence_jax.training import member as one
from influence_jax.training.executor import Executor
from influence_jax.training.member import Program, State, WarmStart
from influence_jax.training.mesh import Axis, specs, state_specs
from influence_jax.training.multihost import place
from influence_jax.types import AnyArray, Batch, Params, PRNGKey, Variables

Outputs = TypeVar('Outputs')

_EVERYWHERE, _BY_MEMBER = PartitionSpec(), PartitionSpec(Axis.MEMBER)


def abstract_state(program: Program, base: Params | None = None) -> State:
    """Returns the shapes of a member in training; `base` as arrays or shapes."""
    return jax.eval_shape(lambda b: one.begin(program.on(b), key=jax.random.key(0)), base)


class Compiled(NamedTuple):
    """Functions of C members at once, each traced at its first call.

    begin: (key, members, base) -> their states before the first step.
    schedule: (key, members, masks) -> which examples each of their steps trains on.
    advance: (states, first, stop, key, members, schedule, examples, kept_base) -> the states after
        step `stop - 1`. Those given are used up. Stepwise, `stop` is `first + 1`.
    measure: (variables, targets, kept_base) -> the measurements of every target.
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
    advance: jax.stages.Wrapped
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

    @property
    def has_collectives(self) -> bool:
        """Whether a member takes several devices."""
        return self.mesh.shape[Axis.DATA] * self.mesh.shape[Axis.MODEL] > 1

    @property
    def platform(self) -> str:
        """What kind of devices these are: 'cpu', 'gpu', 'tpu'."""
        return self.mesh.devices.flat[0].platform


def compile_program(
    program: Program,
    executor: Executor,
    *,
    base: Params | None = None,
    devices: Sequence[Any] | None = None,
) -> Compiled:
    """Returns the functions that train C = `executor.chunk` members.

    Args:
        program: the task and how to train it.
        executor: how the members share devices.
        base: what the members share, for a `BasedTask`; arrays or their shapes.
        devices: of the mesh; by default the first ones that jax sees.

    Raises:
        ValueError: too few devices, or parameters that the rules cannot place.
    """
    shape, rules = executor.shape, executor.rules
    mesh = shape.mesh(devices)
    state = abstract_state(program, base)
    states = _states(state, state_specs(state, rules, shape), executor.chunk, mesh)
    base = _placed(base, specs(base, rules, shape), mesh)
    everywhere, by_member = NamedSharding(mesh, _EVERYWHERE), NamedSharding(mesh, _BY_MEMBER)
    begun, kept_base = program, base
    if only_begins_with_base(program):
        begun, kept_base = program._replace(task=cast(WarmStart, program.task).task), None
    of_states, of_kept_base = shardings(states), shardings(kept_base)
    within = functools.partial(_within_members, mesh)
    lifted = _Lifted(begun, executor)
    jit = functools.partial(jax.jit, compiler_options=_compiler_options(mesh))
    return Compiled(
        begin=jit(
            within(_Lifted(program, executor).begin, _EVERYWHERE, _BY_MEMBER, _EVERYWHERE),
            in_shardings=(everywhere, by_member, shardings(base)),
            out_shardings=of_states,
        ),
        schedule=jit(
            within(lifted.schedule, _EVERYWHERE, _BY_MEMBER, _BY_MEMBER),
            in_shardings=(everywhere, by_member, by_member),
            out_shardings=by_member,
        ),
        advance=jit(
            within(
                lifted.advance,
                *(_BY_MEMBER, _EVERYWHERE, _EVERYWHERE, _EVERYWHERE),
                *(_BY_MEMBER, _BY_MEMBER, _EVERYWHERE, _EVERYWHERE),
            ),
            in_shardings=(
                *(of_states, everywhere, everywhere, everywhere),
                *(by_member, by_member, everywhere, of_kept_base),
            ),
            out_shardings=of_states,
            donate_argnums=0,
        ),
        measure=jit(
            within(lifted.measure, _BY_MEMBER, _EVERYWHERE, _EVERYWHERE),
            in_shardings=(of_states.variables, everywhere, of_kept_base),
            out_shardings=by_member,
        ),
        state=states,
        base=base,
        kept_base=kept_base,
        mesh=mesh,
    )


def shardings(shapes: Params) -> Params:
    """Returns the sharding of each leaf of `Compiled.state`, `.base` or `.kept_base`."""
    return jax.tree.map(lambda leaf: leaf.sharding, shapes)


def only_begins_with_base(program: Program) -> bool:
    """Returns whether members need the base no more once they have begun, so that it makes room."""
    return isinstance(program.task, WarmStart)


def place_on_mesh(params: Params, executor: Executor) -> Params:
    """Returns one member's parameters, or the base, on the devices where the rules want them.

    Raises:
        ValueError: as for `compile_program`.
    """
    shape = executor.shape
    return place(params, _on_mesh(specs(params, executor.rules, shape), shape.mesh()))


def over_members(
    function: Callable[[Params, Params | None, Any], Outputs],
    executor: Executor,
    *,
    params: Params,
    base: Params | None = None,
) -> Callable[[Params, Params | None, Any], Outputs]:
    """Jits a function of one trained member, to be called on those of all groups at once.

    Parameters and base may be on hosts or on the devices already.

    Args:
        function: of a member's parameters, the base and what else all members share.
        executor: how members share devices.
        params: of one member; arrays or their shapes.
        base: what the members share; arrays or their shapes.

    Returns:
        The same with a leading axis of members on parameters and results, a multiple of
        `executor.shape.member`.

    Raises:
        ValueError: as for `compile_program`.
    """
    shape, rules = executor.shape, executor.rules
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
        compiler_options=_compiler_options(mesh),
    )

    def call(params: Params, base: Params | None, shared: Any) -> Outputs:
        return jitted(place(params, of_params), place(base, of_base), shared)

    return call


class _Lifted(NamedTuple):
    """The pieces of a member's training, over the members of one group of devices."""

    program: Program
    executor: Executor

    def begin(self, key: PRNGKey, members: Array, base: Params | None) -> State:
        program = self.program.on(base)
        return self._over(lambda m: one.begin(program, key=_own(key, m)), members)

    def schedule(self, key: PRNGKey, members: Array, masks: Array) -> Array:
        def of_one(member: Array, mask: Array) -> Array:
            return one.schedule(self.program, mask, key=_own(key, member))

        return self._over(of_one, members, masks)

    def advance(
        self,
        states: State,
        first: Array,
        stop: Array,
        key: PRNGKey,
        members: Array,
        schedule: Array,
        examples: Batch,
        base: Params | None,
    ) -> State:
        program = self.program.on(base)

        def of_one(state: State, member: Array, order: Array) -> State:
            own = _own(key, member)
            if not self.executor.stepwise:
                return one.advance(program, state, order, examples, key=own, first=first, stop=stop)
            indices = lax.dynamic_index_in_dim(order, first, keepdims=False)
            return one.step(program, state, first, one.take(examples, indices), key=own)

        return self._over(of_one, states, members, schedule)

    def measure(
        self, variables: Params | Variables, targets: Batch, base: Params | None
    ) -> dict[str, Float[Array, 'C T']]:
        program = self.program.on(base)
        return self._over(lambda own: one.measure(program, own, targets), variables)

    def _over(self, of_one: Callable[..., Outputs], *rows: Any) -> Outputs:
        count, width = jax.tree.leaves(rows)[0].shape[0], self.executor.shape.vmapped
        if count == 1:  # a vmap over one member would still group its convolutions
            alone = of_one(*jax.tree.map(lambda leaf: leaf[0], rows))
            return jax.tree.map(lambda leaf: leaf[None], alone)
        if width == count:
            return jax.vmap(of_one)(*rows)
        if width == 1:
            return lax.map(lambda row: of_one(*row), rows)
        return lax.map(lambda row: of_one(*row), rows, batch_size=width)


def _own(key: PRNGKey, member: Array) -> PRNGKey:
    return jax.random.fold_in(key, member)


def _within_members(mesh: Mesh, function: Callable, *arguments: PartitionSpec) -> Callable:
    sharded = mesh.shape[Axis.DATA] * mesh.shape[Axis.MODEL] > 1
    return jax.shard_map(
        function,
        mesh=mesh,
        in_specs=arguments,
        out_specs=_BY_MEMBER,
        # Along the other axes the compiler spreads what the rules leave open.
        axis_names={Axis.MEMBER} if sharded else frozenset(mesh.axis_names),
        check_vma=False,  # nothing crosses members, so there is nothing to check
    )


def _on_mesh(specs: Params, mesh: Mesh, *lead: str) -> Params:
    return jax.tree.map(lambda spec: NamedSharding(mesh, PartitionSpec(*lead, *spec)), specs)


def _states(one: State, where: State, members: int, mesh: Mesh) -> State:
    many = jax.tree.map(lambda s: jax.ShapeDtypeStruct((members, *s.shape), s.dtype), one)
    return _placed(many, jax.tree.map(lambda spec: PartitionSpec(Axis.MEMBER, *spec), where), mesh)


def _placed(tree: Params, where: Params, mesh: Mesh) -> Params:
    def at(leaf: Any, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(at, tree, where)


def _compiler_options(mesh: Mesh) -> dict[str, bool]:
    # On a CPU the devices are what uses the cores: threads within operations get in their way,
    # and make sums depend on how many there are.
    cpu = mesh.devices.flat[0].platform == 'cpu'
    return {'xla_cpu_multi_thread_eigen': False} if cpu else {}
