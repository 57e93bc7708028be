"""What the judge trains itself: models without a target's strongest examples, models of nothing."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from influence_jax.analysis import judge
from influence_jax.attribution import Attribution, Model, Records
from influence_jax.data.dataset import Dataset
from influence_jax.ensemble import measure_subsets, train_full_data_model
from influence_jax.estimators import Columns
from influence_jax.progress import Progress
from influence_jax.run import Run
from influence_jax.training import Recipe


@dataclasses.dataclass(frozen=True)
class Retraining:
    """How many models are trained without the strongest examples of how many targets.

    Attributes:
        count: strongest examples of each target that are left out.
        targets: how many targets, drawn at random.
        repeats: models a subset.
    """

    count: int
    targets: int = 3
    repeats: int = 5

    def __post_init__(self) -> None:
        for name, least in (('count', 1), ('targets', 1), ('repeats', 2)):
            if getattr(self, name) < least:
                raise ValueError(f'{name} must be at least {least}, not {getattr(self, name)}')


def leave_outs(
    scores: Mapping[str, Columns],
    self_index: Int[np.ndarray, ' T'],
    chosen: Int[np.ndarray, ' T'],
    run: Run,
    dataset: Dataset,
    retraining: Retraining,
    *,
    seed: int,
    progress: Progress | None = None,
) -> list[judge.LeaveOut]:
    """Retrains without the strongest examples of random targets, by each method.

    Args:
        scores: columns of the targets, by the method's name.
        self_index: `[T]` position of the target's own example, -1 where it is none.
        chosen: `[T]` position of the target among all of the run.
        run: whose task and recipe are trained.
        dataset: of the run; its examples are the targets.
        retraining: how much.
        seed: of targets, random examples and models.
        progress: of the training.
    """
    generator = np.random.default_rng(seed)
    targets = np.sort(generator.permutation(len(self_index))[: retraining.targets])

    def train(masks: Bool[np.ndarray, 'M N']) -> Float[np.ndarray, 'M T']:
        measured = measure_subsets(
            run.task(), dataset, masks, recipe=recipe_of(run), seed=seed, progress=progress
        )
        return measured['loss'][:, chosen]

    return judge.leave_out(
        {name: np.asarray(columns.column(targets).values) for name, columns in scores.items()},
        targets,
        self_index[targets],
        train,
        count=retraining.count,
        repeats=retraining.repeats,
        key=jax.random.key(seed),
    )


def sanity_check(
    method: Attribution,
    model: Model,
    records: Records,
    self_index: Int[np.ndarray, ' T'],
    permuted: Callable[[], Any],
    *,
    seed: int,
) -> judge.Sanity:
    """Compares a model's scores with those of models that know nothing.

    Args:
        method: whose scores.
        model: trained.
        records: examples and targets.
        self_index: `[T]` position of the target's own example, -1 where it is none.
        permuted: returns parameters that were trained on permuted labels; None without labels.
        seed: of initial parameters, and of the targets that are compared.
    """
    key = jax.random.key(seed)
    targets = judge.sampled_targets(records.num_targets, key=key)
    trained = method([model], records)

    def agreement(variables: Any) -> float:
        other = method([dataclasses.replace(model, variables=variables)], records)
        return judge.entries_agreement(trained, other, self_index, targets)

    initial, other = agreement(model.task.init(key=key)), permuted()
    return judge.Sanity(initial, None if other is None else agreement(other))


@functools.lru_cache(maxsize=1)
def params_of_permuted_labels(run: Run, dataset: Dataset, seed: int) -> Any:
    """Trains a model on the labels in another order, and returns its parameters; None without."""
    if not isinstance(dataset.arrays, Mapping) or 'label' not in dataset.arrays:
        return None
    order = np.random.default_rng(seed).permutation(len(dataset))
    arrays = {**dataset.arrays, 'label': dataset.array('label')[order]}
    with tempfile.TemporaryDirectory() as scratch:
        trained = train_full_data_model(
            run.task(),
            Dataset(arrays, ids=dataset.ids, class_names=dataset.class_names),
            output_dir=Path(scratch) / 'permuted',
            recipe=recipe_of(run),
            seed=seed,
            keep_params=True,
        )
        return trained.params(0)


def recipe_of(run: Run) -> Recipe:
    """Returns how the members of a run were trained."""
    return Recipe.of_manifest(run.manifest.configuration['recipe'])
