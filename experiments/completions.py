"""What models write after each record's prompt, and how much of the record that gives back."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from influence_jax.training.large_program import over_members
from jaxtyping import Array, Float, Int

from experiments.language_base import Base
from experiments.language_data import Records
from experiments.members import Spread
from influence_jax import training
from influence_jax.analysis import extraction
from influence_jax.data.text import prompted
from influence_jax.models.gpt_neo import abstract
from influence_jax.models.gpt_neo.decoding import greedy
from influence_jax.models.lora import LoRA
from influence_jax.training import Trained
from influence_jax.training.multihost import fetch
from influence_jax.types import AnyArray, Params

MEASUREMENTS = ('bleu', 'exact_match', 'longest_common_share')
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
        continuations: `[T]` what one that knows the record goes on with.
    """

    def __init__(
        self, records: Records, base: Base, lora: LoRA | None, spread: Spread | None = None
    ) -> None:
        self.prompts, self.continuations = prompted(
            records.dataset, records.tokens, records.tokenizer
        )
        self._records, self._base, self._lora, self._spread = records, base, lora, spread
        self._distinct = _distinct(records)
        self._over = functools.cache(self._on_streams)

    @property
    def _parameter_shapes(self) -> Params:
        """Of what a member trains: adapters, with LoRA."""
        shapes = abstract(self._base.config)
        lora = self._lora
        if lora is None:
            return shapes
        return jax.eval_shape(lambda base: lora.init(base, key=jax.random.key(0)), shapes)

    def completions(self, params: Params, members: int) -> list[list[str]]:
        """`[C T]` texts of the first C `members`.

        Args:
            params: as members have them (adapters, with LoRA), stacked; C rows or more.
            members: C.
        """
        rows = len(jax.tree.leaves(params)[0])
        spread, prompts = self._spread, self._distinct
        groups = spread.shape.member if spread else min(rows, jax.local_device_count())
        full = jax.tree.map(lambda leaf: _filled(leaf, -rows % groups), params)
        base = self._base.params if self._lora else None
        decode = self._on_mesh if spread else self._over(groups)
        decoded = decode(full, base, (prompts.tokens, prompts.lengths))
        return [self._texts(rows) for rows in fetch(decoded)[:members]]

    def measure(self, trained: Trained) -> Mapping[str, Float[np.ndarray, 'C T']]:
        """How much of each record the completions of each of these members give back."""
        scores = extraction.scores_of_members(
            self.completions(trained.result.params, len(trained.members)), self.continuations
        )
        return {name: np.asarray(getattr(scores, name), np.float32) for name in MEASUREMENTS}

    def _texts(self, rows: Int[np.ndarray, 'Q new']) -> list[str]:
        """`[T]`; those of records that are cut are cut as these are, as no end token ends them."""
        read, records = self._records.tokenizer.decode, self._records.tokens
        of_prompts = [read(row) for row in rows]
        of_targets = [of_prompts[prompt] for prompt in self._distinct.of_target]
        for target in np.flatnonzero(records.cut):
            length = records.lengths[target] - records.prompt_lengths[target]
            of_targets[target] = read(rows[self._distinct.of_target[target]][:length])
        return of_targets

    def _on_streams(self, streams: int) -> Callable[..., Array]:
        def stream(params: Params, base: Params | None, prompts: tuple[Array, Array]) -> Array:
            return jax.vmap(lambda own: self._decode(own, base, prompts))(params)

        return training.Execution(streams).over_streams(stream, (True, False, False))

    @functools.cached_property
    def _on_mesh(self) -> Callable[..., Array]:
        assert self._spread
        return over_members(
            self._decode,
            self._spread.shape,
            rules=self._spread.rules,
            params=self._parameter_shapes,
            base=self._base.params if self._lora else None,
        )

    def _decode(
        self, params: Params, base: Params | None, prompts: tuple[Array, Array]
    ) -> Int[Array, 'Q new']:
        tokens, lengths = prompts
        weights = params if self._lora is None else base
        adapters = None if self._lora is None else self._lora.scaled(params)

        def some(rows: tuple[Array, Array]) -> Array:
            return greedy(
                self._base.config,
                weights,
                *rows,
                new_tokens=self._records.tokens.longest_continuation,
                end=self._records.tokenizer.end,
                adapters=adapters,
            )

        # A few rows at a time: their caches stay small.
        vmapped = self._spread.shape.vmapped if self._spread else 1
        rows = min(max(1, _ROWS // vmapped), len(tokens))
        short = -len(tokens) % rows
        padded = [
            jnp.pad(x, [(0, short)] + [(0, 0)] * (x.ndim - 1), mode='edge')
            for x in (tokens, lengths)
        ]
        parts = jax.lax.map(some, tuple(x.reshape(-1, rows, *x.shape[1:]) for x in padded))
        return parts.reshape(-1, parts.shape[-1])[: len(tokens)]


def _filled(leaf: AnyArray, more: int) -> AnyArray:
    if not more:  # then it may stay on the devices
        return leaf
    return np.pad(leaf, [(0, more)] + [(0, 0)] * (leaf.ndim - 1), mode='edge')


def _distinct(records: Records) -> Prompts:
    end = records.tokenizer.end
    # A text of a single token is completed from the token that ends the one before.
    rows = [
        tuple(row[:length]) if length else (end,)
        for row, length in zip(records.tokens.tokens, records.tokens.prompt_lengths, strict=True)
    ]
    distinct = sorted(set(rows), key=lambda row: (len(row), row))
    place = {row: number for number, row in enumerate(distinct)}
    lengths = np.array([len(row) for row in distinct], np.int32)
    padded = np.full((len(distinct), lengths.max()), end, np.int32)
    for row, text in zip(padded, distinct, strict=True):
        row[: len(text)] = text
    return Prompts(padded, lengths, np.array([place[row] for row in rows]))
