"""Judges methods by retraining: how well their scores predict models that none of them has seen.

    python -m experiments.judge --run=DIR [--held_out=DIR] [--models=DIR] [--attribution=ekfac,...]
    python -m experiments.judge --masks=FILE.npy --losses=FILE.npy --output_dir=DIR

The leaderboard is OUTPUT_DIR/leaderboard.html, .csv and .png. Of tensors alone, estimators are
judged by cross-validation over masks.
"""

import contextlib
import dataclasses
import functools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from experiments import flags, launch, remake, terminal
from influence_jax import attribution, estimators, open_run, store, tensors
from influence_jax.analysis import judge
from influence_jax.attribution import Attribution, Model, Records
from influence_jax.data import Dataset
from influence_jax.data.pixel_distance import clusters, near_duplicates
from influence_jax.ensemble import measure_subsets, train_full_data_model
from influence_jax.estimators import Columns, Estimator
from influence_jax.estimators.ensemble import average_repeats
from influence_jax.progress import TerminalProgress
from influence_jax.report import leaderboard
from influence_jax.report.leaderboard import Leaderboard
from influence_jax.run import Run
from influence_jax.training import Recipe
from influence_jax.training.checkpoint import kept_members

_TILE = 512
_MISLABELLED = 'mislabelled'
"""The array of a dataset that says which labels are known to be wrong."""


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
        attribution: methods, separated by commas; by default all that can be computed, but for
            those that are for chosen targets, and none for the word none.
        estimator: estimators, separated by commas; by default all, and none for the word none.
        assisted: of these methods the scores that the ensemble is estimated with, beside all
            others; separated by commas.
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
    assisted: str = ''
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
        for name, least in (
            ('num_models', 1),
            ('leave_out', 0),
            ('leave_out_targets', 1),
            ('leave_out_repeats', 2),
            ('resamples', 2),
        ):
            if getattr(self, name) < least:
                raise ValueError(f'{name} must be at least {least}, not {getattr(self, name)}')

    @property
    def estimators(self) -> tuple[Estimator, ...]:
        """Those that are asked for."""
        return _named(self.estimator, estimators.BUILT_IN, estimators.by_name)

    @property
    def methods(self) -> tuple[Attribution, ...]:
        """The methods of attribution that are asked for."""
        usual = tuple(one for one in attribution.BUILT_IN if not one.for_chosen_targets)
        return _named(self.attribution, usual, attribution.by_name)


def run(settings: JudgeSettings) -> Path:
    """Judges, writes the leaderboard, prints it and returns the page's path."""
    settings.check()
    launch.use_devices(0)
    board = _of_tensors(settings) if settings.masks else _of_run(settings)
    if not board.rows:
        why = '; '.join(f'{name}: {reason}' for name, reason in board.left_out.items())
        raise ValueError(f'no method could be judged ({why})')
    page = leaderboard.save(board, settings.output_dir or Path(settings.run) / 'judge')
    terminal.show(leaderboard.terminal(board), page)
    return page


def _of_tensors(settings: JudgeSettings) -> Leaderboard:
    given = tensors.as_run(settings.masks, settings.losses)
    losses, own = given.measurement('loss'), np.asarray(given.target_examples)
    rows, left_out = [], {}
    for estimator in settings.estimators:
        try:
            rows.append(
                judge.cross_validated(
                    estimator,
                    given.masks,
                    losses,
                    own,
                    key=jax.random.key(settings.seed),
                    resamples=settings.resamples,
                )
            )
        except ValueError as error:
            left_out[estimator.name] = str(error)
    notes = given.shown.notes if given.shown else ()
    facts = {
        'masks': f'{settings.masks} {list(given.masks.shape)}',
        'losses': f'{settings.losses} {list(losses.shape)}',
        'held out': 'every mask in turn, in up to 5 folds',
        'command': launch.command(),
    }
    title = f'Judged by cross-validation: {Path(settings.losses).stem}'
    return Leaderboard(title, tuple(rows), left_out=left_out, facts=facts, notes=notes)


