"""The engine's tasks of predicting the next token: of a `GPTNeo`, or adapters of one."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float, Int, Shaped

from influence_jax.models.gpt_neo import GPTNeoConfig, network, packed
from influence_jax.models.lora import Adapters, LoRA
from influence_jax.trees import register_dataclass
from influence_jax.types import Margin, Params, PRNGKey, Task

_ALIGNED, _TILE = 8, 128


class TokenBatch(NamedTuple):
    """Records as token ids, padded at their ends.

    tokens: `[B S]`.
    lengths: `[B]` how many tokens of each count, the token that ends it included; at least 2.
    answer_starts: `[B]` where each record's completion begins; 0 where all of it is one.
    """

    tokens: Int[Array, 'B S']
    lengths: Int[Array, ' B']
    answer_starts: Int[Array, ' B']


@dataclasses.dataclass(frozen=True)
class LanguageModeling:
    """A `Task`: every record's mean token loss is trained, and measured.

    Attributes:
        config: the network.
        capacity: most tokens that a training batch predicts, over all batches of all members
            (see `training.largest_batch`). Records are then laid end to end, and so many tokens
            are computed instead of B (S - 1); a batch with more has a loss of NaN. None computes
            the padding too, and leaves the batch whole, to be spread over devices.
    """

    config: GPTNeoConfig
    capacity: int | None = None

    @property
    def measurements(self) -> tuple[str, ...]:
        """See `measure`."""
        return ('loss', 'answer_loss', 'token_accuracy')

    def init(self, *, key: PRNGKey) -> Params:
        """Fresh parameters."""
        return network.init(self.config, key=key)

    def train_loss(
        self,
        params: Params,
        batch: TokenBatch,
        *,
        key: PRNGKey,
        adapters: Adapters | None = None,
    ) -> Float[Array, ' B']:
        """Mean loss of each record's tokens given those before them, in nats.

        Records weigh the same whatever their length. The first token is not predicted.

        Args:
            params: of the network.
            batch: records.
            key: unused: GPT-Neo has no dropout.
            adapters: as for `GPTNeo.hidden`.
        """
        del key
        model = network.bind(self.config, params)
        if self.capacity is None:
            hidden = model.hidden(batch.tokens[:, :-1], adapters)
            table, labels = model.token_embedding[...], batch.tokens[:, 1:]
            rows = hidden.reshape(-1, hidden.shape[-1])
            losses = token_losses(rows, table, labels.reshape(-1)).reshape(labels.shape)
            return _mean(losses, _in_text(batch))
        counts = batch.lengths - 1
        size, longest = len(counts), batch.tokens.shape[1] - 1
        capacity = packed.whole_blocks(min(self.capacity, size * longest))
        at = packed.places(counts, capacity)
        hidden = packed.hidden(
            model,
            packed.pack(batch.tokens[:, :-1], at),
            at.record,
            at.column,
            longest=longest,
            adapters=adapters,
        )
        labels = packed.pack(batch.tokens[:, 1:], at)
        losses = token_losses(hidden, model.token_embedding[...], labels)
        means = packed.sums(losses, at, size) / counts
        return jnp.where(packed.fits(counts, capacity), means, jnp.nan)

    def measure(
        self, params: Params, batch: TokenBatch, *, adapters: Adapters | None = None
    ) -> Mapping[str, Float[Array, ' B']]:
        """What is recorded of each target.

        `loss`: mean token loss over the whole text, in nats. `answer_loss`: over the completion,
        its end included; the same where there is no prompt. `token_accuracy`: share of the
        text's tokens that are the likeliest ones given those before them.
        """
        logits = self.outputs(params, batch, adapters=adapters)
        losses, in_text = _losses(logits, batch), _in_text(batch)
        return {
            'loss': _mean(losses, in_text),
            'answer_loss': _mean(losses, _in_answer(batch)),
            'token_accuracy': _mean(jnp.argmax(logits, axis=2) == batch.tokens[:, 1:], in_text),
        }

    def measure_tokens(
        self, params: Params, batch: TokenBatch, *, adapters: Adapters | None = None
    ) -> Mapping[str, Float[Array, 'B S']]:
        """What each token adds to `loss` and to `answer_loss`; the first one nothing."""
        losses = _losses(self.outputs(params, batch, adapters=adapters), batch)

        def shares(counted: Bool[Array, 'B R']) -> Float[Array, 'B S']:
            found = jnp.where(counted, losses, 0) / counted.sum(axis=1, keepdims=True)
            return jnp.pad(found, ((0, 0), (1, 0)))

        return {'loss': shares(_in_text(batch)), 'answer_loss': shares(_in_answer(batch))}

    def outputs(
        self, params: Params, batch: TokenBatch, *, adapters: Adapters | None = None
    ) -> Float[Array, 'B R V']:
        """Logits of every token but the first: R = S - 1."""
        return network.bind(self.config, params)(batch.tokens[:, :-1], adapters)

    def output_losses(
        self, outputs: Float[Array, 'B R V'], batch: TokenBatch
    ) -> Float[Array, ' B']:
        """The `loss` of `measure`, by the logits."""
        return _mean(_losses(outputs, batch), _in_text(batch))

    def sampled_loss(
        self,
        params: Params,
        batch: TokenBatch,
        *,
        key: PRNGKey,
        adapters: Adapters | None = None,
    ) -> Float[Array, ' B']:
        """Minus the log-likelihood of tokens drawn from the model, each after the text's own.

        As many as the loss is the mean over, and scaled so that the second moment of its gradient
        is the Fisher information of that mean: by 1 / sqrt(tokens) and not 1 / tokens.
        """
        logits, in_text = self.outputs(params, batch, adapters=adapters), _in_text(batch)
        drawn = jax.random.categorical(key, jax.lax.stop_gradient(logits), axis=2)
        losses = jnp.where(in_text, _losses_of(logits, drawn), 0)
        return losses.sum(axis=1) / jnp.sqrt(in_text.sum(axis=1))

    def margin(
        self, params: Params, batch: TokenBatch, *, adapters: Adapters | None = None
    ) -> Margin:
        """Log-odds of the text's tokens, summed; the mean probability of all others."""
        logits, in_text = self.outputs(params, batch, adapters=adapters), _in_text(batch)
        is_own = jax.nn.one_hot(batch.tokens[:, 1:], logits.shape[2], dtype=bool)
        rest = jax.nn.logsumexp(jnp.where(is_own, -jnp.inf, logits), axis=2)
        own = jnp.take_along_axis(logits, batch.tokens[:, 1:, None], axis=2)[..., 0]
        log_odds = own - rest
        error = _mean(jax.nn.sigmoid(-log_odds), in_text)
        return Margin(jnp.where(in_text, log_odds, 0).sum(axis=1), error)


