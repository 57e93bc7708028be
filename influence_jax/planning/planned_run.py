"""Runs of language models that can be planned: their training step, and the FLOPs they take."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from influence_jax.hub import NotFetched
from influence_jax.models.gpt_neo import SHARDING_RULES, GPTNeoConfig, abstract, hugging_face
from influence_jax.models.gpt_neo.config import Flops, flops
from influence_jax.models.lora import LoRA
from influence_jax.planning.compile import Inputs
from influence_jax.tasks.language_modeling import AdapterModeling, LanguageModeling, TokenBatch
from influence_jax.training import Program, Recipe, WarmStart
from influence_jax.training.mesh import Rules

GPT_NEO_1_3B_NAME = 'EleutherAI/gpt-neo-1.3B'
GPT_NEO_1_3B = GPTNeoConfig(
    vocab_size=50257,
    hidden=2048,
    layers=24,
    heads=16,
    max_positions=2048,
    window=256,
    compute_dtype=jnp.bfloat16,
    remat=True,
)


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The run that is planned.

    Attributes:
        members: number M of models.
        records: number N; all are targets.
        keep: probability with which a record is in a subset.
        epochs: passes over a subset of the expected size.
        batch_size: B.
        tokens: S, of each record, its padding included.
        lora_rank: train adapters of this rank on a frozen model; 0 trains all weights.
        vmap: members that share a group of devices; for adapters, which are small.
    """

    members: int = 1000
    records: int = 1500
    keep: float = 0.5
    epochs: float = 3.0
    batch_size: int = 50
    tokens: int = 100
    lora_rank: int = 0
    vmap: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError(f'keep must lie in (0, 1], not {self.keep}')


class PlannedRun(NamedTuple):
    """What is planned: an ensemble, and one member that is trained on all records.

    program: the task and how to train the ensemble's members.
    inputs: shapes of the data and the base.
    rules: where parameters lie.
    members: M.
    full_data_steps: of the member that is trained on all records.
    step_flops: of one member.
    measure_flops: of one member, over all targets.
    """

    program: Program
    inputs: Inputs
    rules: Rules
    members: int
    full_data_steps: int
    step_flops: float
    measure_flops: float

    @property
    def member_flops(self) -> float:
        """Of one member of the ensemble, its measurements included."""
        return self.program.steps * self.step_flops + self.measure_flops

    @property
    def full_data_flops(self) -> float:
        """Of the member that is trained on all records, its measurements included."""
        return self.full_data_steps * self.step_flops + self.measure_flops


def checkpoint_config(model: str, *, bfloat16: bool, remat: bool) -> GPTNeoConfig:
    """Returns the network of a checkpoint, whose weights are not read.

    GPT-Neo 1.3B's is known without a network connection, too.

    Raises:
        OSError: the checkpoint cannot be found.
        ValueError: it is not a GPT-Neo.
    """
    compute = jnp.bfloat16 if bfloat16 else jnp.float32
    try:
        return hugging_face.load_config(model, compute_dtype=compute, remat=remat)
    except NotFetched:
        if model != GPT_NEO_1_3B_NAME:
            raise
    return dataclasses.replace(GPT_NEO_1_3B, compute_dtype=compute, remat=remat)


def language_run(config: GPTNeoConfig, settings: RunSettings) -> PlannedRun:
    """Fine-tuning of a GPT-Neo, or of adapters on it."""
    recipe = Recipe(epochs=settings.epochs, batch_size=settings.batch_size, learning_rate=2e-4)
    steps = recipe.steps(settings.keep * settings.records)
    modeling = LanguageModeling(config)
    lora = LoRA(settings.lora_rank) if settings.lora_rank else None
    base = abstract(config)
    program = Program(
        task=AdapterModeling(modeling, lora) if lora else WarmStart(modeling),
        optimizer=recipe.optimizer(steps),
        steps=steps,
        batch_size=settings.batch_size,
        measure_batch=settings.batch_size,  # of no account: measuring is not compiled
        smallest_subset=settings.batch_size,
    )

    def count(records: int) -> Flops:
        added = lora.parameter_count(base) if lora else 0
        return flops(config, batch=records, tokens=settings.tokens - 1, adapter_parameters=added)

    def zeros() -> TokenBatch:
        rows = jnp.zeros(settings.records, jnp.int32)
        return TokenBatch(jnp.zeros((settings.records, settings.tokens), jnp.int32), rows, rows)

    return PlannedRun(
        program,
        Inputs(jax.eval_shape(zeros), base),
        SHARDING_RULES,
        settings.members,
        full_data_steps=recipe.steps(settings.records),
        step_flops=count(settings.batch_size).step(frozen=lora is not None),
        measure_flops=count(settings.records).forward,
    )
