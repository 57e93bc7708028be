"""Membership inference: how well attacks tell who trained on a record, and which are at risk.

    python -m experiments.membership RUN
    python -m experiments.membership --masks=FILE.npy --losses=FILE.npy --output_dir=DIR
    python -m experiments.membership --lira=FOLDER --output_dir=DIR

RUN is the directory of a run, every member of which is attacked with the others as its shadow
models; of tensors, files are named as for experiments.estimate. Losses must be -log p of the truth,
in nats, for all but the simplest attack. The page is OUTPUT_DIR/membership.html, a line a record in
OUTPUT_DIR/vulnerability.csv.
"""

import dataclasses
from pathlib import Path

import jax

from experiments import flags, launch, terminal
from influence_jax import open_run
from influence_jax.interchange import TensorFiles
from influence_jax.report import audit
from influence_jax.report.audit import Audit


@dataclasses.dataclass(frozen=True)
class MembershipSettings(TensorFiles):
    """Which models are attacked, and where what is found is written.

    Attributes:
        most_scores: curves and rates are of as many targets, drawn at random, as make so many
            scores; 0 for all.
        seed: of the resamples that intervals are made of.
        output_dir: of the page and its table; new, empty, or of an earlier audit. By default
            RUN/membership.
    """

    most_scores: int = 1_000_000
    seed: int = 0
    output_dir: str = ''

    def check_of(self, directory: str) -> None:
        """Refuses settings that name no models, or those of a run and tensors at once.

        Raises:
            ValueError: naming the first.
        """
        if self.most_scores < 0:
            raise ValueError(f'most_scores={self.most_scores} must be 0 (all) or more')
        if not directory:
            if not (self.masks or self.lira or self.feldman_zhang):
                raise ValueError(
                    'give the directory of a run, or --masks=FILE.npy and --losses=FILE.npy'
                )
            self.check()
            if not self.output_dir:
                raise ValueError('--output_dir is missing: give --output_dir=DIR')
            return
        for field in dataclasses.fields(TensorFiles):
            if getattr(self, field.name) != field.default:
                raise ValueError(f'--{field.name} is of tensors, not of a run: omit it')


def run(directory: str, settings: MembershipSettings) -> Path:
    """Attacks, writes the page, prints it in short and returns the page's path."""
    settings.check_of(directory)
    output = Path(settings.output_dir or Path(directory) / 'membership')
    audit.check_directory(output)  # before it takes time
    name = Path(directory).resolve().name if directory else settings.name
    made = Audit.of_run(
        open_run(directory) if directory else settings.read(),
        key=jax.random.key(settings.seed),
        title=f'Membership inference: {name}',
        unit=None if directory else settings.measured_in,
        most_scores=settings.most_scores or None,
        facts={
            **({'run': directory} if directory else settings.facts()),
            **launch.provenance(),
        },
    )
    page = audit.save(made, output)
    terminal.show(audit.terminal(made), page)
    return page


if __name__ == '__main__':
    flags.define(MembershipSettings())
    launch.run(
        lambda directory='': run(directory, flags.read(MembershipSettings)), most_arguments=1
    )
