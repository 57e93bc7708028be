"""Influence from anyone's masks and losses: the tables and the report of the image experiments.

    python -m experiments.estimate --masks=FILE.npy --losses=FILE.npy --output_dir=DIR

Row m of both files is member m; no model is needed. The report is DIR/index.html.
"""

import hashlib
import sys
from pathlib import Path

import jax
import numpy as np

from experiments import flags, launch, run_facts, tensors, terminal
from experiments.tensors import Tensors, TensorSettings
from influence_jax import analysis, report, store
from influence_jax.analysis.convergence import least_half
from influence_jax.estimators import Estimator, difference_in_means
from influence_jax.estimators.ensemble import finite


def run_from_flags() -> None:
    """Estimates what the command line asks for."""
    try:
        run(flags.read(TensorSettings))
    except KeyboardInterrupt:
        sys.exit('stopped; nothing was written')
    except MemoryError as error:
        sys.exit(f'error: out of memory ({error}); give fewer targets at a time')


def run(settings: TensorSettings) -> Path:
    """Reads the tensors, estimates, writes the report and returns the page's path."""
    settings.check()
    report.check_directory(settings.output_dir)  # before minutes are spent
    given = tensors.load(settings)
    estimator, notes = _estimator(settings.estimator, given)
    overview = analysis.overview(
        given.masks,
        given.losses,
        key=jax.random.key(0),
        target_examples=given.target_examples,
        estimator=estimator,
    )
    names = _names(given.example_ids, 'example', settings.ids)
    target_ids = _names(given.target_ids, 'target', settings.target_ids or settings.ids)
    facts = _facts(settings, given, overview)
    page = report.write(
        settings.output_dir,
        overview=overview,
        facts=facts,
        target_ids=given.target_ids,
        example_ids=given.example_ids,
        example_names=names,
        example_labels=[''] * len(names),
        show=report.texts(names),
        title=f'Influence distributions: {Path(settings.losses).stem}',
        mean_loss=_mean_of_usable(given),
        notes=notes,
        unit=settings.unit,
    )
    texts = *(f'{name}: {value}' for name, value in facts.items()), *notes
    terminal.show(
        [
            report.terminal_table(
                overview, target_ids=target_ids, example_names=names, unit=settings.unit
            ),
            *map(report.printable, texts),
        ],
        last=report.printable(f'report: {page}'),
    )
    return page


def _estimator(asked: Estimator, given: Tensors) -> tuple[Estimator, tuple[str, ...]]:
    """The one that was asked for or, for too few members, the difference of means, and why."""
    least = 2 * least_half(asked)
    if given.usable_members >= least:
        return asked, given.notes
    note = (
        f'Estimated by difference of means: for the estimator {asked.name} at least {least} '
        f'complete members are needed, and there are {given.usable_members}.'
    )
    return difference_in_means, (*given.notes, note)


def _names(ids: tuple[str, ...], what: str, given: str) -> list[str]:
    """Ids that somebody chose are names; positions alone are not."""
    return list(ids) if given else [f'{what} {one}' for one in ids]


def _mean_of_usable(given: Tensors) -> np.ndarray:
    return given.losses.mean(
        axis=0, dtype=np.float64, where=np.all(finite(given.losses), axis=1)[:, np.newaxis]
    )


def _facts(settings: TensorSettings, given: Tensors, overview: analysis.Overview) -> dict[str, str]:
    own = int((given.target_examples >= 0).sum())
    return {
        'members': f'{overview.summary.members_used:,} of {len(given.losses):,}',
        'estimator': overview.summary.estimator.name,
        'targets that are examples': f'{own:,} of {len(given.target_ids):,}',
        **run_facts.of_own_influence(overview),
        'masks': _described(settings.masks),
        'losses': _described(settings.losses),
        'command': launch.command(),
        'versions': ', '.join(f'{name} {version}' for name, version in store.versions().items()),
        'commit': store.git_commit() or 'unknown',
    }


def _described(path: str) -> str:
    with Path(path).open('rb') as file:
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
    return f'{Path(path).name}, sha256 {digest[:16]}'


if __name__ == '__main__':
    flags.define(TensorSettings())
    launch.run(run_from_flags)