def _of_run(settings: JudgeSettings) -> Leaderboard:
    ensemble = open_run(settings.run)
    models = open_run(settings.models) if settings.models else ensemble
    split, notes = _split(ensemble, settings)
    left_out: dict[str, str] = {}
    dataset, task = _remade(models, settings, notes)
    if models is not ensemble:
        _require_same(ensemble, models, notes)
    by = judge.Judge(
        split,
        ensemble.target_examples,
        jax.random.key(settings.seed),
        groups=None if dataset is None else _groups(dataset),
        mislabelled=None if dataset is None else _mislabelled(dataset),
        resamples=settings.resamples,
    )
    with tempfile.TemporaryDirectory() as scratch:
        computed: dict[str, Columns] = {}
        rows = []
        # What is refused is refused before anything is computed.
        sources = [
            *_estimated(split, by.self_index, settings, left_out),
            *_attributed(models, dataset, split.held_out, settings, left_out),
        ]
        for name, columns, sanity in sources:
            try:
                computed[name], cost = _computed(columns, Path(scratch) / f'{name}.npy')
                row = by(computed[name])._replace(cost=cost)
                rows.append(row._replace(sanity=sanity() if settings.sanity and sanity else None))
                launch.show_notes([f'{name}: {cost.seconds:.0f} s'])
            except ValueError as error:
                left_out[name] = str(error)
        if settings.assisted:
            columns = _assisted(split, by.self_index, computed, settings)
            computed['assisted'], cost = _computed(columns, Path(scratch) / 'assisted.npy')
            rows.append(by(computed['assisted'])._replace(cost=cost))
        leave_outs: list[judge.LeaveOut] = []
        if settings.leave_out:
            if dataset is None:
                raise ValueError('--leave_out trains: the dataset of the run must be there')
            names = [row.method.name for row in rows]
            of = {name: computed[name] for name in names}
            leave_outs = _leave_outs(of, by, models, dataset, task, settings)
    held_out = split.held_out
    if by.ceilings is None:
        notes.append(
            'The held-out masks were trained once each: without repeats the ceiling is not known.'
        )
    facts = {
        'run': str(ensemble.directory),
        'members that estimate': f'{len(split.masks)}',
        'held out': f'{len(held_out.masks)} masks, {held_out.repeats} members each, of '
        f'{settings.held_out or settings.run}',
        'examples and targets': f'{held_out.masks.shape[1]:,}, {held_out.measured.shape[2]:,}',
        'command': launch.command(),
        'commit': store.git_commit() or 'unknown',
    }
    if by.ceilings is not None:
        share = by.ceilings.linear_share.interval()
        facts['linear part of what subsets change'] = (
            f'{share.value:.2f} ({share.low:.2f} to {share.high:.2f})'
        )
    if by.curve is not None:
        pairs = zip(by.curve.members, by.curve.scores, strict=True)
        facts['LDS of the ensemble'] = ', '.join(f'{m} members {lds:.3f}' for m, lds in pairs)
    return Leaderboard(
        f'Judged by retraining: {ensemble.manifest.dataset.name}',
        tuple(rows),
        by.ceilings,
        by.ceilings_all,
        left_out,
        facts,
        tuple(dict.fromkeys(notes)),
        tuple(leave_outs),
    )


def _split(ensemble: Run, settings: JudgeSettings) -> tuple[judge.Split, list[str]]:
    notes: list[str] = []
    masks, losses = ensemble.masks, ensemble.measurement('loss')
    if not settings.held_out:
        split = judge.hold_out_last(masks, losses)
        notes.append(
            f'The last {len(split.held_out.masks)} masks of the run are held out of every estimate.'
        )
        return split, notes
    other = open_run(settings.held_out)
    _require_same(ensemble, other, notes)
    held_out = judge.held_out_members(other.masks, other.measurement('loss'))
    split = judge.split_by(masks, losses, held_out)
    if (lost := len(ensemble.complete) - len(split.masks)) > 0:
        notes.append(f'{lost} members have a held-out mask and do not estimate.')
    recipes = (one.manifest.configuration.get('recipe') for one in (ensemble, other))
    if len({str(recipe) for recipe in recipes}) > 1:
        notes.append(f'{settings.held_out} was trained by another recipe than {settings.run}.')
    return split, notes


def _require_same(run: Run, other: Run, notes: list[str]) -> None:
    """Refuses a run of other examples or targets.

    Raises:
        ValueError: ids or hashes differ.
    """
    for what in ('example', 'target'):
        ours, theirs = getattr(run, f'{what}_ids'), getattr(other, f'{what}_ids')
        if tuple(ours) != tuple(theirs):
            raise ValueError(
                f'{other.directory} has other {what}s than {run.directory} ({len(theirs)} and '
                f'{len(ours)}, or other ids): give a run of the same dataset'
            )
    if not (run.manifest.has_digests and other.manifest.has_digests):
        notes.append('One run is of an earlier version: ids were compared, hashes cannot be.')
    elif run.manifest.dataset.fingerprint != other.manifest.dataset.fingerprint:
        raise ValueError(
            f'{other.directory} has examples of the same ids as {run.directory} but of other '
            f'contents (SHA-256): give a run of the same dataset'
        )


