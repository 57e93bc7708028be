"""The manifest: everything that determines a run's results, and where they came from."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import platform
import re
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import influence_jax
from influence_jax.json_files import MOST_DEPTH, parse_json
from influence_jax.text import quoted

FORMAT = 1
"""Version of the run directory's layout."""

_IDENTITY = (
    'configuration',
    'seeds',
    'dataset',
    'example_ids',
    'target_ids',
    'measurements',
)
_OPTIONAL = ('masks_sha256', 'executor', 'task', 'units')
_CHECKSUM = 'checksum'
# Measurement names become file names: nothing that could lead out of the directory.
_MEASUREMENT_NAME = re.compile(r'[A-Za-z][A-Za-z0-9_]*')
_SHOWN = 60


def versions() -> dict[str, str]:
    """Returns versions of Python, of this package and of those that decide its numbers."""
    return {
        'python': platform.python_version(),
        'influence_jax': influence_jax.__version__,
        **{
            name: importlib.metadata.version(name)
            for name in ('jax', 'jaxlib', 'flax', 'optax', 'numpy')
        },
    }


def git_commit() -> str | None:
    """Returns the commit of this package's checkout; ends in `-dirty` if files were changed.

    None where the package is installed, or git is not: an installed copy may well be inside
    another project's checkout, whose commit would say nothing.
    """
    package = Path(influence_jax.__file__).parent
    try:
        subprocess.run(
            ['git', 'ls-files', '--error-unmatch', '__init__.py'],
            cwd=package,
            capture_output=True,
            check=True,
        )
        described = subprocess.run(
            ['git', 'describe', '--always', '--dirty', '--abbrev=40', '--exclude=*'],
            cwd=package,
            capture_output=True,
            check=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def canonical_json(value: Any) -> bytes:
    """Returns JSON of a value, the same for equal values, in whatever order its keys are."""
    return json.dumps(value, sort_keys=True, separators=(',', ':')).encode()


def json_digest(value: Any) -> str:
    """Returns the sha256 of a value of what JSON can hold."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


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
        (tuples become lists). Leave out what does not change them: executor, directory.
    seeds: each seed by the name of what it seeds.
    measurements: names of what is recorded of each member and target.
    members: M, which grows where a run is resumed with more.
    versions, git_commit, created, command: where the run came from; not compared on resuming.
    masks_sha256: of the masks that were written; None before they are, and in the runs of earlier
        versions, which have no digests of rows either.
    executor: how members share the devices; not compared on resuming.
    task: a description from which a built-in task is made again; not compared on resuming, since
        the configuration is.
    units: of measurements, where the task names them; not compared on resuming.

    Raises ValueError where a field has the wrong type or ids are repeated.
    """

    configuration: Mapping[str, Any]
    seeds: Mapping[str, int]
    dataset: DatasetIdentity
    example_ids: tuple[str, ...]
    target_ids: tuple[str, ...]
    measurements: tuple[str, ...]
    members: int
    versions: Mapping[str, str] = dataclasses.field(default_factory=versions)
    git_commit: str | None = None
    created: str = dataclasses.field(default_factory=_now)
    command: str = ''
    masks_sha256: str | None = dataclasses.field(default=None, compare=False)
    executor: Mapping[str, Any] | None = None
    task: Mapping[str, Any] | None = None
    units: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name, value in _checked(fields).items():
            object.__setattr__(self, name, value)

    def to_json(self) -> str:
        """Returns the manifest as JSON text, with a checksum of the rest."""
        fields = {'format': FORMAT, **dataclasses.asdict(self)}
        fields = {k: v for k, v in fields.items() if v is not None or k not in _OPTIONAL}
        fields[_CHECKSUM] = json_digest(fields)
        return json.dumps(fields, indent=1, allow_nan=False) + '\n'

    @classmethod
    def from_json(cls, text: str | bytes) -> 'Manifest':
        """Reads `to_json`'s text.

        Earlier versions wrote none of the optional fields, the first of them no `checksum`.

        Raises:
            ValueError: a key is missing, unknown or of wrong type, or the checksum is another.
        """
        fields = parse_json(text, most_depth=MOST_DEPTH)
        _require(isinstance(fields, dict), 'not a JSON object')
        checksum = fields.pop(_CHECKSUM, None)
        actual = json_digest(fields)
        found = fields.pop('format', None)
        _require(found is not None, 'no key "format"')
        _require(
            _is_int(found) and found == FORMAT,
            f'format {found!r}, but this version reads format {FORMAT}',
        )
        _require_keys('the manifest', fields, cls)
        dataset = fields['dataset']
        _require(isinstance(dataset, dict), 'dataset must be an object')
        _require_keys('dataset', dataset, DatasetIdentity)
        _require_texts('dataset', *dataset.values())
        manifest = cls(**_checked({**fields, 'dataset': DatasetIdentity(**dataset)}))
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
        return json_digest(self._identity())

    def differences(self, new: 'Manifest') -> tuple[str, ...]:
        """Returns `key: old -> new` for each key by which members of `new` have other results."""
        olds, news = dict(_leaves(self._identity())), dict(_leaves(new._identity()))
        return tuple(
            f'{".".join(path)}: {_change(olds.get(path), news.get(path))}'
            for path in dict.fromkeys((*olds, *news))
            if olds.get(path) != news.get(path)
        )

    def _identity(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in _IDENTITY}
        return fields | {'dataset': dataclasses.asdict(self.dataset)}


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a manifest's fields as it keeps them; ValueError where one is of the wrong type."""
    checked = dict(fields)
    for name in ('example_ids', 'target_ids', 'measurements'):
        checked[name] = _distinct_strings(name, fields[name])
    # Through JSON and back, so that a fresh manifest equals itself read from the disk.
    for name in ('configuration', 'seeds', 'versions', 'executor', 'task', 'units'):
        if (value := fields.get(name)) is not None or name not in _OPTIONAL:
            checked[name] = _through_json(name, value)
    _require(all(map(_is_int, checked['seeds'].values())), 'seeds must be whole numbers')
    _require_texts('versions', *checked['versions'].values())
    _require_texts('units', *(checked.get('units') or {}).values())
    for name in ('created', 'command', 'git_commit', 'masks_sha256'):
        if (value := fields.get(name)) is not None or name in ('created', 'command'):
            _require_texts(name, value)
    dataset = fields['dataset']
    _require(isinstance(dataset, DatasetIdentity), 'dataset must be a DatasetIdentity')
    _require_texts('dataset', dataset.name, dataset.fingerprint)
    members = fields['members']
    _require(
        _is_int(members) and members >= 1,
        f'members must be a whole number of at least 1, not {members!r:.60}',
    )
    for name in checked['measurements']:
        _require(
            _MEASUREMENT_NAME.fullmatch(name) is not None,
            f'measurement name {quoted(name)} must be letters, digits and underscores',
        )
    return checked


def _require_texts(name: str, *values: Any) -> None:
    _require(all(isinstance(value, str) for value in values), f'{name} must be text')


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _require_keys(what: str, fields: Mapping[str, Any], cls: type) -> None:
    known = {field.name for field in dataclasses.fields(cls)}
    expected = known.difference(_OPTIONAL)
    _require(expected <= fields.keys(), f'{what} lacks {sorted(expected - fields.keys())}')
    _require(fields.keys() <= known, f'{what} has unknown keys {_listed(fields.keys() - known)}')


def _listed(keys: Set[str]) -> str:
    """Returns unknown keys for a message; there may be many and long ones."""
    listed = ', '.join(map(quoted, sorted(keys)[:3]))
    return f'[{listed}]' if len(keys) <= 3 else f'[{listed}] and {len(keys) - 3} more'


def _distinct_strings(name: str, values: Any) -> tuple[str, ...]:
    _require(
        isinstance(values, list | tuple) and all(isinstance(value, str) for value in values),
        f'{name} must be a sequence of text',
    )
    _require(len(values) > 0, f'{name} is empty')
    if len(set(values)) < len(values):
        repeated = next(value for value, count in Counter(values).items() if count > 1)
        raise ValueError(f'{name} holds {quoted(repeated)} twice')
    return tuple(values)


def _through_json(name: str, values: Any) -> dict[str, Any]:
    _require(isinstance(values, Mapping), f'{name} must map names to values')
    try:
        # Within the bounds in which a manifest is read again, one level of which is its own.
        return parse_json(json.dumps(dict(values), allow_nan=False), most_depth=MOST_DEPTH - 1)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f'{name} must hold only what JSON can: {error}') from error


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yields paths and values as JSON text, which tells 1 from True and from 1.0."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield path, json.dumps(value, ensure_ascii=False)


def _change(old: str | None, new: str | None) -> str:
    """Returns both sides, cut to where they begin to differ if they are long."""
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
