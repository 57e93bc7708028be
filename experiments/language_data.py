"""The records of an ensemble of language models, and the task that its members train."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from experiments.language_settings import Counts, ModelSettings, TextSettings
from influence_jax import data
from influence_jax.data.near_duplicates import inject, text_change, unused, without_repeats
from influence_jax.data.text import encode
from influence_jax.data.text.tokenizer import Tokenizer, from_pretrained, train_byte_bpe
from influence_jax.models.gpt_neo import GPTNeoConfig, hugging_face
from influence_jax.tasks import CausalLM, pretrained
from influence_jax.training import Recipe


class Records(NamedTuple):
    """What members train on, and what is left for a base to be pretrained on.

    dataset: N records, near-duplicates among them.
    tokenizer: of all models.
    others: the source's records that are not in `dataset`; empty where all are.
    """

    dataset: data.Dataset
    tokenizer: Tokenizer
    others: tuple[str, ...]


def prepare(
    settings: TextSettings,
    model: ModelSettings,
    *,
    seed: int,
    ids: tuple[str, ...] | None = None,
) -> Records:
    """Reads the source, chooses records and injects near-duplicates.

    Args:
        settings: which records.
        model: whose tokenizer changes tokens of near-duplicates.
        seed: of the choice and of the near-duplicates.
        ids: of the records of the run that is continued, if there is one: where these are what the
            same flags chose in earlier versions, they are chosen again.

    Raises:
        ValueError: the source is not of texts, or has too few records.
    """
    source = read(settings)
    if ids is not None and settings.counts() != settings.counts_before():
        with contextlib.suppress(ValueError):  # there may be too few for what they meant before
            before = _records(source, settings, settings.counts_before(), model, seed=seed)
            if before.dataset.ids == ids:
                return before
    settings.check_near_duplicates()
    return _records(source, settings, settings.counts(), model, seed=seed)


def read(settings: TextSettings) -> data.Dataset:
    """Reads the source; ValueError where it does not hold texts."""
    source = data.load(settings.dataset, data_dir=settings.data_dir)
    try:
        source.array('completion')
    except ValueError as error:
        raise ValueError(
            f'--dataset={settings.dataset}: {error}; language models need texts: wordnet, nq_open '
            'or a .jsonl file'
        ) from error
    return source


def _records(
    source: data.Dataset, settings: TextSettings, counts: Counts, model: ModelSettings, *, seed: int
) -> Records:
    as_it_is = settings.is_own and counts.is_everything
    if not as_it_is:
        source = without_repeats(source)
    if model.is_tiny and not model.tokenizer:
        tokenizer = train_byte_bpe(source.texts, model.vocabulary)
    else:
        tokenizer = from_pretrained(model.tokenizer or model.model)
    if as_it_is:
        return Records(source, tokenizer, ())
    change = text_change(
        settings.duplication,
        tokenizer=tokenizer,
        count=settings.duplication_count or None,
        max_length=settings.max_length,
    )
    dataset = inject(
        source,
        change,
        unique=counts.records(len(source), copies=0),
        duplicated=counts.duplicated,
        copies=settings.copies,
        seed=seed,
    )
    texts = source.texts
    return Records(dataset, tokenizer, tuple(texts[i] for i in unused(source, dataset)))


def task_of(
    settings: ModelSettings,
    records: Records,
    recipe: Recipe,
    *,
    default_dir: Path,
    max_length: int,
    extract: bool,
    seed: int,
) -> CausalLM:
    """Makes the task: from a checkpoint, from a base pretrained once, or afresh.

    Args:
        settings: which model.
        records: what members train on, and what a base may.
        recipe: of the pretraining, but for its length.
        default_dir: for pretrained bases, where the settings name none.
        max_length: longest record in tokens.
        extract: whether members complete the prompts.
        seed: of the pretraining.
    """
    compute = jnp.bfloat16 if settings.bfloat16 else jnp.float32
    common: dict[str, Any] = {'lora': settings.lora, 'max_length': max_length, 'extract': extract}
    tokenizer = records.tokenizer
    if not settings.is_tiny:
        config, params = hugging_face.load(
            settings.model, compute_dtype=compute, remat=settings.remat
        )
        return CausalLM(config, tokenizer, params, **common)
    positions = encode(records.dataset, tokenizer, max_length=max_length).positions
    config = GPTNeoConfig(
        tokenizer.vocab_size if settings.tokenizer else settings.vocabulary,
        hidden=settings.width,
        layers=settings.layers,
        heads=settings.heads,
        max_positions=max(positions, max_length),
        compute_dtype=compute,
        remat=settings.remat,
    )
    task = CausalLM(config, tokenizer, max_length=max_length, extract=extract)
    if not settings.pretrain_epochs:
        return task
    based = pretrained(
        task,
        records.others,
        recipe=dataclasses.replace(recipe, epochs=settings.pretrain_epochs),
        folder=Path(settings.base_dir) if settings.base_dir else default_dir,
        seed=seed,
    )
    return dataclasses.replace(based, lora=settings.lora)


def longest(records: Records, max_length: int) -> int:
    """Tokens of the longest record."""
    return encode(records.dataset, records.tokenizer, max_length=max_length).tokens.shape[1]


def facts(task: CausalLM, dataset: data.Dataset) -> dict[str, str]:
    """Returns rows for the report's table: some changes choose records with longer answers."""
    records = task.encode(dataset)
    lengths = records.lengths - records.prompt_lengths
    duplicated = dataset.has_near_duplicate
    if not duplicated.any() or duplicated.all():
        return {}
    means = (lengths[~duplicated].mean(), lengths[duplicated & dataset.is_original].mean())
    return {'mean tokens of an answer': f'{means[0]:.1f} unique, {means[1]:.1f} near-duplicated'}
