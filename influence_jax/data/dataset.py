"""Examples with stable ids: what every source returns and every run trains on."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int, Int64, PyTree, Shaped

from influence_jax.text import escaped, quoted
from influence_jax.types import AnyArray

_TEXT = np.dtypes.StringDType()


@dataclasses.dataclass(frozen=True, eq=False, init=False, repr=False)
class Dataset:
    """Arrays with a common leading axis N, one entry an example, in the dataset's own order.

    Images are `{'image': uint8 [N H W C], 'label': int32 [N]}`, texts are `{'prompt': ...,
    'completion': ...}` of numpy's `StringDType`; a table, or anything else, has the arrays that
    its task expects. The arrays are checked and made read-only, so that `fingerprint` stays true.

    Attributes:
      arrays: as given: a mapping, a single array or any pytree of arrays. Fixed-width text is
        stored as `StringDType`.
      ids: `[N]` unique, and the same in every version and subset of the dataset.
      names: `[N]` what a person would call each example.
      labels: `[N]` the class or kind of each example, for people; '' where there is none.
      groups: `[N]` the same number for examples that belong together (near-duplicates of one
        another, the examples of one user); None where nothing is known.
      changes: `[N]` how each example differs from the one of which it is a near-duplicate; ''
        for originals.
      mislabelled: `[N]` which examples are known to have a wrong label; None where nothing is.
      class_names: the name of each class, which the integers of the array `label` index.
      columns: names of the columns of a table, its array of shape `[N columns]`.
      name: what the dataset is called in a run's manifest.
      provenance: where the examples come from, for the report.
      notes: what was changed of the examples or left out, a sentence each, for the user.
    """

    arrays: PyTree
    ids: tuple[str, ...]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    groups: Int64[np.ndarray, ' N'] | None
    changes: tuple[str, ...]
    mislabelled: Bool[np.ndarray, ' N'] | None
    class_names: tuple[str, ...]
    columns: tuple[str, ...]
    name: str
    provenance: str
    notes: tuple[str, ...]

    def __init__(  # noqa: D417, the others are as the attributes
        self,
        arrays: PyTree,
        *,
        ids: Iterable[str] | None = None,
        names: Iterable[str] | None = None,
        labels: Iterable[str] | None = None,
        groups: AnyArray | Sequence[int] | None = None,
        changes: Sequence[str] = (),
        mislabelled: AnyArray | Sequence[bool] | None = None,
        class_names: Iterable[str] = (),
        columns: Iterable[str] = (),
        name: str = 'dataset',
        provenance: str = '',
        notes: Iterable[str] = (),
    ) -> None:
        """Checks the examples and keeps them; arguments are as the attributes.

        Args:
          arrays: a mapping or pytree of numpy (or jax) arrays with a leading axis N.
          ids: by default the positions, '0' to 'N - 1'.
          names: by default the ids.
          labels: by default the class names of the array `label`, or its integers.

        Raises:
          ValueError: there are no arrays or no examples; the arrays differ in length or hold
            Python objects; ids repeat; or a number of texts or groups is wrong. One line.
        """
        try:
            arrays, length = _checked_arrays(arrays)
            class_names = _texts('class_names', class_names, None)
            ids = _texts('ids', map(str, range(length)) if ids is None else ids, length)
            _check_unique('id', ids)
            _check_unique('class name', class_names)
            by_class = _labels(arrays, class_names, length)
            fields = {
                'arrays': arrays,
                'ids': ids,
                'names': ids if names is None else _texts('names', names, length),
                'labels': by_class if labels is None else _texts('labels', labels, length),
                'groups': None if groups is None else _groups(groups, length),
                'changes': _texts('changes', changes or ('',) * length, length),
                'mislabelled': None if mislabelled is None else _marks(mislabelled, length),
                'class_names': class_names,
                'columns': _texts('columns', columns, None),
                'name': name,
                'provenance': provenance,
                'notes': tuple(notes),
            }
        except ValueError as error:
            raise ValueError(f'dataset {name!r}: {error}') from error
        for field, value in fields.items():
            object.__setattr__(self, field, value)

    @classmethod
    def from_npz(cls, path: str | Path) -> 'Dataset':
        """Reads labelled images, or arrays of any kind, from a `.npz` file; see `sources.npz`."""
        from influence_jax.data.sources import npz

        return npz.load(path)

    @classmethod
    def from_jsonl(cls, path: str | Path) -> 'Dataset':
        """Reads texts from a file with a JSON object a line; see `sources.jsonl`."""
        from influence_jax.data.sources import jsonl

        return jsonl.load(path)

    @classmethod
    def clipart(cls) -> 'Dataset':
        """Returns the embedded clip art: 1,567 images in 9 classes; see `sources.embedded`."""
        from influence_jax.data.sources import embedded

        return embedded.clipart()

    @classmethod
    def wordnet(cls) -> 'Dataset':
        """Returns the embedded 4,000 glosses of WordNet; see `sources.embedded`."""
        from influence_jax.data.sources import embedded

        return embedded.wordnet()

    @classmethod
    def cifar10(cls, data_dir: str | Path | None = None) -> 'Dataset':
        """Reads the training images of CIFAR-10 that are on disk; see `sources.cifar10`."""
        from influence_jax.data.sources import cifar10

        return cifar10.load(data_dir)

    @classmethod
    def nq_open(cls, data_dir: str | Path | None = None) -> 'Dataset':
        """Reads the questions and answers of NQ-open that are on disk; see `sources.nq_open`."""
        from influence_jax.data.sources import nq_open

        return nq_open.load(data_dir)

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f'Dataset({self.name!r}, {len(self):,} examples: {self._listed})'

    @property
    def num_examples(self) -> int:
        """N."""
        return len(self.ids)

    @property
    def num_classes(self) -> int:
        """The number of class names, those of classes without an example included."""
        return len(self.class_names)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over the arrays with their names, the ids and the groups.

        What changes no result (names, changes, which labels are wrong, provenance) is left out.
        """
        digest = hashlib.sha256()
        for path, array in _by_path(self.arrays):
            digest.update(f'{len(path)}:{path} {_kind(array)} {array.shape};'.encode())
            if array.dtype.kind == 'T':
                _update_with_texts(digest, array.ravel().tolist())
            else:
                # Little-endian on every machine.
                plain = np.ascontiguousarray(array, array.dtype.newbyteorder('<'))
                digest.update(plain.reshape(-1).view(np.uint8).data)
        _update_with_texts(digest, self.ids)
        if self.groups is not None:
            digest.update(b'groups;' + self.groups.astype('<i8').tobytes())
        return digest.hexdigest()

    @property
    def clusters(self) -> Int64[np.ndarray, ' N']:
        """The groups; where none are known, each example is one by itself."""
        return np.arange(len(self)) if self.groups is None else self.groups

    @property
    def has_near_duplicate(self) -> Bool[np.ndarray, ' N']:
        """Whether the dataset holds another example of the same group; False if none is known."""
        _, group, sizes = np.unique(self.clusters, return_inverse=True, return_counts=True)
        return np.asarray(sizes[group] > 1)

    @property
    def is_original(self) -> Bool[np.ndarray, ' N']:
        """Whether each example is as its source has it, and no variant of another example."""
        return np.array([not change for change in self.changes])

    @property
    def descriptions(self) -> tuple[str, ...]:
        """`[N]` the name of each example, and before it what was changed of a variant."""
        named = zip(self.changes, self.names, strict=True)
        return tuple(f'{change}: {name}' if change else name for change, name in named)

    @property
    def has_texts(self) -> bool:
        """Whether examples are prompts with their completions."""
        return isinstance(self.arrays, dict) and {'prompt', 'completion'} <= self.arrays.keys()

    @property
    def texts(self) -> tuple[str, ...]:
        """`[N]` the whole text of each example: its prompt and its completion.

        Raises:
          ValueError: the dataset is not of texts.
        """
        pairs = zip(self.array('prompt'), self.array('completion'), strict=True)
        return tuple(prompt + completion for prompt, completion in pairs)

    def array(self, name: str) -> Shaped[np.ndarray, 'N ...']:
        """Returns the array of a name, such as 'image'.

        Raises:
          ValueError: there is none of that name; the message lists those there are.
        """
        found = self.arrays.get(name) if isinstance(self.arrays, dict) else None
        if not isinstance(found, np.ndarray):
            raise ValueError(
                f'dataset {self.name!r} has no array {name!r}, which is needed here; '
                f'it has: {self._listed}'
            )
        return found

    def take(self, indices: AnyArray | Sequence[int]) -> 'Dataset':
        """Returns the chosen examples, in the order asked for, with the ids that they have here.

        Args:
          indices: which examples; distinct, from 0 to N - 1.

        Raises:
          ValueError: the indices are empty, not integers, out of range or repeated.
        """
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer) or not chosen.size:
            raise ValueError(
                'indices must be a non-empty vector of integers; '
                f'found {chosen.dtype} of shape {chosen.shape}'
            )
        if chosen.min() < 0 or chosen.max() >= len(self):
            raise ValueError(
                f'indices run from {chosen.min()} to {chosen.max()}, but dataset {self.name!r} '
                f'has the examples 0 to {len(self) - 1}'
            )
        return dataclasses.replace(self, **self.rows(chosen))

    def rows(self, indices: Int[np.ndarray, ' K']) -> dict[str, Any]:
        """Returns the fields that have an entry for each example, of some of these.

        Unlike in a dataset, an example may occur several times.
        """
        texts = ('ids', 'names', 'labels', 'changes')
        return {
            'arrays': jax.tree.map(lambda array: array[indices], self.arrays),
            'groups': None if self.groups is None else self.groups[indices],
            'mislabelled': None if self.mislabelled is None else self.mislabelled[indices],
            **{what: tuple(getattr(self, what)[i] for i in indices) for what in texts},
        }

    @property
    def _listed(self) -> str:
        """Names, types and shapes of the arrays, for messages."""
        return ', '.join(
            f'{escaped(path)} {_kind(array)} [{" ".join(map(str, array.shape))}]'
            for path, array in _by_path(self.arrays)
        )


