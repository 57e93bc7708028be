"""A text dataset as one array of tokens, and where each record's prompt ends in it."""

import functools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int32

from influence_jax.data.dataset import Dataset
from influence_jax.data.text.tokenizer import Tokenizer
from influence_jax.text import quoted

_MOST_UNKNOWN, _NOTED_UNKNOWN = 0.5, 0.01


class Tokenized(NamedTuple):
    """Records as rows of tokens, padded on the right; S is the longest record's length.

    tokens: `[N S]`; the prompt, the completion, the end token, and the end token as padding.
    lengths: `[N]`; tokens that count, the end token included.
    answer_starts: `[N]`; position of the completion's first token.
    cut: `[N]`; whether the record was shortened to the context. Such a record does not end:
      it has no end token.
    prompt_lengths: `[N]`; tokens with which a model is prompted for the rest of the record: its
      prompt or, of a record that has none, its first half.
    """

    tokens: Int32[np.ndarray, 'N S']
    lengths: Int32[np.ndarray, ' N']
    answer_starts: Int32[np.ndarray, ' N']
    cut: Bool[np.ndarray, ' N']
    prompt_lengths: Int32[np.ndarray, ' N']

    @property
    def longest_continuation(self) -> int:
        """Most tokens after a prompt, the end included."""
        return int((self.lengths - self.prompt_lengths).max())

    @property
    def positions(self) -> int:
        """How many positions a model needs to read any record and to complete any prompt."""
        completed = int(self.prompt_lengths.max()) + self.longest_continuation
        return max(self.tokens.shape[1], completed)

    @property
    def truncation_note(self) -> str:
        """How many records are longer than what is read of them; '' where none is."""
        cut = int(np.count_nonzero(self.cut))
        if not cut:
            return ''
        return f'{cut:,} of {len(self.cut):,} records are cut to {self.tokens.shape[1]} tokens'


def visible(
    prompt: str, completion: str, tokenizer: Tokenizer, *, max_length: int
) -> tuple[int, ...]:
    """Returns the tokens of a record that a model reads: the first `max_length` of them."""
    given, learned = _parts(prompt, completion, tokenizer)
    return (*given, *learned, tokenizer.end)[:max_length]


