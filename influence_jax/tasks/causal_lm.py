"""Causal language modeling of text datasets, and what members write when prompted."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from influence_jax.data import Dataset, text
from influence_jax.data.text import Tokenized, Tokenizer
from influence_jax.models.gpt_neo import GPTNeoConfig
from influence_jax.models.lora import LoRA
from influence_jax.store import COMPLETIONS, Shown
from influence_jax.tasks.base import Problem
from influence_jax.tasks.completion import EXTRACTION, Completer
from influence_jax.tasks.language_modeling import AdapterModeling, LanguageModeling, TokenBatch
from influence_jax.training import Executor, Program, Trained, WarmStart, largest_batch
from influence_jax.training.compiled import place_on_mesh
from influence_jax.types import AnyArray, Masks, Params, PRNGKey

_LOGITS_AT_ONCE = 2**25
"""Most logits that a member holds on a device while targets are measured: 128 MiB of them."""


@dataclasses.dataclass(frozen=True, eq=False)
class CausalLM:
    """Trains language models on the records of a text dataset, all tokens of them.

    Measured of every target, in nats: `loss`, the mean token loss of the whole text; `answer_loss`,
    of the completion alone; and `token_accuracy`. With `extract` every member also completes every
    record's prompt, greedily, and `bleu`, `exact_match` and `longest_common_share` say how much of
    the record that is (see `influence_jax.data.text.similarity`).

    Attributes:
        config: the network.
        tokenizer: turns texts to tokens.
        params: what members start from; None where each begins afresh.
        params_identity: what tells these parameters from others; their SHA-256 by default.
        lora: train adapters on frozen `params` instead of all of the model; None trains all of it.
        max_length: longest record in tokens; longer ones are cut.
        extract: whether members complete the prompts.
        keep_completions: keep what a single member writes, for `train_full_data_model`.
    """

    config: GPTNeoConfig
    tokenizer: Tokenizer
    params: Params | None = None
    params_identity: str = ''
    lora: LoRA | None = None
    max_length: int = 100
    extract: bool = False
    keep_completions: bool = False

    def __post_init__(self) -> None:
        if self.max_length < 2:
            raise ValueError(
                f'max_length must be 2 or more, not {self.max_length}: the first token of a '
                f'record is never predicted'
            )
        if self.lora and self.params is None:
            raise ValueError('adapters need parameters to adapt: give params, or leave out lora')
        if self.tokenizer.vocab_size > self.config.vocab_size:
            raise ValueError(
                f'the tokenizer has {self.tokenizer.vocab_size} tokens, but the network only '
                f'{self.config.vocab_size}: the two do not belong together'
            )

    def bind(
        self, dataset: Dataset, targets: Dataset | None = None, *, executor: Executor | None = None
    ) -> Problem:
        """Returns what the engine trains: the tokens of each record.

        Raises:
            ValueError: the dataset has no texts, a record has nothing to learn from, or records
                are longer than the network's positions.
        """
        records = self.encode(dataset)
        of_targets = records if targets is None else self.encode(targets)
        examples = _batch(records)
        modeling = LanguageModeling(self.config)
        task: Any = modeling if self.params is None else WarmStart(modeling)
        base = self.params
        if self.lora:
            task = AdapterModeling(modeling, self.lora)
            if executor and executor.stepwise:  # one copy on the devices, to train and to decode
                base = place_on_mesh(base, executor)
        completer = self._completer(targets or dataset, of_targets, base, executor)
        logits = of_targets.tokens.shape[1] * self.config.vocab_size
        parts = executor.shape.data if executor else 1
        return Problem(
            task,
            examples,
            examples if targets is None else _batch(of_targets),
            base=base,
            description=self._description(),
            measure_batch=parts * max(1, _LOGITS_AT_ONCE // logits),
            refine=functools.partial(self._refine, records),
            extra=completer.measure if self.extract else None,
            extra_names=EXTRACTION if self.extract else (),
            shown=self._shown(dataset, records),
            texts=functools.partial(_completions, completer) if self.keep_completions else None,
        )

    def encode(self, dataset: Dataset) -> Tokenized:
        """Returns the records as the model reads them; ValueError as of `bind`."""
        records = text.encode(dataset, self.tokenizer, max_length=self.max_length)
        if records.positions > self.config.max_positions:
            raise ValueError(
                f'records and their completions need {records.positions} tokens, but the network '
                f'has {self.config.max_positions} positions; lower max_length'
            )
        return records

    def notes(self, dataset: Dataset) -> tuple[str, ...]:
        """Returns what is read in part, a sentence each; ValueError where hardly any is."""
        return self._notes(dataset, self.encode(dataset))

    def _notes(self, dataset: Dataset, records: Tokenized) -> tuple[str, ...]:
        known = text.check_known(dataset, self.tokenizer, records)
        return (*known, *filter(None, [records.truncation_note]))

    def _completer(
        self,
        dataset: Dataset,
        records: Tokenized,
        base: Params | None,
        executor: Executor | None,
    ) -> Completer:
        return Completer(
            self.config,
            self.tokenizer,
            records,
            text.prompted(dataset, records, self.tokenizer),
            base=base,
            lora=self.lora,
            executor=executor,
        )

    def _refine(
        self,
        records: Tokenized,
        program: Program,
        *,
        masks: Masks,
        key: PRNGKey,
        executor: Executor,
    ) -> Program:
        """Lays records end to end, in as many tokens as the largest batch has."""
        if executor.stepwise:  # there a batch stays whole, to be spread over devices
            return program
        capacity = largest_batch(program, masks, key=key, sizes=records.lengths - 1)
        task: Any = dataclasses.replace(LanguageModeling(self.config), capacity=capacity)
        if self.lora:
            return program._replace(task=AdapterModeling(task, self.lora))
        return program._replace(task=task if self.params is None else WarmStart(task))

    def _shown(self, dataset: Dataset, records: Tokenized) -> Shown:
        prompts, completions = text.prompted(dataset, records, self.tokenizer)
        return Shown(
            names=tuple(dataset.texts),
            labels=dataset.labels,
            groups=dataset.groups,
            changes=dataset.changes,
            texts=tuple(dataset.texts),
            prompts=prompts,
            completions=completions,
            provenance=dataset.provenance,
            notes=(*dataset.notes, *self._notes(dataset, records)),
        )

    def _description(self) -> Mapping[str, Any]:
        return {
            'task': 'CausalLM',
            'network': self.config.to_hugging_face()
            | {'compute_dtype': self.config.compute_dtype.name},
            'base': self.identity,
            'lora': None if self.lora is None else dataclasses.asdict(self.lora),
            'tokenizer': self.tokenizer.fingerprint,
            'max_length': self.max_length,
            'extract': self.extract,
        }

    @functools.cached_property
    def identity(self) -> str:
        """What tells the parameters that members start from; 'none' where there are none."""
        if self.params is None:
            return 'none'
        return self.params_identity or self.checksum

    @functools.cached_property
    def checksum(self) -> str:
        """The `fingerprint` of the parameters that members start from."""
        return fingerprint(self.params)


def fingerprint(params: Params) -> str:
    """Returns 16 hexadecimal digits of the SHA-256 of parameters."""
    digest = hashlib.sha256()

    def add(leaf: AnyArray) -> None:
        digest.update(np.ascontiguousarray(leaf).data)

    jax.tree.map(add, params)
    return digest.hexdigest()[:16]


def _batch(records: Tokenized) -> TokenBatch:
    return TokenBatch(
        jnp.asarray(records.tokens),
        jnp.asarray(records.lengths),
        jnp.asarray(records.answer_starts),
    )


def _completions(completer: Completer, trained: Trained) -> dict[str, list[str]]:
    (decoded,) = completer.completions(trained.result.params, 1)
    return {COMPLETIONS: decoded}
