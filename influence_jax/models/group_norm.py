"""GroupNorm, with what a residual network does next."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from influence_jax.kernels import functions, group_norm


class GroupNorm(nnx.Module):
    """GroupNorm (arXiv 1803.08494) of images, with a scale and a shift of each channel.

    Raises:
      ValueError: `channels` do not divide into `groups`.
    """

    def __init__(self, channels: int, groups: int) -> None:
        if groups < 1 or channels % groups:
            raise ValueError(f'{channels=} do not divide into {groups=}')
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
        """Normalized over the pixels and channels of each group of each image.

        Args:
            x: images.
            added: to what is normalized, scaled and shifted.
            rectified: what is negative in the end is made zero.

        Raises:
            ValueError: shapes that do not fit.
        """
        channels = len(self.scale[...])
        if x.ndim != 4 or x.shape[-1] != channels:
            raise ValueError(f'images {x.shape}: GroupNorm here needs [B H W {channels}]')
        if added is not None and added.shape != x.shape:
            raise ValueError(f'what is added {added.shape} must be like the images {x.shape}')
        arrays = (x, self.scale[...], self.shift[...], *([] if added is None else [added]))
        in_jax = _form_in_jax(self.groups, rectified)
        if not group_norm.serves(*arrays):
            return in_jax(*arrays)
        form = group_norm.GroupNormalization(self.groups, rectified, added is not None, in_jax)
        return functions.call(form, *arrays)


@functools.cache
def _form_in_jax(groups: int, rectified: bool) -> Callable[..., Array]:
    """One function for each, so that a program which knows it is not compiled again."""
    return functools.partial(_normalized, groups, rectified)


def _normalized(
    groups: int,
    rectified: bool,
    x: Float[Array, 'B H W C'],
    scale: Float[Array, ' C'],
    shift: Float[Array, ' C'],
    added: Float[Array, 'B H W C'] | None = None,
) -> Float[Array, 'B H W C']:
    """Returns the images scaled by one factor and one offset for each image and channel.

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
