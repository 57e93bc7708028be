"""How members share devices, and the compiled functions that train many of them at once.

An executor is a mesh of devices with the axes ('member', 'data', 'model') and the number of members
that each group of devices trains in one call, under `vmap` or one after another. The three that
are meant: `sequential`, one member after another on each device, which is fastest on a CPU;
`vmapped`, for small members on accelerators; `sharded`, for members that take several devices.
Which of them it is changes results by rounding alone. On a CPU, members one after another are
bitwise the same as alone; `vmap` rounds otherwise, which many steps of an adaptive optimizer
amplify, so an ensemble keeps to one width.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from influence_jax.training import member as one
from influence_jax.training.member import Program, State, WarmStart
from influence_jax.training.mesh import REPLICATED, Axis, MeshShape, Rules, specs, state_specs
from influence_jax.training.multihost import place
from influence_jax.types import AnyArray, Batch, Params, PRNGKey, Task, Variables

Outputs = TypeVar('Outputs')

_EVERYWHERE, _BY_MEMBER = PartitionSpec(), PartitionSpec(Axis.MEMBER)
_LARGE = 2**26
"""Bytes of parameters from which on a call holds no more members than are trained at once."""
_BUDGET = 2**32
"""Bytes of an accelerator's memory that vmapped members' parameters and gradients may take."""
_WIDEST = 64


@dataclasses.dataclass(frozen=True)
class Executor:
    """How members share devices.

    Attributes:
        shape: of the mesh, with how many members a group of devices trains under `vmap`.
        in_turn: how many such sets a group trains one after another in one call.
        rules: where a member's parameters are on the devices of its group.
        stepwise: whether each step is a call of its own, so that a state is never held twice; for
            large members, which must be if they take several devices.
    """

    shape: MeshShape = dataclasses.field(default_factory=MeshShape)
    in_turn: int = 1
    rules: Rules = REPLICATED
    stepwise: bool = False

    def __post_init__(self) -> None:
        if self.in_turn < 1:
            raise ValueError(f'in_turn must be at least 1, not {self.in_turn}')
        if self.stepwise and self.in_turn > 1:
            raise ValueError(
                f'a call of one step trains one set of members, not {self.in_turn}: in_turn=1'
            )
        if self.shape.devices_per_member > 1 and not self.stepwise:
            raise ValueError(f'members on a mesh of {self.shape} are trained by sharded(...)')

    @property
    def chunk(self) -> int:
        """C, the members of one call."""
        return self.shape.members_at_once * self.in_turn

    def fitted_to(self, members: int) -> 'Executor':
        """Returns the executor that wastes least on a last chunk that is not full.

        It makes as many calls, and no result depends on the difference.
        """
        calls = -(-members // self.chunk)
        in_turn = -(-members // (calls * self.shape.members_at_once))
        return dataclasses.replace(self, in_turn=in_turn)

    def describe(self) -> dict[str, Any]:
        """Returns what a manifest keeps of it, as JSON has it."""
        return {
            'member': self.shape.member,
            'data': self.shape.data,
            'model': self.shape.model,
            'vmapped': self.shape.vmapped,
            'in_turn': self.in_turn,
        }

    def __str__(self) -> str:
        kind = jax.devices()[0].device_kind
        if self.stepwise:
            return f'a mesh of {self.shape} x {kind}, {self.shape.members_at_once} at a time'
        width = self.shape.vmapped
        at_once = f'{width} members at a time' if width > 1 else 'one by one'
        return f'{self.shape.member} x {kind}, {at_once} on each'


def sequential(devices: int | None = None, *, in_turn: int = 4) -> Executor:
    """Returns the executor that trains one member after another on each of so many devices."""
    return Executor(MeshShape(_number(devices)), in_turn)


def vmapped(width: int, devices: int | None = None) -> Executor:
    """Returns the executor that trains `width` members under `vmap` on each of so many devices."""
    return Executor(MeshShape(_number(devices), vmapped=width))


def sharded(shape: MeshShape, rules: Rules) -> Executor:
    """Returns the executor of large members: each is spread over devices as the rules say."""
    return Executor(shape, rules=rules, stepwise=True)


@dataclasses.dataclass(frozen=True)
class Automatic:
    """Chooses an executor from the kind of device and the shapes alone.

    Sequential on CPUs; elsewhere vmapped, as wide as members' states and gradients fit into 4 GiB,
    a power of two, at most 64 and no more than there are to train. The width that a run has on
    record is kept to.

    Attributes:
        devices: how many; all by default.
        width: of `vmap`, where it is to be another.
        autotune: instead, time ever wider `vmap`s over a few steps and take the fastest: the width,
            and with it results by rounding, can then differ from run to run.
    """

    devices: int | None = None
    width: int | None = None
    autotune: bool = False

    def choose(
        self,
        program: Program,
        *,
        members: int,
        examples: Batch,
        targets: Batch,
        base: Params | None = None,
        recorded: int | None = None,
    ) -> Executor:
        """Returns the executor.

        Args:
            program: what is to be trained.
            members: how many; no width that they do not fill is chosen.
            examples: pytree with a leading axis N.
            targets: pytree with a leading axis T.
            base: what members share, for a `BasedTask`.
            recorded: the width of the run that is continued.
        """
        width = self.width or recorded
        if width is None and self.autotune:
            return autotune(
                program,
                members=members,
                examples=examples,
                targets=targets,
                base=base,
                devices=self.devices,
            )
        return _of_width(program, base, self.devices, width, members=members)


def _of_width(
    program: Program,
    base: Params | None,
    devices: int | None,
    width: int | None,
    *,
    members: int = _WIDEST,
) -> Executor:
    nbytes = _bytes_of(abstract_state(program, base))
    if width is None:
        each = -(-members // _number(devices))
        fits = max(1, min(_WIDEST, each, _BUDGET // max(1, 2 * nbytes)))
        width = 1 if _platform() == 'cpu' else 2 ** int(np.log2(fits))
    if width > 1:
        return vmapped(width, devices)
    # A few small members in turn hide the cost of a call; more would only delay what is recorded.
    return sequential(devices, in_turn=4 if nbytes < _LARGE else 1)


def autotune(
    program: Program,
    *,
    members: int,
    examples: Batch,
    targets: Batch,
    base: Params | None = None,
    devices: int | None = None,
    widths: Sequence[int] = (1, 4, 16, 64, 256),
    steps: int = 4,
) -> Executor:
    """Times ever wider `vmap`s over a few steps and returns the one that trains fastest.

    Stops at the first width that is not a tenth faster than the one before, or that does not
    fit into the device's memory, or that there are not members enough to fill.
    """
    short = program._replace(steps=steps)
    first_targets = jax.tree.map(lambda leaf: leaf[: program.measure_batch], targets)
    best, best_rate = _of_width(program, base, devices, 1), 0.0
    for width in widths:
        if width > 1 and best.shape.member * width > members:
            break
        executor = _of_width(program, base, devices, width)
        try:
            rate = _members_per_second(short, executor, examples, first_targets, base)
        except jax.errors.JaxRuntimeError as error:
            if width > widths[0] and 'RESOURCE_EXHAUSTED' in str(error):
                break
            raise
        if rate < 1.1 * best_rate:
            break
        best, best_rate = executor, rate
    return best


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
    of_states, of_kept_base = _shardings(states), _shardings(kept_base)
    within = functools.partial(_within_members, mesh)
    lifted = _Lifted(begun, executor)
    jit = functools.partial(jax.jit, compiler_options=_compiler_options(mesh))
    return Compiled(
        begin=jit(
            within(_Lifted(program, executor).begin, _EVERYWHERE, _BY_MEMBER, _EVERYWHERE),
            in_shardings=(everywhere, by_member, _shardings(base)),
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
        program = self._on(base)
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
        program = self._on(base)

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
        program = self._on(base)
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

    def _on(self, base: Params | None) -> Program:
        based = self.program.on(base)
        if self.executor.shape.devices_per_member == 1:
            return based
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

    def train_loss(self, params: Params, batch: Batch, *, key: PRNGKey) -> Any:
        return self.task.train_loss(params, _over_data(batch), key=key)

    def measure(self, params: Params, batch: Batch) -> Mapping[str, Float[Array, ' B']]:
        return self.task.measure(params, _over_data(batch))


def _over_data(batch: Batch) -> Batch:
    return lax.with_sharding_constraint(batch, PartitionSpec(Axis.DATA))


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


def _shardings(tree: Params) -> Params:
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def _compiler_options(mesh: Mesh) -> dict[str, bool]:
    # On a CPU the devices are what uses the cores: threads within operations get in their way,
    # and make sums depend on how many there are.
    cpu = mesh.devices.flat[0].platform == 'cpu'
    return {'xla_cpu_multi_thread_eigen': False} if cpu else {}


def _platform() -> str:
    return jax.devices()[0].platform


def _number(devices: int | None) -> int:
    return jax.device_count() if devices is None else devices


def _bytes_of(state: State) -> int:
    leaves = jax.tree.leaves((state.params, state.model_state))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)


def _members_per_second(
    program: Program, executor: Executor, examples: Batch, targets: Batch, base: Params | None
) -> float:
    compiled = compile_program(program, executor, base=base)
    key, examples, targets = place((jax.random.key(0), examples, targets), compiled.everywhere)
    kept = None if compiled.kept_base is None else place(base, _shardings(compiled.kept_base))
    on_devices = place(base, _shardings(compiled.base))
    count = jax.tree.leaves(examples)[0].shape[0]
    members, masks = place(
        (jnp.arange(executor.chunk), jnp.ones((executor.chunk, count), bool)), compiled.by_member
    )

    def run() -> None:
        schedule = compiled.schedule(key, members, masks)
        state = compiled.begin(key, members, on_devices)
        state = compiled.advance(
            state, np.int32(0), np.int32(program.steps), key, members, schedule, examples, kept
        )
        jax.block_until_ready(compiled.measure(state.variables, targets, kept))

    run()
    times = []
    for _ in range(2):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return executor.chunk / min(times)
