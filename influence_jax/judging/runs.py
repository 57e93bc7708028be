"""Judges finished runs: members are held out, scores computed, each judged by the same members."""

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Int

from influence_jax import attribution, store
from influence_jax import estimators as estimating
from influence_jax.analysis import judge
from influence_jax.attribution import Attribution
from influence_jax.attribution.detectors import DETECTORS, Detector
from influence_jax.attribution.method import GIB
from influence_jax.data.dataset import Dataset
from influence_jax.data.pixel_distance import clusters, near_duplicates
from influence_jax.estimators import Columns, Estimator
from influence_jax.judging import sources
from influence_jax.judging.kept import kept_columns, opened_columns
from influence_jax.judging.retraining import Retraining, leave_outs
from influence_jax.progress import Progress
from influence_jax.run import Run
from influence_jax.store import ScoreAxes
from influence_jax.store.files import locked
from influence_jax.types import Masks, Measurement, UnitTask

USUAL_METHODS: tuple[Attribution, ...] = tuple(
    map(
        attribution.by_name,
        (
            'cosine',
            'dot',
            'ekfac',
            'kfac',
            'trak',
            'logra',
            'dropout',
            'embedding',
            'pixel_distance',
            'bm25',
            'gradient_norm',
            'loss',
        ),
    )
)
"""Those that score all targets for a few passes over the examples; others are asked for by name."""


