"""Judges methods by retraining: how well their scores predict models that none of them has seen.

    python -m experiments.judge --run=DIR [--held_out=DIR] [--models=DIR] [--attribution=ekfac,...]
    python -m experiments.judge --masks=FILE.npy --losses=FILE.npy --output_dir=DIR

The leaderboard is OUTPUT_DIR/leaderboard.html, .csv and .png; the scores are kept in
OUTPUT_DIR/scores, so that the same command continues after a stop. Of tensors alone, estimators
are judged by cross-validation over masks.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments import flags, launch, remake, terminal
from influence_jax import attribution, estimators, judging, open_run, store, tensors
from influence_jax.analysis.judge import Leaderboard, Row
from influence_jax.attribution import Attribution
from influence_jax.attribution.method import GIB
from influence_jax.data import Dataset
from influence_jax.estimators import Estimator
from influence_jax.judging import Retraining
from influence_jax.progress import TerminalProgress
from influence_jax.report import leaderboard
from influence_jax.run import Run


@dataclasses.dataclass(frozen=True)
class JudgeSettings:
    """What is judged, and by what.

    Attributes:
        run: directory of the run whose members estimate.
        held_out: directory of a run of the same dataset and recipe, best with --repeats, whose
            members judge; by default the last quarter of the masks of --run.
        models: directory of a run of the same dataset with --keep_params, whose models are
            attributed by; by default --run.
        num_models: how many of them.
        attribution: methods, separated by commas; by default those that score all targets for a
            few passes over the examples, as far as they can be computed, and none for the word
            none.
        estimator: estimators, separated by commas; by default all, and none for the word none.
        scores: files NAME.npy of scores, separated by commas, as they are kept in
            OUTPUT_DIR/scores, to be judged too.
        assisted: of these methods the scores that the ensemble is estimated with, beside all
            others; separated by commas.
        targets: judge on so many targets, drawn at random with --seed, or on those of these ids or
            positions, separated by commas; by default on all.
        memory: GiB that a method may hold; the more, the fewer passes over the examples.
        data_dir: folder of the data, where it is no longer the one of the run's command.
        masks: instead of --run: .npy file, bool [M N]; see experiments.estimate.
        losses: .npy file, floating [M T], lower being better.
        leave_out: train without so many of the strongest examples of a few targets, by each
            method; 0 trains nothing.
        leave_out_targets: how many targets.
        leave_out_repeats: models a subset.
        sanity: compare scores with those of random weights and of a model trained on permuted
            labels.
        resamples: of the bootstrap.
        seed: of everything that is drawn.
        output_dir: of the leaderboard; by default RUN/judge.
    """

    run: str = ''
    held_out: str = ''
    models: str = ''
    num_models: int = 4
    attribution: str = ''
    estimator: str = ''
    scores: str = ''
    assisted: str = ''
    targets: str = ''
    memory: float = 2.0
    data_dir: str | None = None
    masks: str = ''
    losses: str = ''
    leave_out: int = 0
    leave_out_targets: int = 3
    leave_out_repeats: int = 5
    sanity: bool = False
    resamples: int = 400
    seed: int = 0
    output_dir: str = ''

    def check(self) -> None:
        """Refuses settings that do not say what is judged, or numbers out of range.

        Raises:
            ValueError: naming the first.
        """
        of_tensors = bool(self.masks or self.losses)
        if of_tensors == bool(self.run):
            raise ValueError('give --run=DIR, or --masks=FILE.npy and --losses=FILE.npy')
        if of_tensors and not (self.masks and self.losses and self.output_dir):
            raise ValueError('--masks, --losses and --output_dir go together: give all three')
        if of_tensors:
            known = {'masks', 'losses', 'estimator', 'resamples', 'seed', 'output_dir'}
            for field in dataclasses.fields(self):
                if field.name not in known and getattr(self, field.name) != field.default:
                    raise ValueError(f'--{field.name} is of no use with --masks: omit it')
        for name, least in (('num_models', 1), ('leave_out', 0), ('resamples', 2)):
            if getattr(self, name) < least:
                raise ValueError(f'{name} must be at least {least}, not {getattr(self, name)}')
        if not self.memory > 0:
            raise ValueError(f'memory={self.memory} must be positive')
        _ = self.retraining

    @property
    def estimators(self) -> tuple[Estimator, ...]:
        """Those that are asked for."""
        return _named(self.estimator, estimators.BUILT_IN, estimators.by_name)

    @property
    def methods(self) -> tuple[Attribution, ...] | None:
        """The methods of attribution that are asked for; None for all that can be computed."""
        return _named(self.attribution, None, attribution.by_name)

    @property
    def chosen_targets(self) -> int | list[int | str] | None:
        """How many targets, or which; None for all."""
        some = _listed(self.targets)
        if len(some) == 1 and some[0].isdigit():
            return int(some[0])
        return [int(one) if one.isdigit() else one for one in some] or None

    @property
    def retraining(self) -> Retraining | None:
        """What is trained without strong examples."""
        if not self.leave_out:
            return None
        return Retraining(self.leave_out, self.leave_out_targets, self.leave_out_repeats)

    @property
    def directory(self) -> Path:
        """Of what is written."""
        return Path(self.output_dir or Path(self.run) / 'judge')


def run(settings: JudgeSettings) -> Path:
    """Judges, writes the leaderboard, prints it and returns the page's path."""
    settings.check()
    launch.use_devices(0)
    board = _of_tensors(settings) if settings.masks else _of_run(settings)
    if not board.rows:
        why = '; '.join(f'{name}: {reason}' for name, reason in board.left_out.items())
        raise ValueError(f'no method could be judged ({why})')
    board = dataclasses.replace(board, facts={**board.facts, 'command': launch.command()})
    page = leaderboard.save(board, settings.directory)
    terminal.show(leaderboard.terminal(board), page)
    return page


