"""The task of classifying images with a `ResNet`."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from influence_jax.data.augment import random_crop_and_flip
from influence_jax.models.resnet import ResNet, ResNetConfig
from influence_jax.types import Params, PRNGKey


class ImageBatch(NamedTuple):
    """Images as stored and their classes."""

    images: UInt8[Array, 'B H W C']
    labels: Int[Array, ' B']


@dataclasses.dataclass(frozen=True)
class ImageClassification:
    """A `Task`: cross-entropy training; loss, logit gap and correctness of every target.

    Attributes:
        config: the network.
        channels: C of the images.
        augment: random crops and flips of the training images.
    """

    config: ResNetConfig
    channels: int = 3
    augment: bool = False

    @property
    def measurements(self) -> tuple[str, ...]:
        """See `measure`."""
        return ('loss', 'logit_gap', 'correct')

    def init(self, *, key: PRNGKey) -> Params:
        """Fresh parameters."""
        return nnx.split(self._network(key))[1]

    def logits(self, params: Params, images: Float[Array, 'B H W C']) -> Float[Array, 'B classes']:
        """Logits of standardized images."""
        structure = nnx.split(nnx.eval_shape(lambda: self._network(jax.random.key(0))))[0]
        return nnx.merge(structure, params)(images)

    def train_loss(self, params: Params, batch: ImageBatch, *, key: PRNGKey) -> Float[Array, ' B']:
        """Cross-entropy of each image, in nats."""
        images = standardized(batch.images)
        if self.augment:
            images = random_crop_and_flip(images, key=key)
        logits = self.logits(params, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)

    def measure(self, params: Params, batch: ImageBatch) -> Mapping[str, Float[Array, ' B']]:
        """What is recorded of each target.

        `loss`: cross-entropy, in nats. `logit_gap`: log p_y - log sum of the other p, LiRA's
        statistic (arXiv 2112.03570, section V), computed from the logits so that it
        does not saturate. `correct`: 1 where the target's class has the largest logit, else 0.
        """
        logits = self.logits(params, standardized(batch.images))
        own = jnp.take_along_axis(logits, batch.labels[:, None], axis=1)[:, 0]
        is_own = jax.nn.one_hot(batch.labels, self.config.num_classes, dtype=bool)
        rest = jax.nn.logsumexp(jnp.where(is_own, -jnp.inf, logits), axis=1)
        return {
            'loss': jax.nn.softplus(rest - own),
            'logit_gap': own - rest,
            'correct': (jnp.argmax(logits, axis=1) == batch.labels).astype(jnp.float32),
        }

    def _network(self, key: PRNGKey) -> ResNet:
        return ResNet(self.config, self.channels, rngs=nnx.Rngs(params=key))


def standardized(images: UInt8[Array, 'B H W C']) -> Float[Array, 'B H W C']:
    """Every image with mean 0 and variance 1: a scale that no other example has a part in."""
    pixels = images.astype(jnp.float32) / 255
    mean = pixels.mean((1, 2, 3), keepdims=True)
    variance = pixels.var((1, 2, 3), keepdims=True)
    # An image of one colour has no contrast to restore.
    return (pixels - mean) * jax.lax.rsqrt(variance + 1e-3)