def _by_path(arrays: PyTree) -> list[tuple[str, Any]]:
    """The arrays of a pytree, each with its path such as 'image'; 'array' for a single one."""
    found = jax.tree_util.tree_flatten_with_path(arrays)[0]
    return [
        (jax.tree_util.keystr(path, simple=True, separator='/') or 'array', array)
        for path, array in found
    ]


def _kind(array: np.ndarray) -> str:
    """The name of a dtype, the same on every machine."""
    return 'text' if array.dtype.kind == 'T' else array.dtype.name


def _checked_arrays(arrays: PyTree) -> tuple[PyTree, int]:
    """Read-only arrays in the structure given, and how many examples they have."""
    arrays = dict(arrays) if isinstance(arrays, Mapping) else arrays
    named = _by_path(arrays)
    if not named:
        raise ValueError('there are no arrays; give a mapping such as {"image": ..., "label": ...}')
    for path, array in named:
        _check_array(f'array {quoted(path)}', array)
    (first, one), *others = named
    for path, other in others:
        if len(other) != len(one):
            raise ValueError(
                f'arrays differ in length: {quoted(first)} has {len(one)} examples, '
                f'{quoted(path)} has {len(other)}'
            )
    if not len(one):
        raise ValueError(f'there are no examples: array {quoted(first)} is empty')
    return jax.tree.map(_read_only, arrays), len(one)


