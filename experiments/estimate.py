"""Influence from anyone's masks and losses: the tables and the report of the image experiments.

    python -m experiments.estimate --masks=FILE.npy --losses=FILE.npy --output_dir=DIR

Row m of both files is member m; no model is needed. The report is DIR/index.html.
"""

import hashlib
import sys
from pathlib import Path

from experiments import flags, launch, tensors, terminal
from experiments.tensors import TensorSettings
from influence_jax import report, store


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
    tensors_run = report.ArrayRun(
        masks=given.masks,
        measurements={'loss': given.losses},
        example_ids=given.example_ids,
        target_ids=given.target_ids,
        target_examples=given.target_examples,
        shown=store.Shown(names=_names(given.example_ids, settings.ids), notes=given.notes),
    )
    results = report.gather(
        tensors_run,
        estimator=settings.estimator,
        unit=settings.unit,
        title=f'Influence distributions: {Path(settings.losses).stem}',
        facts=_facts(settings),
    )
    return terminal.save_and_show(results, settings.output_dir)


def _names(ids: tuple[str, ...], given: str) -> tuple[str, ...]:
    """Ids that somebody chose are names; positions alone are not."""
    return ids if given else tuple(f'example {one}' for one in ids)


def _facts(settings: TensorSettings) -> dict[str, str]:
    return {
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