def judge_run(
    run: Run,
    *,
    held_out: Run | None = None,
    models: Run | None = None,
    dataset: Dataset | None = None,
    estimators: Sequence[Estimator] = estimating.BUILT_IN,
    methods: Sequence[Attribution] | None = None,
    detectors: Sequence[Detector] = DETECTORS,
    num_models: int = 4,
    scores: Sequence[Path] = (),
    assisted: Sequence[str] = (),
    targets: int | Sequence[int | str] | None = None,
    memory: int = 2 * GIB,
    sanity: bool = False,
    retraining: Retraining | None = None,
    resamples: int = 400,
    seed: int = 0,
    scores_dir: Path | str | None = None,
    judged: Callable[[judge.Row], None] | None = None,
    progress: Progress | None = None,
) -> judge.Leaderboard:
    """Judges estimates from a run's members, and scores of models, by members held out.

    Args:
        run: whose members estimate.
        held_out: of the same dataset and recipe, best with repeats, whose members judge; by default
            the last quarter of the masks of `run`.
        models: of the same dataset, with parameters, whose models are attributed by; by default
            `run`.
        dataset: of the run: for attribution, near-duplicates and wrong labels.
        estimators: which are judged.
        methods: of attribution; by default all of `USUAL_METHODS` that can be computed.
        detectors: of wrong labels, judged where the dataset says which are wrong.
        num_models: whose scores are averaged.
        scores: files of scores of the same examples and targets, judged too; see
            `store.open_scores`.
        assisted: names of methods whose scores the ensemble is estimated with, beside all others.
        targets: how many are drawn at random, or which, by id or position; by default all.
        memory: bytes that a method may hold at once; the more, the fewer passes over the examples.
        sanity: compare scores with those of random weights, and of permuted labels.
        retraining: train without the strongest examples of a few targets.
        resamples: of the bootstrap.
        seed: of everything that is drawn.
        scores_dir: where computed scores are kept, so that the same call continues after a stop;
            by default they are not kept.
        judged: is called with each line when it is there.
        progress: of retraining.

    Raises:
        ValueError: runs of other examples or targets, too few members, or nothing of what was named
            can be computed.
        RunLocked: another process judges with this `scores_dir`.
    """
    models, notes, left_out = models or run, list[str](), dict[str, str]()
    if retraining is not None:
        _check_retraining(retraining, models, dataset)
    chosen = choose_targets(run, targets, seed=seed)
    split = _split(run, held_out, chosen, notes)
    if models is not run:
        _require_same(run, models, notes)
    by = judge.Judge(
        split,
        run.target_examples[chosen],
        jax.random.key(seed),
        groups=None if dataset is None else _groups(dataset),
        mislabelled=None if dataset is None else dataset.mislabelled,
        resamples=resamples,
    )
    axes = ScoreAxes.of(run.manifest, chosen.tolist())
    computed: dict[str, tuple[Columns, str]] = {}
    rows: list[judge.Row] = []

    def add(row: judge.Row) -> None:
        rows.append(row)
        if judged is not None:
            judged(row)

    with _scratch(Path(scores_dir) if scores_dir else None) as scratch:
        directory = Path(scores_dir or scratch)

        def compute(source: sources.Source) -> None:
            name, identity = source.columns.method.name, source.identity
            columns, cost = kept_columns(
                source.columns,
                directory if source.keep else scratch,
                axes=axes,
                identity=identity,
                block=source.block,
            )
            row = by(columns)._replace(cost=cost)
            computed[name] = columns, identity
            if sanity and source.sanity:
                try:
                    row = row._replace(sanity=source.sanity())
                except ValueError as error:
                    notes.append(f'{name} has no sanity check: {error}.')
            add(row)

        for path in scores:
            columns, cost, identity = opened_columns(Path(path), axes)
            name = columns.method.name
            computed[Path(path).stem if name in computed else name] = columns, identity
            add(by(columns)._replace(cost=cost))
        # What is refused is refused before anything is computed.
        found = list(sources.estimated(split, by.self_index, estimators, left_out))
        wanted = USUAL_METHODS if methods is None else methods
        try:
            found += sources.attributed(
                models,
                dataset,
                split.held_out,
                wanted,
                left_out,
                chosen=chosen,
                self_index=by.self_index,
                num_models=num_models,
                memory=memory,
                seed=seed,
            )
        except ValueError as error:
            if methods is not None:
                raise
            left_out |= {method.method.name: str(error) for method in wanted}
        there = [*computed, *(source.columns.method.name for source in found)]
        if unknown := [name for name in assisted if name not in there]:
            raise ValueError(
                f'assisted={",".join(assisted)}: there are no scores {unknown[0]!r}, only '
                f'{", ".join(there)}; add it to the methods (--attribution)'
            )
        while found:
            source = found.pop(0)  # and with it what its method holds
            try:
                compute(source)
            except ValueError as error:
                left_out[source.columns.method.name] = str(error)
        if assisted:
            try:
                compute(sources.assisted(split, by.self_index, computed, assisted))
            except ValueError as error:
                left_out['assisted'] = str(error)
        detections: list[judge.Detection] = []
        if dataset is not None and dataset.mislabelled is not None:
            try:
                detections += sources.detected(
                    models,
                    dataset,
                    split.held_out,
                    detectors,
                    left_out,
                    num_models=num_models,
                    memory=memory,
                    key=jax.random.key(seed),
                )
            except ValueError as error:  # no models, which methods have said already
                left_out |= {one.method.name: str(error) for one in detectors}
        removed: list[judge.LeaveOut] = []
        if retraining is not None and dataset is not None and computed:
            removed = leave_outs(
                {name: columns for name, (columns, _) in computed.items()},
                by.self_index,
                chosen,
                models,
                dataset,
                retraining,
                seed=seed,
                progress=progress,
            )
    if by.ceilings is None:
        notes.append(
            'The held-out masks were trained once each: without repeats the ceiling is not known.'
        )
    return judge.Leaderboard(
        f'Judged by retraining: {run.manifest.dataset.name}',
        tuple(rows),
        by.ceilings,
        by.ceilings_all,
        left_out,
        _facts(run, held_out or run, by, targets, seed),
        tuple(dict.fromkeys(notes)),
        tuple(removed),
        tuple(detections),
        _unit(run),
    )


@contextlib.contextmanager
def _scratch(beside: Path | None) -> Iterator[Path]:
    """Gives a directory for scores that are not kept, and removes it.

    Below that of the scores that are kept it has one name, by which the next call finds, and
    removes, what a kill has left: up to 4 N T bytes a method.
    """
    if beside is None:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    made = [path for path in (beside, *beside.parents) if not path.exists()]
    beside.mkdir(parents=True, exist_ok=True)
    directory = beside / '.scratch'
    try:
        with locked(beside / '.scratch.lock', what=beside):
            shutil.rmtree(directory, ignore_errors=True)
            try:
                yield directory
            finally:
                shutil.rmtree(directory, ignore_errors=True)
    finally:
        for path in made:  # those in which nothing is kept: what is refused leaves nothing
            with contextlib.suppress(OSError):
                path.rmdir()


def _unit(run: Run) -> str:
    """Of the loss; nats where the task cannot be made again and so does not say."""
    try:
        task = run.task()
    except ValueError:
        return 'nats'
    return task.units.get('loss', '') if isinstance(task, UnitTask) else 'nats'


