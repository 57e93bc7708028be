"""Scores in parts: by modules of the network, and by tokens of the target."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from influence_jax.attribution.method import (
    Attribution,
    FeatureScorer,
    Records,
    batches,
    take_rows,
)
from influence_jax.attribution.model import Model, register
from influence_jax.estimators import Columns
from influence_jax.estimators.tiling import tile_slices
from influence_jax.types import AnyArray, Batch, TokenTask


def by_module(method: Attribution, models: Sequence[Model], records: Records) -> dict[str, Columns]:
    """Splits scores by the modules whose gradients they are products of; they add up to the whole.

    Methods that are sums over parameters: gradients (of their cosine, each module's share), K-FAC
    and EK-FAC, influence functions, LoGra. What an influence function solves for all parameters at
    once is split after solving, by the example's gradient.

    All modules are computed when one is read; the last targets that were read are kept, so that
    others of the same targets cost nothing.

    Returns:
        Scores by path, such as `layers/0`.

    Raises:
        ValueError: the method is no such sum, or as `Attribution.__call__`.
    """
    block = method.target_block(models, records)
    scorer = method.prepare(models, dataclasses.replace(records, block=block))
    if not isinstance(scorer, FeatureScorer) or not scorer.modules:
        raise ValueError(
            f'{method.method.title} is no sum over modules: use one that is, such as ekfac or dot'
        )
    modules, unit = list(scorer.modules), method.unit(models[0], records)
    at_once = max(1, block // len(modules))
    last: dict[bytes, Float[np.ndarray, 'modules N t']] = {}

    def scores(targets: Int[np.ndarray, ' t']) -> Float[np.ndarray, 'modules N t']:
        key = targets.tobytes()
        if key not in last:
            rows = [targets[some] for some in tile_slices(len(targets), at_once)]
            found = [scorer.by_module(take_rows(records.targets, some)) for some in rows]
            last.clear()
            last[key] = np.concatenate(found, axis=2)
        return last[key]

    def columns(number: int) -> Columns:
        def read(targets: Int[np.ndarray, ' t']) -> Float[AnyArray, 'N t']:
            return scores(targets)[number]

        title = f'{method.method.title}, {modules[number]}'
        own = dataclasses.replace(method.method, title=title)
        return Columns(records.num_examples, records.num_targets, read, own, unit)

    return {module: columns(number) for number, module in enumerate(modules)}


def by_token(
    method: Attribution, models: Sequence[Model], records: Records, target: int
) -> Float[np.ndarray, 'N S']:
    """Splits the scores for a text by its tokens, whose losses its measurement is the sum of.

    Entry (i, s) is the score of example i for what token s adds to the target's measurement;
    positive where including the example lowers it. Rows add up to the target's column. Tokens that
    are not predicted, and padding, have 0. Each token costs a target.

    Scores of an example's tokens for a target are, of the gradient product, those of the target for
    the example: pass it as the target.

    Args:
        method: one whose scores are linear in what is measured of the target.
        models: of a task that measures tokens (`influence_jax.types.TokenTask`).
        records: the target is one of its targets.
        target: its position.

    Raises:
        ValueError: the method is not linear, the task does not measure tokens or not this
            measurement, or as `Attribution.__call__`.
    """
    examples = np.arange(records.num_examples)
    return by_token_of_pairs(method, models, records, examples, np.full(len(examples), target))


def by_token_of_pairs(
    method: Attribution,
    models: Sequence[Model],
    records: Records,
    examples: Int[np.ndarray, ' Q'],
    targets: Int[np.ndarray, ' Q'],
) -> Float[np.ndarray, 'Q S']:
    """Splits the scores of some pairs by the tokens of their targets, as `by_token` does.

    What a method computes of all examples is computed once, for all targets together.

    Args:
        method: as for `by_token`.
        models: likewise.
        records: among which the pairs are.
        examples: positions.
        targets: likewise.

    Raises:
        ValueError: as `by_token`.
    """
    if not method.linear_in_targets:
        raise ValueError(
            f'{method.method.title} is not linear in what is measured, so that scores of tokens '
            f'would not add up: use another method, such as ekfac or dot'
        )
    chosen, text_of_pair = np.unique(targets, return_inverse=True)
    texts = take_rows(records.targets, chosen)
    shares = np.concatenate(
        [
            _shares(models[0], batch, records.measurement)[: some.stop - some.start]
            for some, batch in batches(texts, records.batch)
        ]
    )
    text_of_token, places = np.nonzero(shares)
    tokens = TokenOf(take_rows(texts, text_of_token), places)
    fields = [field.name for field in dataclasses.fields(Model)]
    measured = [_OfTokens(**{name: getattr(one, name) for name in fields}) for one in models]
    split = dataclasses.replace(records, targets=tokens)
    columns = method(measured, split)
    found = np.zeros((len(targets), shares.shape[1]), np.float32)
    for block in tile_slices(len(places), method.target_block(measured, split)):
        scores = np.asarray(columns.column(np.arange(block.start, block.stop)).values)
        pairs, ours = np.nonzero(text_of_pair[:, None] == text_of_token[block][None, :])
        found[pairs, places[block][ours]] = scores[examples[pairs], ours]
    return found


class TokenOf(NamedTuple):
    """A record, and the place of the token that alone is measured of it."""

    record: Any
    place: Any


@register
class _OfTokens(Model):
    """A model that also measures single tokens, in the shares of the record's measurement."""

    def losses(
        self, chosen: Mapping[str, Array], batch: Batch, measurement: str
    ) -> Float[Array, ' B']:
        if not isinstance(batch, TokenOf):
            return super().losses(chosen, batch, measurement)
        found = _token_task(self).measure_tokens(
            self._with(chosen), jax.tree.map(jnp.asarray, batch.record)
        )
        return jnp.take_along_axis(found[measurement], batch.place[:, None], axis=1)[:, 0]


def _shares(model: Model, texts: Batch, measurement: str) -> Float[np.ndarray, 't S']:
    found = _token_task(model).measure_tokens(model.variables, jax.tree.map(jnp.asarray, texts))
    if measurement not in found:
        raise ValueError(
            f'{measurement!r} is not measured by tokens: choose measurement= of {", ".join(found)}'
        )
    return np.asarray(found[measurement])


def _token_task(model: Model) -> TokenTask:
    if not isinstance(model.task, TokenTask):
        raise ValueError(
            f'{type(model.task).__name__} does not measure tokens: give it measure_tokens '
            f'(influence_jax.types.TokenTask)'
        )
    return model.task
