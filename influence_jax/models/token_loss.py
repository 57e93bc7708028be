"""Cross-entropy of next tokens against a table of embeddings: where a small model's time goes.

At a width of 64 and a vocabulary of 1,000 the last layer costs as much as all others. So it is
computed for real tokens only, not for padding, and its gradient is written by hand: the
exponentials of the forward pass are all that the backward pass needs.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int


@jax.custom_vjp
def token_losses(
    hidden: Float[Array, 'n D'], table: Float[Array, 'V D'], labels: Int[Array, ' n']
) -> Float[Array, ' n']:
    """-log p(label) in nats, float32, for logits `hidden @ table.T`.

    Args:
        hidden: features of n tokens; float32 or bfloat16.
        table: one row a token of the vocabulary; converted to the type of `hidden`.
        labels: the token that is to be predicted from each.
    """
    return _forward(hidden, table, labels)[0]


def _forward(
    hidden: Float[Array, 'n D'], table: Float[Array, 'V D'], labels: Int[Array, ' n']
) -> tuple[Float[Array, ' n'], tuple]:
    rows = table.astype(hidden.dtype)
    logits = lax.dot_general(
        hidden, rows, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
    )
    largest = logits.max(axis=1)
    exponentials = jnp.exp(logits - largest[:, None])
    total = exponentials.sum(axis=1)
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
    losses = jnp.log(total) + largest - own
    return losses, (hidden, table, labels, exponentials, total)


def _backward(residuals: tuple, gradient: Float[Array, ' n']) -> tuple[Array, Array, None]:
    hidden, table, labels, exponentials, total = residuals
    is_own = labels[:, None] == jnp.arange(table.shape[0])[None, :]
    by_logit = exponentials * (gradient / total)[:, None] - is_own * gradient[:, None]
    by_logit = by_logit.astype(hidden.dtype)
    by_hidden = lax.dot_general(
        by_logit,
        table.astype(hidden.dtype),
        (((1,), (0,)), ((), ())),
        preferred_element_type=jnp.float32,
    )
    # The narrower one on the left, and the transpose kept out of the product: on a CPU the other
    # order takes three to four times as long.
    by_table = lax.optimization_barrier(
        lax.dot_general(
            hidden, by_logit, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
        )
    )
    return by_hidden.astype(hidden.dtype), by_table.T.astype(table.dtype), None


token_losses.defvjp(_forward, _backward)