def _of_tensors(settings: JudgeSettings) -> Leaderboard:
    given = tensors.as_run(settings.masks, settings.losses)
    losses = given.measurement('loss')
    board = judging.judge_members(
        given.masks,
        losses,
        np.asarray(given.target_examples),
        estimators=settings.estimators,
        title=f'Judged by cross-validation: {Path(settings.losses).stem}',
        resamples=settings.resamples,
        seed=settings.seed,
    )
    facts = {
        'masks': f'{settings.masks} {list(given.masks.shape)}',
        'losses': f'{settings.losses} {list(losses.shape)}',
    }
    notes = given.shown.notes if given.shown else ()
    return dataclasses.replace(board, facts=facts | dict(board.facts), notes=notes)


def _of_run(settings: JudgeSettings) -> Leaderboard:
    ensemble = open_run(settings.run)
    models = open_run(settings.models) if settings.models else ensemble
    dataset, notes = _remade(models, settings)
    board = judging.judge_run(
        ensemble,
        held_out=open_run(settings.held_out) if settings.held_out else None,
        models=models,
        dataset=dataset,
        estimators=settings.estimators,
        methods=settings.methods,
        num_models=settings.num_models,
        scores=[Path(name) for name in _listed(settings.scores)],
        assisted=_listed(settings.assisted),
        targets=settings.chosen_targets,
        memory=int(settings.memory * GIB),
        sanity=settings.sanity,
        retraining=settings.retraining,
        resamples=settings.resamples,
        seed=settings.seed,
        scores_dir=settings.directory / store.SCORES,
        judged=_show,
        progress=TerminalProgress(),
    )
    return dataclasses.replace(board, notes=(*notes, *board.notes))


def _remade(run: Run, settings: JudgeSettings) -> tuple[Dataset | None, list[str]]:
    """The dataset; None, and a note, where it is not needed and cannot be made again."""
    try:
        return remake.dataset_and_task(run, data_dir=settings.data_dir)[0], []
    except (ValueError, OSError) as error:
        if settings.leave_out or settings.methods:
            raise
        return None, [f'Without the dataset: {error}.']


def _show(row: Row) -> None:
    seconds = f'{row.cost.seconds:.0f} s' if row.cost else ''
    launch.show_notes([f'{row.method.name}: LDS {row.lds.mean.value:.3f}, {seconds}'])


def _listed(names: str) -> list[str]:
    return [name.strip() for name in names.split(',') if name.strip()]


def _named(names: str, every: Any, by_name: Callable[[str], Any]) -> Any:
    """Those of a list separated by commas: `every` by default, none for 'none'."""
    if names.strip().lower() == 'none':
        return ()
    return tuple(map(by_name, _listed(names))) or every


if __name__ == '__main__':
    flags.define(JudgeSettings())
    launch.run(lambda: run(flags.read(JudgeSettings)))
