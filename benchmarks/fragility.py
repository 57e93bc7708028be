"""Attribution by depth, width and weight decay: is it fragile (Basu et al. 2021, 2006.14651)?

    python -m benchmarks.fragility [--output_dir=runs/fragility] [--configurations=default,width=8]

For each configuration of the network, one setting varied at a time, on clip art with planted
near-duplicates: a truth (masks trained several times), a run that keeps its parameters, and the
methods judged by the truth: linear datamodelling score on members that left the target out, over
its ceiling, and AUROC of low margins for near-duplicates. Conjugate gradients are for chosen
targets, where EK-FAC stands beside them. OUTPUT_DIR/fragility.csv and .md are written after each
configuration; the same command continues after a stop.
"""

import csv
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging

from experiments import image_data
from experiments.settings import DataSettings, NetworkSettings, PlantingSettings
from influence_jax import Design, Recipe, Run, TerminalProgress, judging, train_ensemble, use_cores
from influence_jax.analysis.judge import Leaderboard
from influence_jax.attribution import (
    KFAC,
    TRAK,
    Attribution,
    ConjugateGradients,
    EmbeddingSimilarity,
    GradientNorm,
    Gradients,
    InfluenceFunction,
    Loss,
    PixelDistance,
)
from influence_jax.data import Dataset
from influence_jax.trees import named

_OUTPUT = flags.DEFINE_string('output_dir', 'runs/fragility', 'of runs, scores and tables')
_CONFIGURATIONS = flags.DEFINE_list('configurations', [], 'which, by name; by default all')
_UNIQUE = flags.DEFINE_integer('unique', 400, 'images that are written once')
_DUPLICATED = flags.DEFINE_integer('duplicated', 50, 'images with a near-duplicate')
_EPOCHS = flags.DEFINE_float('epochs', 24.0, 'of every member')
_MASKS = flags.DEFINE_integer('masks', 24, 'held-out masks')
_REPEATS = flags.DEFINE_integer('repeats', 5, 'members of each held-out mask')
_MEMBERS = flags.DEFINE_integer('members', 16, 'that keep their parameters')
_MODELS = flags.DEFINE_integer('models', 4, 'of these whose scores are averaged')
_CHOSEN = flags.DEFINE_integer('chosen', 24, 'targets of conjugate gradients, of one model')
_SEED = flags.DEFINE_integer('seed', 0, 'of everything')

_METHODS: tuple[Attribution, ...] = (
    Gradients(cosine=True),
    TRAK(),
    KFAC(),
    GradientNorm(),
    Loss(),
    EmbeddingSimilarity(),
    PixelDistance(),
)
_FOR_CHOSEN: tuple[Attribution, ...] = (InfluenceFunction(ConjugateGradients()), KFAC())


@dataclasses.dataclass(frozen=True)
class Configuration:
    """A network and its weight decay.

    Attributes:
        width: channels of the first stage.
        blocks: residual blocks a stage, of two convolutions each.
        weight_decay: decoupled.
    """

    width: int = 32
    blocks: int = 1
    weight_decay: float = 0.05

    @property
    def name(self) -> str:
        """What differs from the default."""
        changed = [
            f'{field.name}={getattr(self, field.name)}'
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        ]
        return ','.join(changed) or 'default'


CONFIGURATIONS = (
    Configuration(),
    *(Configuration(width=width) for width in (8, 16, 64)),
    *(Configuration(blocks=blocks) for blocks in (2, 4)),
    *(Configuration(weight_decay=decay) for decay in (0.0, 0.005, 0.5)),
)


def main(arguments: list[str]) -> None:
    """Judges every configuration, and writes the tables anew after each."""
    del arguments
    logging.set_verbosity(logging.WARNING)
    wanted = _CONFIGURATIONS.value or [one.name for one in CONFIGURATIONS]
    by_name = {one.name: one for one in CONFIGURATIONS}
    if unknown := [name for name in wanted if name not in by_name]:
        raise app.UsageError(f'--configurations={unknown[0]}: use {"; ".join(by_name)}')
    use_cores()
    planting = PlantingSettings(_DUPLICATED.value, copies=2, unique=_UNIQUE.value)
    dataset = image_data.prepare(
        DataSettings(), planting, key=jax.random.key(_SEED.value), seed=_SEED.value
    )
    lines: list[dict[str, Any]] = []
    for name in wanted:
        lines += judged(by_name[name], dataset)
        _write(lines)
    print(Path(_OUTPUT.value) / 'fragility.md')