def _check_retraining(retraining: Retraining, run: Run, dataset: Dataset | None) -> None:
    if dataset is None:
        raise ValueError('leaving examples out trains: give the dataset of the run')
    if run.target_ids != run.example_ids:
        raise ValueError(
            f'the targets of {run.directory} are not its examples, which are what is measured of '
            f'models trained anew: judge without leaving examples out'
        )
    if retraining.count >= len(dataset) - 1:
        raise ValueError(f'count={retraining.count} must be at most {len(dataset) - 2}')
    run.task()  # refuses what cannot be made again


def judge_members(
    masks: Masks,
    losses: Measurement,
    self_index: Int[np.ndarray, ' T'],
    *,
    estimators: Sequence[Estimator] = estimating.BUILT_IN,
    title: str = 'Judged by cross-validation',
    resamples: int = 400,
    seed: int = 0,
) -> judge.Leaderboard:
    """Judges estimators by the members that they estimate from, each mask held out in turn.

    Args:
        masks: `[M N]`.
        losses: `[M T]`.
        self_index: `[T]` position of the target's own example, -1 where it is none.
        estimators: those that need more members than are left are named in `left_out`.
        title: of the leaderboard.
        resamples: of the bootstrap.
        seed: of the folds and the bootstrap.
    """
    rows, left_out, key = [], {}, jax.random.key(seed)
    for estimator in estimators:
        try:
            row = judge.cross_validated(
                estimator, masks, losses, self_index, key=key, resamples=resamples
            )
        except ValueError as error:
            left_out[estimator.name] = str(error)
        else:
            rows.append(row)
    facts = {'held out': 'every mask in turn, in up to 5 folds'}
    return judge.Leaderboard(title, tuple(rows), left_out=left_out, facts=facts)


def choose_targets(
    run: Run, targets: int | Sequence[int | str] | None, *, seed: int
) -> Int[np.ndarray, ' T']:
    """Returns positions of targets, ascending: of so many drawn at random, or of those named.

    Raises:
        ValueError: there are not so many targets, or none of that id or position.
    """
    count = len(run.target_ids)
    if targets is None:
        return np.arange(count)
    if isinstance(targets, int):
        if not 1 <= targets <= count:
            raise ValueError(f'{targets=} must be 1 to {count}, the targets of {run.directory}')
        return np.sort(np.random.default_rng(seed).permutation(count)[:targets])
    return np.unique([run.position_of_target(target) for target in targets])


def _split(
    run: Run, other: Run | None, chosen: Int[np.ndarray, ' T'], notes: list[str]
) -> judge.Split:
    masks, losses = run.masks, run.measurement('loss')[:, chosen]
    if other is None:
        split = judge.hold_out_last(masks, losses)
        notes.append(
            f'The last {len(split.held_out.masks)} masks of the run are held out of every estimate.'
        )
        return split
    _require_same(run, other, notes)
    held_out = judge.held_out_members(other.masks, other.measurement('loss')[:, chosen])
    split = judge.split_by(masks, losses, held_out)
    if (lost := len(run.complete) - len(split.masks)) > 0:
        notes.append(f'{lost} members have a held-out mask and do not estimate.')
    recipes = (one.manifest.configuration.get('recipe') for one in (run, other))
    if len({str(recipe) for recipe in recipes}) > 1:
        notes.append(f'{other.directory} was trained by another recipe than {run.directory}.')
    return split


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


def _groups(dataset: Dataset) -> Int[np.ndarray, ' N'] | None:
    """Near-duplicates that the dataset names or, of images, that pixels show."""
    if dataset.has_near_duplicate.any():
        return dataset.clusters
    try:
        pairs = near_duplicates(dataset)
    except ValueError:  # no images
        return None
    return clusters(pairs, len(dataset)) if len(pairs) else None


def _facts(
    run: Run,
    held_out: Run,
    by: judge.Judge,
    targets: int | Sequence[int | str] | None,
    seed: int,
) -> dict[str, str]:
    truth, count = by.split.held_out, len(by.self_index)
    drawn = f', drawn at random (seed {seed})' if isinstance(targets, int) else ', chosen'
    facts = {
        'run': str(run.directory),
        'members that estimate': f'{len(by.split.masks)}',
        'held out': f'{len(truth.masks)} masks, {truth.repeats} members each, of '
        f'{held_out.directory}',
        'examples and targets': f'{truth.masks.shape[1]:,}, {count:,}'
        + (drawn if targets is not None else ''),
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
    return facts
