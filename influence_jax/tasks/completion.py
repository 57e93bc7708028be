"""What models write after each record's prompt, and how much of the record that is."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from influence_jax.data.text import Tokenized, Tokenizer
from influence_jax.data.text.similarity import scores_of_members
from influence_jax.models.gpt_neo import GPTNeoConfig, abstract
from influence_jax.models.gpt_neo.decoding import greedy
from influence_jax.models.lora import LoRA
from influence_jax.training import Executor, Trained, sequential
from influence_jax.training.compiled import over_members
from influence_jax.training.multihost import fetch
from influence_jax.types import AnyArray, Params

EXTRACTION = ('bleu', 'exact_match', 'longest_common_share')
"""Names of what is measured of completions."""

_ROWS = 128


class Prompts(NamedTuple):
    """Distinct prompts, shortest first: near-duplicates share one.

    tokens: `[Q P]`.
    lengths: `[Q]`.
    of_target: `[T]` the prompt of each target.
    """

    tokens: Int[np.ndarray, 'Q P']
    lengths: Int[np.ndarray, ' Q']
    of_target: Int[np.ndarray, ' T']


class Completer:
    """Completes the prompts of all records, greedily, by several members at once.

    Attributes:
        prompts: `[T]` what members are given.
        continuations: `[T]` how one that knows the record goes on.
    """

    def __init__(
        self,
        config: GPTNeoConfig,
        tokenizer: Tokenizer,
        records: Tokenized,
        prompted: tuple[tuple[str, ...], tuple[str, ...]],
        *,
        base: Params | None = None,
        lora: LoRA | None = None,
        executor: Executor | None = None,
    ) -> None:
        """Nothing is compiled before it is used.

        Args:
            config: the network.
            tokenizer: of the records.
            records: T of them.
            prompted: prompts and continuations, from `data.text.prompted`.
            base: what adapters change, with `lora`.
            lora: the adapters; None where members have all of a network.
            executor: how large members share devices; the others are spread over all of them.
        """
        self.prompts, self.continuations = prompted
        self._config, self._tokenizer, self._records = config, tokenizer, records
        self._base, self._lora = base if lora else None, lora
        self._executor = executor if executor and executor.stepwise else None
        self._decode = functools.cache(self._compiled)

    def completions(self, params: Params, members: int) -> list[list[str]]:
        """Returns the texts `[C T]` of the first C `members`.

        Args:
            params: as members have them (adapters, with LoRA), stacked; C rows or more.
            members: C.
        """
        rows = len(jax.tree.leaves(params)[0])
        groups = min(rows, jax.local_device_count())
        if self._executor:
            groups = self._executor.shape.member
        full = jax.tree.map(lambda leaf: _filled(leaf, -rows % groups), params)
        prompts = self._distinct
        decoded = self._decode(groups)(full, self._base, (prompts.tokens, prompts.lengths))
        return [self._texts(rows) for rows in fetch(decoded)[:members]]

    def measure(self, trained: Trained) -> Mapping[str, Float[np.ndarray, 'C T']]:
        """Returns how much of each record the completions of each of these members are."""
        scores = scores_of_members(
            self.completions(trained.result.params, len(trained.members)), self.continuations
        )
        return {name: np.asarray(getattr(scores, name), np.float32) for name in EXTRACTION}

    def _texts(self, rows: Int[np.ndarray, 'Q new']) -> list[str]:
        """`[T]`; those of records that are cut are cut as these are, as no end token ends them."""
        read, records, prompts = self._tokenizer.decode, self._records, self._distinct
        of_prompts = [read(row) for row in rows]
        of_targets = [of_prompts[prompt] for prompt in prompts.of_target]
        for target in np.flatnonzero(records.cut):
            length = records.lengths[target] - records.prompt_lengths[target]
            of_targets[target] = read(rows[prompts.of_target[target]][:length])
        return of_targets

    def _compiled(self, groups: int) -> Callable[..., Array]:
        shapes, lora = abstract(self._config), self._lora
        params = (
            shapes
            if lora is None
            else jax.eval_shape(lambda base: lora.init(base, key=jax.random.key(0)), shapes)
        )
        executor = self._executor or sequential(groups)
        return over_members(self._greedy, executor, params=params, base=self._base)

    def _greedy(
        self, params: Params, base: Params | None, prompts: tuple[Array, Array]
    ) -> Int[Array, 'Q new']:
        tokens, lengths = prompts
        weights = params if self._lora is None else base
        adapters = None if self._lora is None else self._lora.scaled(params)

        def some(rows: tuple[Array, Array]) -> Array:
            return greedy(
                self._config,
                weights,
                *rows,
                new_tokens=self._records.longest_continuation,
                end=self._tokenizer.end,
                adapters=adapters,
            )

        # A few rows at a time: their caches stay small.
        vmapped = self._executor.shape.vmapped if self._executor else 1
        rows = min(max(1, _ROWS // vmapped), len(tokens))
        short = -len(tokens) % rows
        padded = [
            jnp.pad(x, [(0, short)] + [(0, 0)] * (x.ndim - 1), mode='edge')
            for x in (tokens, lengths)
        ]
        parts = jax.lax.map(some, tuple(x.reshape(-1, rows, *x.shape[1:]) for x in padded))
        return parts.reshape(-1, parts.shape[-1])[: len(tokens)]

    @functools.cached_property
    def _distinct(self) -> Prompts:
        records, end = self._records, self._tokenizer.end
        # A text of a single token is completed from the token that ends the one before.
        rows = [
            tuple(row[:length]) if length else (end,)
            for row, length in zip(records.tokens, records.prompt_lengths, strict=True)
        ]
        distinct = sorted(set(rows), key=lambda row: (len(row), row))
        place = {row: number for number, row in enumerate(distinct)}
        lengths = np.array([len(row) for row in distinct], np.int32)
        padded = np.full((len(distinct), lengths.max()), end, np.int32)
        for row, prompt in zip(padded, distinct, strict=True):
            row[: len(prompt)] = prompt
        return Prompts(padded, lengths, np.array([place[row] for row in rows]))


def _filled(leaf: AnyArray, more: int) -> AnyArray:
    if not more:  # then it may stay on the devices
        return leaf
    return np.pad(leaf, [(0, more)] + [(0, 0)] * (leaf.ndim - 1), mode='edge')
