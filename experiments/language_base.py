"""The parameters that members start from: none, a checkpoint's, or a base pretrained once."""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from experiments.language_data import Records, batch
from experiments.language_settings import ModelSettings
from influence_jax import training
from influence_jax.data import Dataset, text
from influence_jax.models.gpt_neo import GPTNeoConfig, hugging_face
from influence_jax.tasks.language_modeling import LanguageModeling
from influence_jax.types import Params

_LEAST_RECORDS = 2


class Base(NamedTuple):
    """A network, and what its members start from.

    config: the network.
    params: what members share; None where each begins afresh.
    identity: tells one base from another, in a run's configuration.
    """

    config: GPTNeoConfig
    params: Params | None
    identity: str


def prepare(
    settings: ModelSettings,
    records: Records,
    recipe: training.Recipe,
    *,
    default_dir: Path,
    max_length: int,
    seed: int,
) -> Base:
    """Loads, pretrains or does without.

    Args:
        settings: which model.
        records: what members train on, and what a base may.
        recipe: of the pretraining, but for its length.
        default_dir: for pretrained bases, where the settings name none.
        max_length: longest record in tokens.
        seed: of the pretraining.
    """
    compute = jnp.bfloat16 if settings.bfloat16 else jnp.float32
    if not settings.is_tiny:
        config, params = hugging_face.load(
            settings.model, compute_dtype=compute, remat=settings.remat
        )
        if records.tokenizer.vocab_size > config.vocab_size:
            raise ValueError(
                f'the tokenizer of {settings.tokenizer or settings.model} has '
                f'{records.tokenizer.vocab_size} tokens, but the network '
                f'only {config.vocab_size}: the two do not belong together'
            )
        if records.tokens.positions > config.max_positions:
            raise ValueError(
                f'records and their completions need {records.tokens.positions} tokens, but '
                f'{settings.model} has {config.max_positions} positions; lower --max_length'
            )
        return Base(config, params, _fingerprint(params))
    config = GPTNeoConfig(
        records.tokenizer.vocab_size if settings.tokenizer else settings.vocabulary,
        hidden=settings.width,
        layers=settings.layers,
        heads=settings.heads,
        max_positions=max(records.tokens.positions, max_length),
        compute_dtype=compute,
        remat=settings.remat,
    )
    if not settings.pretrain_epochs:
        return Base(config, None, 'none')
    recipe = dataclasses.replace(recipe, epochs=settings.pretrain_epochs)
    folder = Path(settings.base_dir) if settings.base_dir else default_dir
    return _pretrained(config, records, recipe, folder, max_length=max_length, seed=seed)


def large_config(settings: ModelSettings) -> GPTNeoConfig:
    """The network of a checkpoint, whose weights are not read."""
    compute = jnp.bfloat16 if settings.bfloat16 else jnp.float32
    return hugging_face.load_config(settings.model, compute_dtype=compute, remat=settings.remat)


def _pretrained(
    config: GPTNeoConfig,
    records: Records,
    recipe: training.Recipe,
    folder: Path,
    *,
    max_length: int,
    seed: int,
) -> Base:
    if len(records.others) < _LEAST_RECORDS:
        raise ValueError(
            'all records of the dataset are examples, so none is left to pretrain on; lower '
            '--unique, use a larger dataset or leave out --pretrain_epochs'
        )
    identity = _identity(config, records, recipe, max_length=max_length, seed=seed)
    folder = folder / identity
    if not (folder / 'config.json').is_file():
        print(f'pretraining a base on {len(records.others):,} other records', file=sys.stderr)
        params = _pretrain(config, records, recipe, max_length=max_length, seed=seed)
        folder.mkdir(parents=True, exist_ok=True)
        records.tokenizer.save(folder)  # first: the checkpoint's config.json makes it whole
        hugging_face.save(folder, config, params, end=records.tokenizer.end)
    loaded, params = hugging_face.load(
        str(folder), compute_dtype=config.compute_dtype, remat=config.remat
    )
    return Base(loaded, params, identity)


def _pretrain(
    config: GPTNeoConfig,
    records: Records,
    recipe: training.Recipe,
    *,
    max_length: int,
    seed: int,
) -> Params:
    count = len(records.others)
    kind = np.dtypes.StringDType()
    texts = {'prompt': np.full(count, '', kind), 'completion': np.array(records.others, kind)}
    rows = batch(text.encode(Dataset(texts), records.tokenizer, max_length=max_length))
    steps = recipe.steps(count)
    program = training.Program(
        task=LanguageModeling(config),
        optimizer=recipe.optimizer(steps),
        steps=steps,
        batch_size=min(recipe.batch_size, count),
        measure_batch=1,
        smallest_subset=count,
    )
    (trained,) = training.train(
        program,
        key=jax.random.key(seed),
        masks=np.ones((1, count), bool),
        members=[0],
        examples=rows,
        targets=jax.tree.map(lambda leaf: leaf[:1], rows),
        execution=training.Execution(),
        keep_params=True,
    )
    if not np.isfinite(trained.result.measurements['loss']).all():
        raise ValueError('the base diverged in its pretraining; lower --learning_rate')
    return jax.tree.map(lambda leaf: leaf[0], trained.result.params)


def _identity(
    config: GPTNeoConfig,
    records: Records,
    recipe: training.Recipe,
    *,
    max_length: int,
    seed: int,
) -> str:
    described = {
        'network': config.to_hugging_face() | {'compute_dtype': config.compute_dtype.name},
        'recipe': dataclasses.asdict(recipe),
        'tokenizer': records.tokenizer.fingerprint,
        'texts': hashlib.sha256(json.dumps(records.others).encode()).hexdigest(),
        'max_length': max_length,
        'seed': seed,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def _fingerprint(params: Params) -> str:
    digest = hashlib.sha256()

    def add(leaf: Array) -> None:
        digest.update(np.ascontiguousarray(leaf).data)

    jax.tree.map(add, params)
    return digest.hexdigest()[:16]