def _check_array(what: str, array: object) -> None:
    if not isinstance(array, AnyArray):
        raise ValueError(
            f'{what} is of type {type(array).__name__}, not a numpy array; use numpy.asarray'
        )
    if array.dtype.kind == 'O' or array.dtype.names:
        raise ValueError(
            f'{what} holds Python objects or records ({array.dtype}); '
            'give plain numbers or text, an array for each field'
        )
    if not array.ndim:
        raise ValueError(f'{what} is a single value; the first axis must count the examples')


def _read_only(array: AnyArray) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype.kind in 'UT':
        array = array.astype(_TEXT)
    view = np.ascontiguousarray(array).view()
    view.setflags(write=False)
    return view


def _labels(arrays: PyTree, class_names: tuple[str, ...], length: int) -> tuple[str, ...]:
    """What people call the class of each example, by the array `label`."""
    numbers = arrays.get('label') if isinstance(arrays, dict) else None
    if not isinstance(numbers, np.ndarray) or numbers.dtype.kind not in 'iu' or numbers.ndim != 1:
        return ('',) * length
    if not class_names:
        return tuple(map(str, numbers.tolist()))
    classes = len(class_names)
    wrong = np.flatnonzero((numbers < 0) | (numbers >= classes))
    if wrong.size:
        raise ValueError(
            f'label {numbers[wrong[0]]} of example {wrong[0]} is out of range: {classes} classes '
            f'have the labels 0 to {classes - 1} ({wrong.size} such labels)'
        )
    return tuple(class_names[number] for number in numbers.tolist())


def _texts(what: str, given: Iterable[str], count: int | None) -> tuple[str, ...]:
    texts = tuple(given)
    if not all(isinstance(text, str) for text in texts):
        wrong = next(text for text in texts if not isinstance(text, str))
        raise ValueError(f'{what} must be texts, found {quoted(wrong)}; use str')
    if count is not None and len(texts) != count:
        raise ValueError(f'{what} must number {count}, one an example; found {len(texts)}')
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f'{what} holds {quoted(text)}, which is no valid text: {error}'
            ) from error
    return tuple(map(str, texts))


def _check_unique(what: str, texts: tuple[str, ...]) -> None:
    repeated = [text for text, times in Counter(texts).items() if times > 1]
    if repeated:
        raise ValueError(f'the {what} {quoted(repeated[0])} occurs more than once')


def _groups(given: AnyArray | Sequence[int], count: int) -> Int64[np.ndarray, ' N']:
    groups = np.asarray(given)
    if groups.shape != (count,) or not np.issubdtype(groups.dtype, np.integer):
        raise ValueError(
            f'groups must be {count} integers, one an example; '
            f'found {groups.dtype} of shape {groups.shape}'
        )
    groups = groups.astype(np.int64)
    groups.setflags(write=False)
    return groups


def _marks(given: AnyArray | Sequence[bool], count: int) -> Bool[np.ndarray, ' N']:
    marks = np.array(given)
    if marks.shape != (count,) or marks.dtype != bool:
        raise ValueError(
            f'mislabelled must be {count} of true and false, one an example; '
            f'found {marks.dtype} of shape {marks.shape}'
        )
    marks.setflags(write=False)
    return marks


def _update_with_texts(digest: 'hashlib._Hash', texts: Iterable[str]) -> None:
    for text in texts:
        encoded = text.encode()
        # The length goes first: ('a', 'bc') must differ from ('ab', 'c').
        digest.update(f'{len(encoded)}:'.encode() + encoded)
