"""Ways of training small language models, each a `prepare() -> work` that returns trained tokens.

Tokens that are predicted count; padding does not, whoever computes it. Every contender runs in a
process of its own, so that thread settings of one do not touch another.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.contenders import torch_device, torch_done, torch_rounded

Work = Callable[[], int]
HEADS = 4


@dataclasses.dataclass(frozen=True)
class Problem:
    """Network and batch of the default language experiment unless told otherwise."""

    width: int = 64
    layers: int = 1
    vocabulary: int = 1000
    batch: int = 50
    steps: int = 20
    records: int = 1500

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """WordNet glosses: tokens [N S], padded at their ends, and lengths [N]."""
        from influence_jax.data import Dataset, text
        from influence_jax.data.text.tokenizer import train_byte_bpe

        source = Dataset.wordnet()
        chosen = source.take(np.random.default_rng(0).permutation(len(source.ids))[: self.records])
        tokenizer = train_byte_bpe(source.texts, self.vocabulary)
        encoded = text.encode(chosen, tokenizer)
        return encoded.tokens, encoded.lengths

    def order(self) -> np.ndarray:
        """Records of each step [steps B]."""
        rng = np.random.default_rng(2)
        rows = [rng.permutation(self.records)[: self.batch] for _ in range(self.steps)]
        return np.stack(rows)

    def flops_of_token(self) -> int:
        """Multiplications and additions of the matrices, forward and two gradients."""
        return 6 * (12 * self.layers * self.width**2 + self.width * self.vocabulary)


# --- JAX ---------------------------------------------------------------------------------------


def jax_parts(
    problem: Problem, *, packed: bool, dtype: str = 'float32'
) -> tuple[Any, Any, np.ndarray]:
    import jax.numpy as jnp

    from influence_jax import training
    from influence_jax.models.gpt_neo import GPTNeoConfig
    from influence_jax.tasks.language_modeling import LanguageModeling, TokenBatch

    tokens, lengths = problem.data()
    config = GPTNeoConfig(
        problem.vocabulary,
        hidden=problem.width,
        layers=problem.layers,
        heads=HEADS,
        max_positions=tokens.shape[1],
    )
    program = training.Program(
        task=LanguageModeling(config, _bound(lengths, problem) if packed else None),
        optimizer=training.Recipe(batch_size=problem.batch, learning_rate=1e-2).optimizer(10_000),
        steps=problem.steps,
        batch_size=problem.batch,
        measure_batch=1,
        smallest_subset=problem.batch,
        compute_dtype=training.ComputeDtype(dtype),
    )
    starts = jnp.zeros(len(lengths), jnp.int32)
    return program, TokenBatch(jnp.asarray(tokens), jnp.asarray(lengths), starts), lengths


def _bound(lengths: np.ndarray, problem: Problem) -> int:
    """Five standard deviations above a batch's mean; experiments compute the exact bound."""
    counts = lengths - 1
    return round(problem.batch * counts.mean() + 5 * counts.std() * problem.batch**0.5)


def engine(
    problem: Problem,
    devices: int,
    width: int,
    in_turn: int,
    packed: bool = True,
    dtype: str = 'float32',
) -> Work:
    """The project's engine, its measuring pass cut down to one target."""
    import jax

    jax.config.update('jax_num_cpu_devices', devices)
    from benchmarks.chunk import Chunk
    from influence_jax.training import Executor, MeshShape

    program, examples, lengths = jax_parts(problem, packed=packed, dtype=dtype)
    executor = Executor(MeshShape(devices, vmapped=width), in_turn)
    target = jax.tree.map(lambda leaf: leaf[:1], examples)
    chunk = Chunk(program, executor, examples=examples, targets=target)
    masks = np.random.default_rng(1).random((chunk.size, problem.records)) < 0.5
    tokens = round(chunk.size * problem.steps * problem.batch * (lengths - 1).mean())

    def work() -> int:
        jax.block_until_ready(chunk.train(np.arange(chunk.size), masks))
        return tokens

    return work