def _parts(prompt: str, completion: str, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    # The empty prompt has no tokens in any tokenizer.
    return tokenizer.encode(prompt) if prompt else [], tokenizer.encode(completion)


def encode(dataset: Dataset, tokenizer: Tokenizer, *, max_length: int = 100) -> Tokenized:
    """Tokenizes every record and closes it with the end token.

    Prompt and completion are tokenized apart and joined, so that a prompt's tokens are the same
    whatever follows it.

    Args:
      dataset: of texts.
      tokenizer: its end token closes and pads the rows.
      max_length: longest row, in tokens; longer records keep their first `max_length` tokens.
        The default is the paper's (2506.20481). `cut.sum()` is how many were shortened.

    Returns:
      Read-only arrays; those of the last datasets are kept, so that each is tokenized once.

    Raises:
      ValueError: the dataset is not of texts, or a record has nothing to learn from: its
        completion is blank or has no tokens, or nothing but white space is left of it within
        `max_length`. The message names the first such record and how many there are.
    """
    if max_length < 2:
        raise ValueError(f'{max_length=} must be 2 or more: the first token is never predicted')
    return _encoded(dataset, tokenizer, max_length)


@functools.lru_cache(maxsize=2)  # a task, its notes and its report ask for the same records
def _encoded(dataset: Dataset, tokenizer: Tokenizer, max_length: int) -> Tokenized:
    prompts, completions = dataset.array('prompt').tolist(), dataset.array('completion').tolist()
    _check_not_blank(dataset.ids, completions)
    rows, answer_starts, cut, too_long = [], [], [], []
    for example_id, prompt, completion in zip(dataset.ids, prompts, completions, strict=True):
        record = f'record {quoted(example_id)}'
        try:
            given, learned = _parts(prompt, completion, tokenizer)
        except ValueError as error:
            raise ValueError(f'{record}: {error}') from error
        if not learned:
            raise ValueError(
                f'{record} has nothing to learn from: the tokenizer makes no token '
                f'of {quoted(completion)}; leave it out'
            )
        whole = [*given, *learned, tokenizer.end]
        if len(given) >= max_length:
            too_long.append(
                f'{record} has nothing to learn from: its prompt alone takes '
                f'{len(given)} tokens of the context of {max_length}'
            )
        elif (
            len(whole) > max_length
            and not tokenizer.decode(learned[: max_length - len(given)]).strip()
        ):
            too_long.append(
                f'{record} has nothing to learn from: within the context of '
                f'{max_length} tokens its completion is white space'
            )
        rows.append(whole[:max_length])
        answer_starts.append(len(given))
        cut.append(len(whole) > max_length)
    if too_long:
        more = f' ({len(too_long)} such records of {len(rows)})' if len(too_long) > 1 else ''
        raise ValueError(f'{too_long[0]}{more}; allow longer records (max_length) or leave it out')
    lengths = np.array([len(row) for row in rows], np.int32)
    tokens = np.full((len(rows), lengths.max()), tokenizer.end, np.int32)
    for row, padded in zip(rows, tokens, strict=True):
        padded[: len(row)] = row
    prompt_lengths = [
        start or _half(row, tokenizer) for start, row in zip(answer_starts, rows, strict=True)
    ]
    records = Tokenized(
        tokens,
        lengths,
        np.array(answer_starts, np.int32),
        np.array(cut),
        np.array(prompt_lengths, np.int32),
    )
    for array in records:  # whoever asks next is given the same
        array.setflags(write=False)
    return records


def prompted(
    dataset: Dataset, records: Tokenized, tokenizer: Tokenizer
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns what a model is prompted with, `[N]`, and how one that knows the record goes on."""
    prompts, completions = dataset.array('prompt').tolist(), dataset.array('completion').tolist()
    for n, (row, length, _, cut, prompt_length) in enumerate(zip(*records, strict=True)):
        if cut or not prompts[n]:
            prompts[n] = tokenizer.decode(row[:prompt_length])
            completions[n] = tokenizer.decode(row[prompt_length:length])
    return tuple(prompts), tuple(completions)


def check_known(dataset: Dataset, tokenizer: Tokenizer, records: Tokenized) -> tuple[str, ...]:
    """Refuses records that a tokenizer can hardly read, and notes where it reads them in part.

    Returns:
      Sentences, for the user: which share of the characters no token stands for (white space
      aside), and how many records have the tokens of another one. Empty where all is well.

    Raises:
      ValueError: the tokenizer knows less than half of the characters, or all records have the
        same tokens.
    """
    texts, counts = dataset.texts, _unknown_characters(dataset, tokenizer)
    unknown, characters = (sum(column) for column in zip(*counts, strict=True))
    share = unknown / max(1, characters)
    if share > _MOST_UNKNOWN:
        worst = int(np.argmax([missing / max(1, total) for missing, total in counts]))
        raise ValueError(
            f'the tokenizer has no token for {share:.0%} of the characters of the records (such '
            f'as {quoted(texts[worst])}): it is of another language or domain; '
            'choose another tokenizer'
        )
    # The end pads, so rows of one length and of the same tokens are the same row.
    count = len(records.lengths)
    distinct = len(np.unique(np.column_stack([records.lengths, records.tokens]), axis=0))
    if distinct == 1 < count:
        raise ValueError(
            f'all {count} records have the same {records.lengths[0]} tokens, so nothing tells them '
            'apart; allow longer records (max_length), or choose another tokenizer'
        )
    notes = []
    if share > _NOTED_UNKNOWN:
        partly = sum(missing > 0 for missing, _ in counts)
        notes.append(
            f'The tokenizer has no token for {share:.1%} of the characters; {partly:,} of '
            f'{count:,} records hold some of these.'
        )
    if distinct < count:
        notes.append(
            f'{count - distinct:,} of {count:,} records have the very tokens of another record.'
        )
    return tuple(notes)


@functools.lru_cache(maxsize=2)
def _unknown_characters(dataset: Dataset, tokenizer: Tokenizer) -> list[tuple[int, int]]:
    return [tokenizer.unknown_characters(text) for text in dataset.texts]


def _check_not_blank(ids: tuple[str, ...], completions: list[str]) -> None:
    blank = [i for i, text in zip(ids, completions, strict=True) if not text.strip()]
    if blank:
        raise ValueError(
            f'record {quoted(blank[0])} is empty: it has no text to learn '
            f'({len(blank)} such records); leave them out'
        )


def _half(row: list[int], tokenizer: Tokenizer) -> int:
    """Tokens of the first half of a text; 0 where nothing but white space would follow."""
    half = (len(row) - 1) // 2
    return half if tokenizer.decode(row[half:]).strip() else 0