def _remade(run: Run, settings: JudgeSettings, notes: list[str]) -> tuple[Dataset | None, Any]:
    """The dataset and the task; None, and a note, where they are not needed and not there."""
    try:
        return remake.dataset_and_task(run, data_dir=settings.data_dir)
    except (ValueError, OSError) as error:
        if settings.leave_out or settings.attribution not in ('', 'none'):
            raise
        notes.append(f'Without the dataset: {error}.')
        return None, None


def _groups(dataset: Dataset) -> Int[np.ndarray, ' N'] | None:
    """Near-duplicates that the dataset names or, of images, that pixels show."""
    if dataset.has_near_duplicate.any():
        return dataset.clusters
    try:
        pairs = near_duplicates(dataset)
    except ValueError:  # no images
        return None
    return clusters(pairs, len(dataset)) if len(pairs) else None


def _mislabelled(dataset: Dataset) -> Bool[np.ndarray, ' N'] | None:
    found = dataset.arrays.get(_MISLABELLED) if isinstance(dataset.arrays, Mapping) else None
    return None if found is None or found.dtype != bool else found


Sanity = Callable[[], judge.Sanity]
Source = tuple[str, Columns, Sanity | None]


def _estimated(
    split: judge.Split,
    own: Int[np.ndarray, ' T'],
    settings: JudgeSettings,
    left_out: dict[str, str],
) -> Iterator[Source]:
    members = len(average_repeats(split.masks, split.losses)[0])
    for estimator in settings.estimators:
        if members < estimator.least_members:
            left_out[estimator.name] = f'needs {estimator.least_members} members, not {members}'
            continue
        columns = judge.estimate(split.masks, split.losses, own, estimator=estimator)
        yield estimator.name, columns, None


def _assisted(
    split: judge.Split,
    own: Int[np.ndarray, ' T'],
    computed: Mapping[str, Columns],
    settings: JudgeSettings,
) -> Columns:
    """The ensemble's estimate with scores beside it.

    Raises:
        ValueError: there are no such scores.
    """
    names = [name.strip() for name in settings.assisted.split(',')]
    for name in names:
        if name not in computed:
            raise ValueError(
                f'--assisted={settings.assisted}: there are no scores {name!r}, only '
                f'{", ".join(computed)}; add it to --attribution'
            )
    estimator = estimators.with_scores({name: computed[name] for name in names})
    return judge.estimate(split.masks, split.losses, own, estimator=estimator)


def _attributed(
    run: Run,
    dataset: Dataset | None,
    held_out: judge.HeldOut,
    settings: JudgeSettings,
    left_out: dict[str, str],
) -> Iterator[Source]:
    """Each method's scores; why there are none of the others."""
    if not settings.methods:
        return
    try:
        if dataset is None:
            raise ValueError('the dataset of the run cannot be made again')
        kept = kept_members(run.directory / store.PARAMS)
        if not len(kept):
            raise ValueError(
                f'{run.directory} kept no parameters: train models with --keep_params, and give '
                f'their directory as --models'
            )
        seen = {row.tobytes() for row in np.packbits(held_out.masks, axis=1)}
        masks = np.packbits(np.asarray(run.masks), axis=1)
        usable = [
            int(member)
            for member in kept
            if member in run.complete and masks[member].tobytes() not in seen
        ]
        if not usable:
            raise ValueError(f'every model of {run.directory} has diverged or has a held-out mask')
        models, records = attribution.read_run(run, dataset, usable[: settings.num_models])
    except ValueError as error:
        if settings.attribution:
            raise
        left_out.update({method.method.name: str(error) for method in settings.methods})
        return
    for method in settings.methods:
        name = method.method.name
        try:
            columns = method(models, records)
        except ValueError as error:
            left_out[name] = str(error)
            continue
        sanity = functools.partial(
            _sanity, method, models[:1], records, run=run, dataset=dataset, settings=settings
        )
        yield name, columns, sanity


