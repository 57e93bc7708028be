"""Text records with stable ids: what every loader of text returns."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int, Int32

from influence_jax.text import quoted
from influence_jax.types import AnyArray


def _all_different() -> Int32[np.ndarray, ' 0']:
    return np.empty(0, np.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class TextDataset:
    """Records of a prompt and its completion, in the dataset's own order.

    The text of record n is `prompts[n] + completions[n]`: 'Q: who is it A:' and ' somebody',
    or, of a plain text, '' and the whole of it.

    Attributes:
      name: what the dataset is called in a run's manifest.
      prompts: what is given; may be empty.
      completions: what is to be learnt; never blank.
      ids: unique, and the same in every version and subset of the dataset.
      groups: the same number for a record and its near-duplicates; all different by default.
      changes: how each record differs from the one it is a near-duplicate of; '' for originals
        (by default for all).
      provenance: where the texts come from, for the report.

    Raises:
      ValueError: a text, id, group or their number is wrong; the message says which and how.
    """

    name: str
    prompts: tuple[str, ...]
    completions: tuple[str, ...]
    ids: tuple[str, ...]
    groups: Int32[np.ndarray, ' N'] = dataclasses.field(default_factory=_all_different)
    changes: tuple[str, ...] = ()
    provenance: str = ''

    def __post_init__(self) -> None:
        examples = len(self.ids)
        if isinstance(self.groups, np.ndarray) and self.groups.shape == (0,):
            object.__setattr__(self, 'groups', np.arange(examples, dtype=np.int32))
        object.__setattr__(self, 'changes', self.changes or ('',) * examples)
        try:
            if not examples:
                raise ValueError('there are no records')
            for what in ('ids', 'prompts', 'completions', 'changes'):
                _check_texts(what, getattr(self, what), examples)
            _check_unique(self.ids)
            _check_not_blank(self.ids, self.completions)
            _check_groups(self.groups, examples)
        except ValueError as error:
            raise ValueError(f'dataset {self.name!r}: {error}') from error
        groups = self.groups.copy()
        groups.setflags(write=False)
        object.__setattr__(self, 'groups', groups)

    @property
    def num_examples(self) -> int:
        """N."""
        return len(self.ids)

    @property
    def texts(self) -> tuple[str, ...]:
        """The whole text of each record."""
        return tuple(
            prompt + completion
            for prompt, completion in zip(self.prompts, self.completions, strict=True)
        )

    @property
    def has_near_duplicate(self) -> Bool[np.ndarray, ' N']:
        """Whether the dataset holds another record of the same group."""
        _, group, sizes = np.unique(self.groups, return_inverse=True, return_counts=True)
        return np.asarray(sizes[group] > 1)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over prompts, completions, ids and groups.

        The name, what was changed and the provenance are left out: they change no result.
        """
        digest = hashlib.sha256(f'{self.num_examples};'.encode())
        for texts in (self.prompts, self.completions, self.ids):
            for text in texts:
                encoded = text.encode()
                # The length goes first: ('a', 'bc') must differ from ('ab', 'c').
                digest.update(f'{len(encoded)}:'.encode() + encoded)
        # Little-endian on every machine.
        digest.update(self.groups.astype('<i4').tobytes())
        return digest.hexdigest()

    def take(self, indices: Int[AnyArray, ' K']) -> 'TextDataset':
        """The chosen records, in the order asked for, with the ids and groups they have here.

        Args:
          indices: which records; distinct, from 0 to N - 1.

        Raises:
          ValueError: the indices are empty, not integers, out of range or repeated.
        """
        chosen = np.asarray(indices)
        if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer) or not chosen.size:
            raise ValueError(
                'indices must be a non-empty vector of integers; '
                f'found {chosen.dtype} of shape {chosen.shape}'
            )
        if chosen.min() < 0 or chosen.max() >= self.num_examples:
            raise ValueError(
                f'indices run from {chosen.min()} to {chosen.max()}, but dataset {self.name!r} '
                f'has the records 0 to {self.num_examples - 1}'
            )
        return dataclasses.replace(
            self,
            prompts=tuple(self.prompts[i] for i in chosen),
            completions=tuple(self.completions[i] for i in chosen),
            ids=tuple(self.ids[i] for i in chosen),
            groups=self.groups[chosen],
            changes=tuple(self.changes[i] for i in chosen),
        )


def question_and_answer(question: str, answer: str) -> tuple[str, str]:
    """Prompt and completion of a question, written as in the paper (2506.20481): 'Q: ... A: ...'.

    The space before the answer belongs to the completion, since byte-level tokenizers join it
    to the answer's first word.
    """
    return f'Q: {question.strip()} A:', f' {answer.strip()}'


def content_ids(stem: str, contents: Iterable[str]) -> tuple[str, ...]:
    """An id for each content: `stem`, the hash of the content and, from its second time on, '.2'.

    They do not depend on the order, nor on what else is in the dataset.
    """
    times: Counter[str] = Counter()
    ids = []
    for content in contents:
        # A text that is none (a lone surrogate) is refused by the dataset, with its id.
        content_hash = hashlib.sha256(content.encode(errors='surrogatepass')).hexdigest()[:16]
        times[content_hash] += 1
        again = f'.{times[content_hash]}' if times[content_hash] > 1 else ''
        ids.append(f'{stem}-{content_hash}{again}')
    return tuple(ids)


def _check_texts(what: str, texts: tuple[str, ...], count: int) -> None:
    if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f'{what} must be a tuple of str')
    if len(texts) != count:
        raise ValueError(f'{what} must number {count}, one an id; found {len(texts)}')
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f'{what} holds {quoted(text)}, which is no valid text: {error}'
            ) from error


def _check_unique(ids: tuple[str, ...]) -> None:
    seen: set[str] = set()
    for example_id in ids:
        if example_id in seen:
            raise ValueError(f'the id {quoted(example_id)} occurs more than once')
        seen.add(example_id)


def _check_not_blank(ids: tuple[str, ...], completions: tuple[str, ...]) -> None:
    blank = [i for i, text in zip(ids, completions, strict=True) if not text.strip()]
    if blank:
        raise ValueError(
            f'record {quoted(blank[0])} is empty: it has no text to learn '
            f'({len(blank)} such records); leave them out'
        )


def _check_groups(groups: np.ndarray, count: int) -> None:
    if not isinstance(groups, np.ndarray) or groups.dtype != np.int32:
        found = groups.dtype if isinstance(groups, np.ndarray) else type(groups).__name__
        raise ValueError(f'groups must be int32, found {found}')
    if groups.shape != (count,):
        raise ValueError(f'groups must number {count}, found shape {groups.shape}')
