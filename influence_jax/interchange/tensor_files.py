"""Tensors of anybody's models by the files that hold them: which go together, and what is read."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from influence_jax import tensors
from influence_jax.interchange.feldman_zhang import read_feldman_zhang
from influence_jax.interchange.imported import read_ensemble
from influence_jax.interchange.lira import read_lira
from influence_jax.report.run import ArrayRun

_NATS = 'nats'
_BESIDE = {
    'masks': ('losses', 'logits', 'labels', 'examples'),
    'lira': (),
    'feldman_zhang': ('test',),
}
"""What may be given with each kind of source."""


@dataclasses.dataclass(frozen=True)
class TensorFiles:
    """Which masks and losses: those of files, or of a layout that others use.

    Attributes:
        masks: file, bool [M N]: whether member m was trained on example n; also numbers 0 and 1,
            or -1 and 1, or, with `examples`, lists of positions.
        losses: file, floating [M T]: what was measured of member m on target t, lower being
            better (negate a probability). Members with anything that is not finite are left out.
        logits: instead of losses: file, floating [M T C].
        labels: of the targets, with `logits`: file, integers [T].
        examples: how many there are, where masks are lists of positions.
        lira: folder of the reference code of LiRA, instead of files.
        feldman_zhang: .npz in the layout of Feldman and Zhang, instead of files.
        test: of `feldman_zhang`: targets are the test examples, not the training examples.
        unit: of the losses, for labels.
        ids: names of the N examples: a text file (one a line), .json (a list) or .npy; by default
            their positions.
        target_ids: names of the T targets, likewise; a target of the name of an example is that
            example. By default target t is example t if T = N, and else no target is an example.
        member_ids: names of the M members, likewise.
        drop_inestimable: leave out examples that (nearly) all members were, or were not, trained
            on, instead of refusing them.
    """

    masks: str = ''
    losses: str = ''
    logits: str = ''
    labels: str = ''
    examples: int | None = None
    lira: str = ''
    feldman_zhang: str = ''
    test: bool = False
    unit: str = _NATS
    ids: str = ''
    target_ids: str = ''
    member_ids: str = ''
    drop_inestimable: bool = False

    def check(self) -> None:
        """Refuses files that lack others, or do not go together.

        Raises:
          ValueError: naming the first.
        """
        if not (self.unit.isprintable() and self.unit.strip()) or '$' in self.unit:
            raise ValueError(f'unit={self.unit!r} must be a word for labels, without $')
        if self.examples is not None and self.examples < 1:
            raise ValueError(f'examples={self.examples} must be at least 1')
        kinds = [name for name in _BESIDE if getattr(self, name)]
        kind = kinds[0] if kinds else 'masks'
        others = [name for of, names in _BESIDE.items() if of != kind for name in names]
        if self.unit != _NATS and kind == 'feldman_zhang':
            others.append('unit')
        for name in (*others, *kinds[1:]):
            if getattr(self, name):
                raise ValueError(f'{name}= is of no use with {kind}=, which is read: omit one')
        if self.losses and self.logits:
            raise ValueError('losses= and logits= exclude each other: give one of them')
        if self.labels and not self.logits:
            raise ValueError('labels= are of logits=: give both, or neither')
        needed = ('masks', 'labels' if self.logits else 'losses') if kind == 'masks' else ()
        for name in needed:
            if not getattr(self, name):
                raise ValueError(f'{name}= is missing: give {name}=FILE.npy')

    def read(self) -> ArrayRun:
        """Reads them; raises as `check`, and as the reader of each kind does."""
        self.check()
        if self._are_mapped():
            return tensors.as_run(
                self.masks,
                self.losses,
                ids=self.ids or None,
                target_ids=self.target_ids or None,
                member_ids=self.member_ids or None,
                drop_inestimable=self.drop_inestimable,
            )
        if self.lira:
            imported = read_lira(self.lira)
        elif self.feldman_zhang:
            imported = read_feldman_zhang(self.feldman_zhang, test=self.test)
        else:
            imported = read_ensemble(
                self.masks,
                self.losses,
                logits=self.logits,
                labels=self.labels,
                examples=self.examples,
            )
        return dataclasses.replace(
            imported,
            ids=self.ids or imported.ids,
            target_ids=self.target_ids or imported.target_ids,
            member_ids=self.member_ids or imported.member_ids,
        ).run(drop_inestimable=self.drop_inestimable)

    def _are_mapped(self) -> bool:
        """Whether masks, bool, and losses are a .npy file each: these need not be read at once."""
        both = self.masks, self.losses
        if self.examples or not all(one.endswith('.npy') and ',' not in one for one in both):
            return False
        try:
            return np.load(self.masks, mmap_mode='r').dtype.kind not in 'iuf'
        except (OSError, ValueError):
            return True  # whoever maps it says what is wrong

    @property
    def name(self) -> str:
        """Returns the name of what is measured, for titles."""
        return Path(self.losses or self.logits or self.lira or self.feldman_zhang).stem

    @property
    def measured_in(self) -> str:
        """Returns the unit of the losses."""
        return 'error' if self.feldman_zhang else self.unit

    def facts(self) -> dict[str, str]:
        """Returns which files are read, each with the beginning of its digest."""
        return {
            name: _described(value)
            for name in ('masks', 'losses', 'logits', 'labels', 'lira', 'feldman_zhang')
            if (value := getattr(self, name))
        }


def _described(source: str) -> str:
    """The name of a file and its digest; of several, or of a folder, their names."""
    path = Path(source)
    if not path.is_file():
        return ', '.join(Path(one).name for one in source.split(','))
    with path.open('rb') as file:
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
    return f'{path.name}, sha256 {digest[:16]}'