def _sanity(
    method: Attribution,
    models: list[Model],
    records: Records,
    *,
    run: Run,
    dataset: Dataset,
    settings: JudgeSettings,
) -> judge.Sanity:
    """Compares a model's scores with those of models that know nothing."""
    (model,) = models
    own, key = run.target_examples, jax.random.key(settings.seed)
    targets = judge.sampled_targets(records.num_targets, key=key)
    trained = method(models, records)

    def agreement(variables: Any) -> float:
        other = dataclasses.replace(model, variables=variables)
        return judge.entries_agreement(trained, method([other], records), own, targets)

    initial = agreement(model.task.init(key=key))
    permuted = _params_of_permuted_labels(run, dataset, settings.seed)
    return judge.Sanity(initial, None if permuted is None else agreement(permuted))


@functools.lru_cache(maxsize=1)
def _params_of_permuted_labels(run: Run, dataset: Dataset, seed: int) -> Any:
    """Parameters of a model that was trained on the labels in another order; None without any."""
    if not isinstance(dataset.arrays, Mapping) or 'label' not in dataset.arrays:
        return None
    order = np.random.default_rng(seed).permutation(len(dataset))
    arrays = {**dataset.arrays, 'label': dataset.array('label')[order]}
    with tempfile.TemporaryDirectory() as scratch:
        trained = train_full_data_model(
            run.task(),
            Dataset(arrays, ids=dataset.ids, class_names=dataset.class_names),
            output_dir=Path(scratch) / 'permuted',
            recipe=_recipe(run),
            seed=seed,
            keep_params=True,
        )
        return trained.params(0)


def _leave_outs(
    scores: Mapping[str, Columns],
    by: judge.Judge,
    run: Run,
    dataset: Dataset,
    task: Any,
    settings: JudgeSettings,
) -> list[judge.LeaveOut]:
    generator = np.random.default_rng(settings.seed)
    targets = np.sort(generator.permutation(len(by.self_index))[: settings.leave_out_targets])

    def train(masks: Bool[np.ndarray, 'M N']) -> Float[np.ndarray, 'M T']:
        progress = TerminalProgress()
        measured = measure_subsets(
            task, dataset, masks, recipe=_recipe(run), seed=settings.seed, progress=progress
        )
        return measured['loss']

    return judge.leave_out(
        {name: np.asarray(columns.column(targets).values) for name, columns in scores.items()},
        targets,
        by.self_index[targets],
        train,
        count=settings.leave_out,
        repeats=settings.leave_out_repeats,
        key=jax.random.key(settings.seed),
    )


def _recipe(run: Run) -> Recipe:
    return Recipe(**run.manifest.configuration['recipe'])


def _computed(columns: Columns, path: Path) -> tuple[Columns, judge.Cost]:
    """Computes all columns once, into a file that they are read from, and measures what it takes.

    Raises:
        ValueError: a score is not finite.
    """
    shape = columns.examples, columns.targets
    values = np.lib.format.open_memmap(path, 'w+', np.float32, shape)
    with _memory() as peak:
        start = time.perf_counter()
        for block, influence in columns.tiles(tile=_TILE):
            values[:, block] = influence.values
        seconds = time.perf_counter() - start

    def read(targets: Int[np.ndarray, ' t']) -> Float[np.ndarray, 'N t']:
        return np.asarray(values[:, targets])

    stored = Columns(*shape, read, columns.method, columns.unit)
    return stored, judge.Cost(seconds, peak.get('bytes'))


@contextlib.contextmanager
def _memory() -> Iterator[dict[str, int]]:
    """Watches this process's memory; `bytes` is the most beyond that of the beginning."""
    found: dict[str, int] = {}
    statm, ended = Path('/proc/self/statm'), threading.Event()
    if not statm.exists():  # not every system says
        yield found
        return

    def resident() -> int:
        return int(statm.read_text().split()[1]) * 4096

    before = resident()
    found['bytes'] = 0

    def watch() -> None:
        while not ended.wait(0.01):
            found['bytes'] = max(found['bytes'], resident() - before)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def _named(names: str, every: tuple[Any, ...], by_name: Callable[[str], Any]) -> tuple[Any, ...]:
    """Those of a list separated by commas: all by default, none for 'none'."""
    if names.strip().lower() == 'none':
        return ()
    asked = [name.strip() for name in names.split(',') if name.strip()]
    return tuple(by_name(name) for name in asked) if asked else every


if __name__ == '__main__':
    flags.define(JudgeSettings())
    launch.run(lambda: run(flags.read(JudgeSettings)))
