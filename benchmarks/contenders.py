"""Ways of training members, each a `prepare() -> work` where `work()` trains and returns samples.

Every contender runs in a process of its own, so that thread settings of one do not touch another.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

Work = Callable[[], int]

CLASSES, IMAGES = 9, 1567


@dataclasses.dataclass(frozen=True)
class Problem:
    """Network and batch of the default main job unless told otherwise."""

    width: int = 32
    blocks: tuple[int, ...] = (1, 1)
    patch: int = 4
    batch: int = 48
    steps: int = 24

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (IMAGES, 32, 32, 3), np.uint8)
        return images, rng.integers(0, CLASSES, IMAGES, np.int32)

    def training_flops(self) -> int:
        """Multiplications and additions of one trained sample: forward, and two gradients."""
        side, inputs = 32 // self.patch, 3 * self.patch**2
        stem = side**2 * 9 * inputs * self.width
        rest, width = 0, self.width
        for stage, count in enumerate(self.blocks):
            outputs, pixels = self.width * 2**stage, (side // 2**stage) ** 2
            for _ in range(count):
                rest += pixels * 9 * (width + outputs) * outputs
                rest += pixels * width * outputs * (width != outputs)
                width = outputs
        return 2 * (2 * stem + 3 * rest)  # the stem needs no gradient of its input


# --- JAX ---------------------------------------------------------------------------------------


def _jax_parts(problem: Problem, dtype: str = 'float32') -> tuple[Any, Any]:
    import jax
    import jax.numpy as jnp

    from influence_jax import training
    from influence_jax.data import Dataset
    from influence_jax.models import ResNetConfig
    from influence_jax.tasks import Classification
    from influence_jax.tasks.images import standardized

    config = ResNetConfig(CLASSES, problem.width, problem.blocks, problem.patch)
    recipe = training.Recipe(batch_size=problem.batch)
    images, labels = problem.data()
    bound = Classification(config, prepare=standardized).bind(
        Dataset({'image': images, 'label': labels})
    )
    program = training.Program(
        task=bound.task,
        optimizer=recipe.optimizer(10_000),
        steps=problem.steps,
        batch_size=problem.batch,
        measure_batch=1,
        smallest_subset=700,
        compute_dtype=training.ComputeDtype(dtype),
    )
    return program, jax.tree.map(jnp.asarray, bound.examples)


def engine(
    problem: Problem, devices: int, width: int, in_turn: int, dtype: str = 'float32'
) -> Work:
    """The engine, its measuring pass cut down to one target."""
    import jax

    jax.config.update('jax_num_cpu_devices', devices)
    from benchmarks.chunk import Chunk
    from influence_jax.training import Executor, MeshShape

    program, examples = _jax_parts(problem, dtype)
    executor = Executor(MeshShape(devices, vmapped=width), in_turn)
    target = jax.tree.map(lambda leaf: leaf[:1], examples)
    chunk = Chunk(program, executor, examples=examples, targets=target)
    masks = np.random.default_rng(1).random((chunk.size, IMAGES)) < 0.5

    def work() -> int:
        jax.block_until_ready(chunk.train(np.arange(chunk.size), masks))
        return chunk.size * problem.steps * problem.batch

    return work


def _bare_step(program: Any) -> Callable[[Any, Any], Any]:
    import jax
    import optax

    def step(state: Any, batch: Any) -> Any:
        params, optimizer_state = state

        def loss(params: Any) -> Any:
            return program.task.train_loss(params, batch, key=jax.random.key(0)).mean()

        gradient = jax.grad(loss)(params)
        update, optimizer_state = program.optimizer.update(gradient, optimizer_state, params)
        return optax.apply_updates(params, update), optimizer_state

    return step


def plain_jax(problem: Problem) -> Work:
    """One jitted train step, called from Python, one member after another."""
    import jax

    program, examples = _jax_parts(problem)
    step = jax.jit(
        lambda state, indices: _bare_step(program)(
            state, jax.tree.map(lambda leaf: leaf[indices], examples)
        )
    )
    rng = np.random.default_rng(2)
    order = [rng.integers(0, IMAGES, problem.batch) for _ in range(problem.steps)]
    params = program.task.init(key=jax.random.key(0))
    start = params, program.optimizer.init(params)

    def work() -> int:
        state = start
        for indices in order:
            state = step(state, indices)
        jax.block_until_ready(state)
        return problem.steps * problem.batch

    return work


def bare_scan(problem: Problem, members: int) -> Work:
    """The train step scanned over given batches: the engine without subsets, order and members."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    program, examples = _jax_parts(problem)
    order = jnp.asarray(
        np.random.default_rng(2).integers(0, IMAGES, (problem.steps, problem.batch))
    )

    @jax.jit
    def run(state: Any) -> Any:
        def step(state: Any, indices: Any) -> tuple[Any, None]:
            batch = jax.tree.map(lambda leaf: leaf[indices], examples)
            return _bare_step(program)(state, batch), None

        return lax.scan(step, state, order)[0]

    params = program.task.init(key=jax.random.key(0))
    start = params, program.optimizer.init(params)

    def work() -> int:
        for _ in range(members):
            jax.block_until_ready(run(start))
        return members * problem.steps * problem.batch

    return work