def judged(configuration: Configuration, dataset: Dataset) -> Iterator[dict[str, Any]]:
    """Trains what is missing, and yields a line for each method."""
    directory, recipe = (
        Path(_OUTPUT.value) / configuration.name,
        Recipe(epochs=_EPOCHS.value, weight_decay=configuration.weight_decay),
    )
    task = NetworkSettings(configuration.width, blocks=configuration.blocks).task(dataset)

    def trained(name: str, members: int, **options: Any) -> Run:
        return train_ensemble(
            task,
            dataset,
            members=members,
            output_dir=directory / name,
            design=Design.BALANCED,
            recipe=recipe,
            progress=TerminalProgress(),
            **options,
        )

    seed, repeats = _SEED.value, _REPEATS.value
    truth = trained('truth', _MASKS.value * repeats, repeats=repeats, seed=seed + 1)
    models = trained('models', _MEMBERS.value, keep_params=True, seed=seed)
    out = ~truth.masks[truth.complete]
    size = sum(np.size(leaf) for leaf in named(models.params(0)).values())
    about = {
        'configuration': configuration.name,
        **dataclasses.asdict(configuration),
        'parameters': size,
        'accuracy': float(truth['correct'][truth.complete][out].mean()),
    }

    def board(methods: tuple[Attribution, ...], count: int, targets: int | None) -> Leaderboard:
        return judging.judge_run(
            models,
            held_out=truth,
            dataset=dataset,
            estimators=(),
            methods=methods,
            num_models=count,
            targets=targets,
            seed=seed,
            scores_dir=directory / 'scores',
        )

    for found in (board(_METHODS, _MODELS.value, None), board(_FOR_CHOSEN, 1, _CHOSEN.value)):
        yield from _lines(found, about)


def _lines(board: Leaderboard, about: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, why in board.left_out.items():
        print(f'{about["configuration"]}: {name} is left out: {why}')
    for row in board.rows:
        lds, over = row.lds.mean.interval(), row.over_any.interval() if row.over_any else None
        twins = row.near_duplicates
        yield about | {
            'method': row.method.name,
            'targets': row.lds.targets,
            'ceiling': board.ceilings.any.value if board.ceilings else np.nan,
            **dict(zip(('lds', 'lds_low', 'lds_high'), lds, strict=True)),
            **dict(zip(('over', 'over_low', 'over_high'), over or (np.nan,) * 3, strict=True)),
            'near_duplicates_auroc': twins.auroc.value if twins else np.nan,
            'twin_first': twins.twin_first if twins else np.nan,
            'seconds': row.cost.seconds if row.cost else np.nan,
        }


def _write(lines: list[dict[str, Any]]) -> None:
    """Writes the CSV file, and a table of scores over their ceilings by configuration."""
    directory = Path(_OUTPUT.value)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(
        {key: f'{cell:.6g}' if isinstance(cell, float) else cell for key, cell in line.items()}
        for line in lines
    )
    (directory / 'fragility.csv').write_text(text.getvalue())
    table = [
        '| configuration | parameters | accuracy | method | targets | LDS | over ceiling | AUROC |',
        '|---|---|---|---|---|---|---|---|',
    ]
    table += [
        f'| {line["configuration"]} | {line["parameters"]:,} | {line["accuracy"]:.2f} '
        f'| {line["method"]} | {line["targets"]} '
        f'| {line["lds"]:.3f} ({line["lds_low"]:.3f} .. {line["lds_high"]:.3f}) '
        f'| {line["over"]:.2f} | {line["near_duplicates_auroc"]:.3f} |'
        for line in lines
    ]
    (directory / 'fragility.md').write_text('\n'.join(table) + '\n')


if __name__ == '__main__':
    app.run(main)
