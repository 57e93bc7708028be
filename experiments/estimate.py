"""Influence from anyone's masks and losses: the tables and the report of the image experiments.

    python -m experiments.estimate --masks=FILE.npy --losses=FILE.npy --output_dir=DIR

Row m of both files is member m; no model is needed. The report is DIR/index.html.
"""

import dataclasses
import hashlib
import sys
from pathlib import Path

from experiments import flags, launch, terminal
from influence_jax import report, store, tensors
from influence_jax.estimators import Estimator, adjusted


@dataclasses.dataclass(frozen=True)
class TensorSettings:
    """Which tensors, and how influence is estimated from them.

    Attributes:
        masks: .npy file, bool [M N]: whether member m was trained on example n.
        losses: .npy file, floating [M T]: what was measured of member m on target t, lower being
            better (negate a probability). Members with anything that is not finite are left out.
        unit: of the losses, for labels.
        ids: names of the N examples: a text file (one a line), .json (a list) or .npy; by default
            their positions.
        target_ids: names of the T targets, likewise; a target of the name of an example is that
            example. By default target t is example t if T = N, and else no target is an example.
        member_ids: names of the M members, likewise.
        estimator: difference of means, the same adjusted for each target's strongest influencers,
            or a linear datamodel, ridge or lasso. All but the first need at least 48 members;
            below, the first is used.
        drop_inestimable: leave out examples that (nearly) all members were, or were not, trained
            on, instead of refusing them.
        output_dir: directory of the report and its tables; new, empty, or holding a report.
    """

    masks: str = ''
    losses: str = ''
    unit: str = 'nats'
    ids: str = ''
    target_ids: str = ''
    member_ids: str = ''
    estimator: Estimator = adjusted
    drop_inestimable: bool = False
    output_dir: str = ''

    def check(self) -> None:
        """Refuses settings without the files and the directory that there must be.

        Raises:
          ValueError: naming the first that lacks, or a unit that is no label.
        """
        if not (self.unit.isprintable() and self.unit.strip()) or '$' in self.unit:
            raise ValueError(f'--unit must be a word for labels without $, not {self.unit!r}')
        for name, value in (('masks', 'FILE.npy'), ('losses', 'FILE.npy'), ('output_dir', 'DIR')):
            if not getattr(self, name):
                raise ValueError(f'--{name} is missing: give --{name}={value}')


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
    given = tensors.as_run(
        settings.masks,
        settings.losses,
        ids=settings.ids or None,
        target_ids=settings.target_ids or None,
        member_ids=settings.member_ids or None,
        drop_inestimable=settings.drop_inestimable,
    )
    results = report.gather(
        given,
        estimator=settings.estimator,
        unit=settings.unit,
        title=f'Influence distributions: {Path(settings.losses).stem}',
        facts=_facts(settings),
    )
    return terminal.save_and_show(results, settings.output_dir)


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