def matmul_peak(size: int = 2048) -> Work:
    """Counts floating-point operations in place of samples."""
    import jax
    import jax.numpy as jnp

    a = jnp.asarray(np.random.default_rng(0).random((size, size), np.float32))
    multiply = jax.jit(lambda a: a @ a)

    def work() -> int:
        for _ in range(8):
            jax.block_until_ready(multiply(a))
        return 8 * 2 * size**3

    return work


# --- PyTorch -----------------------------------------------------------------------------------


def torch_device(threads: int) -> Any:
    """Where PyTorch trains: on a GPU, with products in TF32 as in jax, where there is one."""
    import torch

    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = True
    return torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def torch_rounded(device: Any, dtype: str) -> Any:
    """Mixed precision as PyTorch has it, or none."""
    import torch

    return torch.autocast(device.type, torch.bfloat16, enabled=dtype == 'bfloat16')


def torch_done(device: Any) -> None:
    """Waits for what was begun on a GPU."""
    import torch

    if device.type == 'cuda':
        torch.cuda.synchronize()


def _torch_parts(problem: Problem, device: Any) -> tuple[Any, Any, Any, Any]:
    import torch

    from benchmarks import torch_peer

    images, labels = problem.data()
    network = torch_peer.ResNet(CLASSES, problem.width, problem.blocks, problem.patch)
    channels_last = torch.from_numpy(images).permute(0, 3, 1, 2)  # strides stay NHWC
    rng = np.random.default_rng(2)
    order = [torch.from_numpy(rng.integers(0, IMAGES, problem.batch)) for _ in range(problem.steps)]
    return (
        network.to(device),
        channels_last.to(device),
        torch.from_numpy(labels).long().to(device),
        [indices.to(device) for indices in order],
    )


def torch_one_by_one(
    problem: Problem, threads: int, *, compiled: bool = False, dtype: str = 'float32'
) -> Work:
    """PyTorch, channels_last, one member after another.

    `compiled` by `torch.compile`, on a GPU into CUDA graphs.
    """
    import torch
    import torch.nn.functional as F

    device = torch_device(threads)
    network, images, labels, order = _torch_parts(problem, device)
    from benchmarks import torch_peer

    network = network.to(memory_format=torch.channels_last)
    optimizer = torch_peer.adamw(list(network.parameters()))

    def losses(images: Any, labels: Any) -> Any:
        batch = torch_peer.standardized(images)
        batch = batch.contiguous(memory_format=torch.channels_last)
        with torch_rounded(device, dtype):
            logits = network(batch)
        return F.cross_entropy(logits.float(), labels)

    mode = 'reduce-overhead' if device.type == 'cuda' else 'default'
    loss = torch.compile(losses, mode=mode) if compiled else losses

    def work() -> int:
        for indices in order:
            optimizer.zero_grad(set_to_none=True)
            loss(images[indices], labels[indices]).backward()
            optimizer.step()
        torch_done(device)
        return problem.steps * problem.batch

    return work


def torch_vmap(problem: Problem, threads: int, members: int, *, dtype: str = 'float32') -> Work:
    """`torch.func`: gradients of all members by vmap, parameters stacked."""
    import torch
    import torch.nn.functional as F

    device = torch_device(threads)
    network, images, labels, order = _torch_parts(problem, device)
    from benchmarks import torch_peer

    stacked = {
        name: torch.stack([p.detach() + 0.01 * torch.randn_like(p) for _ in range(members)])
        for name, p in network.named_parameters()
    }
    optimizer = torch_peer.adamw(list(stacked.values()), stacked=True)

    def loss(params: Any, x: Any, y: Any) -> Any:
        with torch_rounded(device, dtype):
            logits = torch.func.functional_call(network, params, (x,))
        return F.cross_entropy(logits.float(), y)

    gradients = torch.func.vmap(torch.func.grad(loss))

    def work() -> int:
        for indices in order:
            # Every member has a batch of its own.
            own = torch.stack([(indices + m) % IMAGES for m in range(members)])
            x = torch_peer.standardized(images[own.flatten()])
            x = x.unflatten(0, own.shape)
            for name, gradient in gradients(stacked, x, labels[own]).items():
                stacked[name].grad = gradient
            optimizer.step()
        torch_done(device)
        return members * problem.steps * problem.batch

    return work