def plain_jax(problem: Problem) -> Work:
    """One jitted train step, called from Python, on padded records, one member after another."""
    import jax
    import optax

    program, examples, lengths = jax_parts(problem, packed=False)

    @jax.jit
    def step(state: Any, indices: Any) -> Any:
        params, optimizer_state = state
        batch = jax.tree.map(lambda leaf: leaf[indices], examples)

        def loss(params: Any) -> Any:
            return program.task.train_loss(params, batch, key=jax.random.key(0)).mean()

        gradient = jax.grad(loss)(params)
        update, optimizer_state = program.optimizer.update(gradient, optimizer_state, params)
        return optax.apply_updates(params, update), optimizer_state

    order = problem.order()
    params = program.task.init(key=jax.random.key(0))
    start = params, program.optimizer.init(params)
    tokens = int((lengths - 1)[order].sum())

    def work() -> int:
        state = start
        for indices in order:
            state = step(state, indices)
        jax.block_until_ready(state)
        return tokens

    return work


# --- PyTorch -----------------------------------------------------------------------------------


def _torch_parts(problem: Problem, device: Any) -> tuple[Any, Any, Any, Any]:
    import torch

    from benchmarks import torch_gpt_neo

    tokens, lengths = problem.data()
    network = torch_gpt_neo.GPTNeo(
        problem.vocabulary, problem.width, problem.layers, HEADS, 256, tokens.shape[1]
    )
    return (
        network.to(device),
        torch.from_numpy(tokens).long().to(device),
        torch.from_numpy(lengths).long().to(device),
        [torch.from_numpy(rows).to(device) for rows in problem.order()],
    )


def torch_one_by_one(
    problem: Problem, threads: int, *, compiled: bool = False, dtype: str = 'float32'
) -> Work:
    """PyTorch, one member after another; batches are cut to their longest record.

    `compiled` by `torch.compile`, for any length: the first call takes its time. On a GPU into CUDA
    graphs, for which batches keep one length.
    """
    import torch

    from benchmarks import torch_gpt_neo, torch_peer

    device = torch_device(threads)
    network, tokens, lengths, order = _torch_parts(problem, device)
    optimizer = torch_peer.adamw(list(network.parameters()))
    counted = sum(int((lengths[rows] - 1).sum()) for rows in order)
    losses = torch_gpt_neo.losses
    graphs = compiled and device.type == 'cuda'
    if graphs:
        losses = torch.compile(losses, mode='reduce-overhead')
    elif compiled:
        losses = torch.compile(losses, dynamic=True)

    def work() -> int:
        for rows in order:
            own = lengths[rows]
            optimizer.zero_grad(set_to_none=True)
            batch = tokens[rows] if graphs else tokens[rows][:, : int(own.max())]
            with torch_rounded(device, dtype):
                loss = losses(network, batch, own).mean()
            loss.backward()
            optimizer.step()
        torch_done(device)
        return counted

    return work


def torch_vmap(problem: Problem, threads: int, members: int, *, dtype: str = 'float32') -> Work:
    """`torch.func`: gradients of all members by vmap, parameters stacked."""
    import torch

    from benchmarks import torch_gpt_neo, torch_peer

    device = torch_device(threads)
    network, tokens, lengths, order = _torch_parts(problem, device)
    stacked = {
        name: torch.stack([p.detach() + 0.01 * torch.randn_like(p) for _ in range(members)])
        for name, p in network.named_parameters()
    }
    optimizer = torch_peer.adamw(list(stacked.values()), stacked=True)
    buffers = dict(network.named_buffers())

    def loss(params: Any, rows: Any, own: Any) -> Any:
        with torch_rounded(device, dtype):
            return torch.func.functional_call(
                torch_gpt_neo.MeanLoss(network), _prefixed(params | buffers), (rows, own)
            )

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(0, 0, 0))
    counted = 0
    for rows in order:
        for member in range(members):
            counted += int((lengths[(rows + member) % problem.records] - 1).sum())

    def work() -> int:
        # The fused attention has no batching rule: member after member, it is slower still.
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            counted = train()
        torch_done(device)
        return counted

    def train() -> int:
        for rows in order:
            own = torch.stack([(rows + m) % problem.records for m in range(members)])
            size = lengths[own]
            batch = tokens[own][:, :, : int(size.max())]
            for name, gradient in gradients(stacked, batch, size).items():
                stacked[name].grad = gradient
            optimizer.step()
        return counted

    return work


def _prefixed(params: dict[str, Any]) -> dict[str, Any]:
    return {f'network.{name}': value for name, value in params.items()}