def token_losses(
    hidden: Float[Array, 'n D'], table: Float[Array, 'V D'], labels: Int[Array, ' n']
) -> Float[Array, ' n']:
    """Returns -log p(label) in nats, float32, for logits `hidden @ table.T`.

    Where a small model's time goes: at a width of 64 and a vocabulary of 1,000 the last layer costs
    as much as all others. So it is computed for real tokens only, and its derivative is written by
    hand: the exponentials of the forward pass are all that it needs. It is a Jacobian-vector
    product, which JAX transposes into the gradient; derivatives of every order are there.

    Args:
        hidden: features of n tokens; float32 or bfloat16.
        table: one row a token of the vocabulary; converted to the type of `hidden`.
        labels: the token that is to be predicted from each.
    """
    vocabulary = len(table)
    missing = _missing_rows(vocabulary)
    rows = jnp.pad(table, ((0, missing), (0, 0))) if missing else table
    return _of_first_tokens(vocabulary, hidden, rows, labels)


def _missing_rows(vocabulary: int) -> int:
    """How many rows fill a table up to whole tiles, on accelerators.

    With GPT-2's 50,257 no product of the last layer is aligned: on a GPU it takes two to three
    times as long.
    """
    if jax.default_backend() == 'cpu' or vocabulary % _ALIGNED == 0:
        return 0
    return -vocabulary % _TILE


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _of_first_tokens(
    vocabulary: int,
    hidden: Float[Array, 'n D'],
    table: Float[Array, 'W D'],
    labels: Int[Array, ' n'],
) -> Float[Array, ' n']:
    """As `token_losses`, where only the first rows of the table stand for tokens."""
    return _token_losses(vocabulary, hidden, table, labels)[0]


def _token_losses(
    vocabulary: int,
    hidden: Float[Array, 'n D'],
    table: Float[Array, 'W D'],
    labels: Int[Array, ' n'],
) -> tuple[Float[Array, ' n'], Float[Array, 'n W']]:
    """The losses, and the derivative of each by its logits."""
    logits = _logits(hidden, table.astype(hidden.dtype), jnp.float32)
    tokens = jnp.arange(len(table))[None, :]
    if vocabulary < len(table):
        logits = jnp.where(tokens < vocabulary, logits, -jnp.inf)
    largest = logits.max(axis=1)
    exponentials = jnp.exp(logits - largest[:, None])
    total = exponentials.sum(axis=1)
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    is_own = labels[:, None] == tokens
    return jnp.log(total) + largest - own, exponentials / total[:, None] - is_own


def _logits(hidden: Float[Array, 'n D'], rows: Float[Array, 'W D'], dtype: Any) -> Array:
    return lax.dot_general(hidden, rows, (((1,), (1,)), ((), ())), preferred_element_type=dtype)


