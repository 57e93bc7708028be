"""A base for language models: pretrained once on other records, and kept for all runs."""

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from influence_jax import training
from influence_jax.data import Dataset
from influence_jax.models.gpt_neo import hugging_face
from influence_jax.store.files import locked
from influence_jax.tasks.causal_lm import CausalLM
from influence_jax.tasks.language_modeling import LanguageModeling
from influence_jax.training import ComputeDtype, Program, Recipe, sequential
from influence_jax.types import Params

_LEAST_RECORDS = 2
_log = logging.getLogger(__name__)


def pretrained(
    task: CausalLM, texts: Sequence[str], *, recipe: Recipe, folder: Path, seed: int
) -> CausalLM:
    """Returns the task whose members start from a model that was trained on these texts.

    The model is kept as a checkpoint of Hugging Face's form, and read where it is there already. Of
    several processes, one makes it while the others wait.

    Args:
        task: of a network that begins afresh.
        texts: what it is pretrained on: none of the members' examples.
        recipe: how.
        folder: of pretrained models, each of which has a folder of its own there.
        seed: of the parameters and of the order of batches.

    Raises:
        ValueError: there are too few texts, or the training diverged.
        OSError: the folder cannot be written to.
    """
    if len(texts) < _LEAST_RECORDS:
        raise ValueError(
            f'{len(texts)} texts are too few to pretrain on, where all records of a dataset are '
            f'examples: use fewer of them, a larger dataset, or no pretraining'
        )
    identity = _identity(task, texts, recipe, seed)
    folder = folder / identity
    if not _is_there(folder):
        _make(task, texts, recipe, folder=folder, seed=seed)
    config = task.config
    config, params = hugging_face.load(
        str(folder), compute_dtype=config.compute_dtype, remat=config.remat
    )
    return dataclasses.replace(task, config=config, params=params, params_identity=identity)


def _is_there(folder: Path) -> bool:
    return (folder / hugging_face.CONFIG).is_file()


def _make(task: CausalLM, texts: Sequence[str], recipe: Recipe, *, folder: Path, seed: int) -> None:
    """Pretrains a base, whose folder is there as a whole or not at all; waits if others do."""
    partial, lock = (folder.with_name(f'.{folder.name}.{end}') for end in ('partial', 'lock'))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(lock, what=folder, wait=True):
        if _is_there(folder):  # another process has made it meanwhile
            return
        for remains in (partial, folder):  # of a kill; in the folder itself by an earlier version
            shutil.rmtree(remains, ignore_errors=True)
        _log.warning('pretraining a base on %s other records', f'{len(texts):,}')
        params = _pretrain(task, texts, recipe, seed)
        try:
            task.tokenizer.save(partial)
            hugging_face.save(partial, task.config, params, end=task.tokenizer.end)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _pretrain(task: CausalLM, texts: Sequence[str], recipe: Recipe, seed: int) -> Params:
    count = len(texts)
    arrays = {'prompt': [''] * count, 'completion': list(texts)}
    text = np.dtypes.StringDType()
    dataset = Dataset({name: np.array(of, text) for name, of in arrays.items()})
    rows = task.bind(dataset).examples
    steps = recipe.steps(count)
    program = Program(
        task=LanguageModeling(task.config),
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
        executor=sequential(1),
        keep_params=True,
    )
    if not np.isfinite(trained.result.measurements['loss']).all():
        raise ValueError('the base diverged in its pretraining; lower learning_rate')
    return jax.tree.map(lambda leaf: leaf[0], trained.result.params)


def _identity(task: CausalLM, texts: Sequence[str], recipe: Recipe, seed: int) -> str:
    config = task.config
    described: dict[str, Any] = {
        'network': config.to_hugging_face() | {'compute_dtype': config.compute_dtype.name},
        # Bases are trained in float32 everywhere, so that all machines have the same.
        'recipe': dataclasses.replace(recipe, compute_dtype=ComputeDtype.FLOAT32).described(),
        'tokenizer': task.tokenizer.fingerprint,
        'texts': hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest(),
        'max_length': task.max_length,
        'seed': seed,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
