"""GroupNorm, with what a residual network does next."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from influence_jax.kernels import functions, group_norm


class GroupNorm(nnx.Module):
    """GroupNorm (arXiv 1803.08494) of images, with a scale and a shift of each channel."""

    def __init__(self, channels: int, groups: int) -> None:
        self.scale = nnx.Param(jnp.ones(channels))
        self.shift = nnx.Param(jnp.zeros(channels))
        self.groups = groups

    def __call__(
        self,
        x: Float[Array, 'B H W C'],
        added: Float[Array, 'B H W C'] | None = None,
        *,
        rectified: bool = False,
    ) -> Float[Array, 'B H W C']:
        """Normalised over the pixels and channels of each group of each image.

        Args:
            x: images.
            added: to what is normalised, scaled and shifted.
            rectified: what is negative in the end is made zero.
        """
        arrays = (x, self.scale[...], self.shift[...], *([] if added is None else [added]))
        in_jax = functools.partial(_normalized, self.groups, rectified)
        if not group_norm.serves(*arrays):
            return in_jax(*arrays)
        form = group_norm.GroupNormalization(self.groups, rectified, added is not None, in_jax)
        return functions.call(form, *arrays)


def _normalized(
    groups: int,
    rectified: bool,
    x: Float[Array, 'B H W C'],
    scale: Float[Array, ' C'],
    shift: Float[Array, ' C'],
    added: Float[Array, 'B H W C'] | None = None,
) -> Float[Array, 'B H W C']:
    """By one factor and one offset for each image and channel.

    So that the image itself is passed over twice, once for its moments and once to be scaled.
    """

    def over_group(moment: Float[Array, 'B C']) -> Float[Array, 'B C']:
        batch, channels = moment.shape
        grouped = moment.reshape(batch, groups, channels // groups).mean(-1)
        return jnp.repeat(grouped, channels // groups, axis=1)

    mean = over_group(x.mean((1, 2)))
    variance = jnp.maximum(over_group(jnp.square(x).mean((1, 2))) - jnp.square(mean), 0)
    factor = jax.lax.rsqrt(variance + 1e-5) * scale[None]
    offset = shift[None] - mean * factor
    y = x * factor[:, None, None] + offset[:, None, None]
    y = y if added is None else y + added
    return jax.nn.relu(y) if rectified else y