def _token_losses_jvp(
    vocabulary: int, primals: tuple[Array, Array, Array], tangents: tuple[Any, Any, Any]
) -> tuple[Float[Array, ' n'], Float[Array, ' n']]:
    hidden, table, _ = primals
    by_hidden, by_table, _ = tangents
    losses, by_logit = _token_losses(vocabulary, *primals)
    moved = jnp.zeros(by_logit.shape, hidden.dtype)
    # In the type of `hidden`, so that the products of the gradient are, too.
    if not isinstance(by_hidden, SymbolicZero):
        moved = moved + _logits(by_hidden, table.astype(hidden.dtype), hidden.dtype)
    if not isinstance(by_table, SymbolicZero):
        # The barrier keeps the transpose out of the product of the gradient, which would have the
        # wider operand on the left: on a CPU that takes three to four times as long.
        columns = lax.optimization_barrier(by_table.astype(hidden.dtype).T)
        moved = moved + lax.dot(hidden, columns, preferred_element_type=hidden.dtype)
    return losses, (by_logit * moved).sum(axis=1)


# A frozen table costs nothing.
_of_first_tokens.defjvp(_token_losses_jvp, symbolic_zeros=True)


def _losses(logits: Float[Array, 'B R V'], batch: TokenBatch) -> Float[Array, 'B R']:
    """Of every token but the first: R = S - 1."""
    return _losses_of(logits, batch.tokens[:, 1:])


def _losses_of(logits: Float[Array, 'B R V'], tokens: Int[Array, 'B R']) -> Float[Array, 'B R']:
    own = jnp.take_along_axis(logits, tokens[..., None], axis=2)[..., 0]
    return jax.nn.logsumexp(logits, axis=2) - own


def _place(batch: TokenBatch) -> Int[Array, '1 R']:
    return jnp.arange(1, batch.tokens.shape[1])[None, :]


def _in_text(batch: TokenBatch) -> Bool[Array, 'B R']:
    return _place(batch) < batch.lengths[:, None]


def _in_answer(batch: TokenBatch) -> Bool[Array, 'B R']:
    return _in_text(batch) & (_place(batch) >= batch.answer_starts[:, None])


def _mean(values: Shaped[Array, 'B R'], counted: Bool[Array, 'B R']) -> Float[Array, ' B']:
    return jnp.where(counted, values, 0).sum(axis=1) / counted.sum(axis=1)


@dataclasses.dataclass(frozen=True)
class AdapterModeling:
    """A `BasedTask`: the members' parameters are adapters, their base is shared and frozen.

    Attributes:
        modeling: what is trained and measured.
        lora: which matrices are adapted.
    """

    modeling: LanguageModeling
    lora: LoRA

    @property
    def measurements(self) -> tuple[str, ...]:
        """Those of the modeling."""
        return self.modeling.measurements

    def on(self, base: Params) -> Task:
        """The task of adapting this base."""
        return _Adapted(self.modeling, self.lora, base)


@register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _Adapted:
    modeling: LanguageModeling = dataclasses.field(metadata={'static': True})
    lora: LoRA = dataclasses.field(metadata={'static': True})
    base: Params

    @property
    def measurements(self) -> tuple[str, ...]:
        return self.modeling.measurements

    def init(self, *, key: PRNGKey) -> Adapters:
        return self.lora.init(self.base, key=key)

    def train_loss(
        self, params: Adapters, batch: TokenBatch, *, key: PRNGKey
    ) -> Float[Array, ' B']:
        scaled = self.lora.scaled(params)
        return self.modeling.train_loss(self.base, batch, key=key, adapters=scaled)

    def measure(self, params: Adapters, batch: TokenBatch) -> Mapping[str, Float[Array, ' B']]:
        return self.modeling.measure(self.base, batch, adapters=self.lora.scaled(params))

    def measure_tokens(
        self, params: Adapters, batch: TokenBatch
    ) -> Mapping[str, Float[Array, 'B S']]:
        return self.modeling.measure_tokens(self.base, batch, adapters=self.lora.scaled(params))

    def outputs(self, params: Adapters, batch: TokenBatch) -> Float[Array, 'B R V']:
        return self.modeling.outputs(self.base, batch, adapters=self.lora.scaled(params))

    def output_losses(
        self, outputs: Float[Array, 'B R V'], batch: TokenBatch
    ) -> Float[Array, ' B']:
        return self.modeling.output_losses(outputs, batch)

    def sampled_loss(
        self, params: Adapters, batch: TokenBatch, *, key: PRNGKey
    ) -> Float[Array, ' B']:
        scaled = self.lora.scaled(params)
        return self.modeling.sampled_loss(self.base, batch, key=key, adapters=scaled)

    def margin(self, params: Adapters, batch: TokenBatch) -> Margin:
        return self.modeling.margin(self.base, batch, adapters=self.lora.scaled(params))
