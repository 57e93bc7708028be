"""The manifest: everything that determines a run's results, and where they came from."""

import dataclasses
import functools
import json
import re
from collections.abc import Iterator, Mapping, Set
from datetime import UTC, datetime
from typing import Any

from influence_jax.json_files import MOST_DEPTH, parse_json
from influence_jax.store import digests, provenance

FORMAT = 1
"""Version of the run directory's layout."""

_IDENTITY = (
    'configuration',
    'seeds',
    'dataset',
    'example_ids',
    'target_ids',
    'measurements',
    'members',
)
_CHECKSUM = 'checksum'
# Measurement names become file names: nothing that could lead out of the directory.
_MEASUREMENT_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]*')
_SHOWN = 60


@dataclasses.dataclass(frozen=True)
class DatasetIdentity:
    """Which data: the dataset's name and the sha256 of its contents."""

    name: str
    fingerprint: str


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec='seconds')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a run is.

    configuration: everything else that determines the results; only what JSON can hold
        (tuples become lists). Leave out what does not change them: executor, chunk, directory.
    seeds: each seed by the name of what it seeds.
    measurements: names of what is recorded of each member and target.
    members: M.
    versions, git_commit, created, command: where the run came from; not compared on resuming.
    masks_sha256: of the masks that were written; None before they are, and in the runs of earlier
        versions, which have no digests of rows either.

    Raises ValueError where a field has the wrong type or ids are repeated.
    """

    configuration: Mapping[str, Any]
    seeds: Mapping[str, int]
    dataset: DatasetIdentity
    example_ids: tuple[str, ...]
    target_ids: tuple[str, ...]
    measurements: tuple[str, ...]
    members: int
    versions: Mapping[str, str] = dataclasses.field(default_factory=provenance.versions)
    git_commit: str | None = None
    created: str = dataclasses.field(default_factory=_now)
    command: str = ''
    masks_sha256: str | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ('example_ids', 'target_ids', 'measurements'):
            object.__setattr__(self, name, _distinct_strings(name, getattr(self, name)))
        # Through JSON and back, so that a fresh manifest equals itself read from the disk.
        for name in ('configuration', 'seeds', 'versions'):
            object.__setattr__(self, name, _through_json(name, getattr(self, name)))
        _require(all(_is_int(seed) for seed in self.seeds.values()), 'seeds must be whole numbers')
        texts = (*self.versions.values(), self.created, self.command)
        texts += (self.dataset.name, self.dataset.fingerprint)
        _require(
            all(isinstance(text, str) for text in texts)
            and isinstance(self.git_commit, str | None)
            and isinstance(self.masks_sha256, str | None),
            'versions, dataset, git_commit, created, command and masks_sha256 must be text',
        )
        _require(
            _is_int(self.members) and self.members >= 1,
            f'members must be a whole number of at least 1, not {self.members!r}',
        )
        for name in self.measurements:
            _require(
                _MEASUREMENT_NAME.fullmatch(name) is not None,
                f'measurement name {name!r} must be letters, digits and underscores',
            )

    def to_json(self) -> str:
        """The manifest as JSON text, with a checksum of the rest."""
        fields = {'format': FORMAT, **dataclasses.asdict(self)}
        fields[_CHECKSUM] = digests.of_json(fields)
        return json.dumps(fields, indent=1, allow_nan=False) + '\n'

    @classmethod
    def from_json(cls, text: str | bytes) -> 'Manifest':
        """Reads `to_json`'s text.

        Earlier versions wrote neither `checksum` nor `masks_sha256`: what they wrote is read, too.

        Raises:
            ValueError: a key is missing, unknown or of wrong type, or the checksum is another.
        """
        fields = parse_json(text, most_depth=MOST_DEPTH)
        _require(isinstance(fields, dict), 'not a JSON object')
        checksum = fields.pop(_CHECKSUM, None)
        actual = digests.of_json(fields)
        found = fields.pop('format', None)
        _require(found is not None, 'no key "format"')
        _require(
            _is_int(found) and found == FORMAT,
            f'format {found!r}, but this version reads format {FORMAT}',
        )
        _require_keys('the manifest', fields, cls)
        _require(isinstance(fields['dataset'], dict), 'dataset must be an object')
        _require_keys('dataset', fields['dataset'], DatasetIdentity)
        manifest = cls(**{**fields, 'dataset': DatasetIdentity(**fields['dataset'])})
        _require(
            checksum == actual or (checksum is None and manifest.masks_sha256 is None),
            'its checksum does not match what it holds',
        )
        return manifest

    @property
    def has_digests(self) -> bool:
        """Whether the run was made with digests of its masks and rows."""
        return self.masks_sha256 is not None

    @functools.cached_property
    def identity(self) -> str:
        """The sha256 of what determines a member's results; the number of members does not."""
        fields = {name: getattr(self, name) for name in _IDENTITY if name != 'members'}
        fields['dataset'] = dataclasses.asdict(self.dataset)
        return digests.of_json(fields)

    def differences(self, new: 'Manifest') -> tuple[str, ...]:
        """`key: old -> new` for each key in which `new` would give other results than this one."""
        olds, news = dict(_leaves(self._identity())), dict(_leaves(new._identity()))
        return tuple(
            f'{".".join(path)}: {_change(olds.get(path), news.get(path))}'
            for path in dict.fromkeys((*olds, *news))
            if olds.get(path) != news.get(path)
        )

    def _identity(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        return {name: fields[name] for name in _IDENTITY}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require_keys(what: str, fields: Mapping[str, Any], cls: type) -> None:
    known = {field.name for field in dataclasses.fields(cls)}
    expected = known - {'masks_sha256'}
    _require(expected <= fields.keys(), f'{what} lacks {sorted(expected - fields.keys())}')
    _require(fields.keys() <= known, f'{what} has unknown keys {_listed(fields.keys() - known)}')


def _listed(keys: Set[str]) -> str:
    """Keys of somebody else's, of which there may be many and long ones."""
    shown = ascii([key[:_SHOWN] for key in sorted(keys)[:3]])
    return shown if len(keys) <= 3 else f'{shown} and {len(keys) - 3} more'


def _distinct_strings(name: str, values: Any) -> tuple[str, ...]:
    _require(
        isinstance(values, list | tuple) and all(isinstance(value, str) for value in values),
        f'{name} must be a sequence of text',
    )
    _require(len(values) > 0, f'{name} is empty')
    seen: set[str] = set()
    for value in values:
        _require(value not in seen, f'{name} holds {value!r} twice')
        seen.add(value)
    return tuple(values)


def _through_json(name: str, values: Any) -> dict[str, Any]:
    _require(isinstance(values, Mapping), f'{name} must map names to values')
    try:
        # Within the bounds in which a manifest is read again, one level of which is its own.
        return parse_json(json.dumps(dict(values), allow_nan=False), most_depth=MOST_DEPTH - 1)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f'{name} must hold only what JSON can: {error}') from error


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Paths and values as JSON text, which tells 1 from True and from 1.0."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield path, json.dumps(value, ensure_ascii=False)


def _change(old: str | None, new: str | None) -> str:
    """Both sides, cut to where they begin to differ if they are long."""
    sides = ['absent' if side is None else side for side in (old, new)]
    if max(map(len, sides)) > _SHOWN:
        pairs = zip(*sides, strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(map(len, sides)))
        start = max(0, same - _SHOWN // 3)
        sides = [
            ('... ' if start else '')
            + side[start : start + _SHOWN]
            + (' ...' if len(side) > start + _SHOWN else '')
            for side in sides
        ]
    return ' -> '.join(sides)
