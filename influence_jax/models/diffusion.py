"""A small denoising network: two resolutions, convolutions, and the time in every block.

A U-Net (Ronneberger et al. 2015, arXiv 1505.04597) as Ho et al. (2020, arXiv 2006.11239) use it,
cut down to what a CPU trains in seconds; its parts are those of `resnet`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from influence_jax.models.group_norm import GroupNorm
from influence_jax.models.resnet import Conv3x3, halve

_FREQUENCIES = 8


@dataclasses.dataclass(frozen=True)
class DenoiserConfig:
    """Shape of a `Denoiser`; called with `nnx.Rngs` it builds one.

    Attributes:
        channels: C of the images.
        width: channels at full resolution; twice as many at half of it.
        groups: groups of every GroupNorm.
    """

    channels: int = 1
    width: int = 16
    groups: int = 8

    def __post_init__(self) -> None:
        if min(self.channels, self.width, self.groups) < 1 or self.width % self.groups:
            raise ValueError(
                f'{self}: all must be at least 1, and width a multiple of groups={self.groups}'
            )

    def __call__(self, rngs: nnx.Rngs) -> 'Denoiser':
        """Builds a fresh network."""
        return Denoiser(self, rngs=rngs)


class TimedBlock(nnx.Module):
    """Two convolutions around which the input is carried; the time shifts what is between them."""

    def __init__(self, inputs: int, outputs: int, config: DenoiserConfig, rngs: nnx.Rngs) -> None:
        self.first = Conv3x3(inputs, outputs, rngs=rngs)
        self.first_norm = GroupNorm(outputs, config.groups)
        self.time = nnx.Linear(2 * _FREQUENCIES, outputs, rngs=rngs)
        self.second = Conv3x3(outputs, outputs, rngs=rngs)
        self.second_norm = GroupNorm(outputs, config.groups)
        self.project = nnx.Linear(inputs, outputs, use_bias=False, rngs=rngs)

    def __call__(
        self, x: Float[Array, 'B H W I'], time: Float[Array, 'B E']
    ) -> Float[Array, 'B H W O']:
        """Features of the same resolution."""
        hidden = self.first_norm(self.first(x)) + self.time(time)[:, None, None]
        hidden = self.second_norm(self.second(jax.nn.silu(hidden)))
        return jax.nn.silu(hidden + self.project(x))


class Denoiser(nnx.Module):
    """The noise in images, by the images and how far they are noised."""

    def __init__(self, config: DenoiserConfig, *, rngs: nnx.Rngs) -> None:
        width = config.width
        self.down = TimedBlock(config.channels, width, config, rngs)
        self.middle = TimedBlock(width, 2 * width, config, rngs)
        self.up = TimedBlock(3 * width, width, config, rngs)
        self.head = nnx.Linear(width, config.channels, rngs=rngs)

    def __call__(
        self, inputs: tuple[Float[Array, 'B H W C'], Float[Array, ' B']]
    ) -> Float[Array, 'B H W C']:
        """Noise of the images' shape.

        Args:
            inputs: noised images, H and W even, and their times from 0 (none) to 1 (noise alone).
        """
        images, times = inputs
        if images.shape[1] % 2 or images.shape[2] % 2:
            raise ValueError(f'height and width must be even, not {images.shape[1:3]}: pad images')
        time = _embedded(times)
        fine = self.down(images, time)
        coarse = self.middle(halve(fine), time)
        raised = jnp.repeat(jnp.repeat(coarse, 2, axis=1), 2, axis=2)
        return self.head(self.up(jnp.concatenate([fine, raised], axis=-1), time))


def _embedded(times: Float[Array, ' B']) -> Float[Array, 'B E']:
    """Sines and cosines of half a turn and its multiples."""
    angles = times[:, None] * (jnp.pi * jnp.arange(1, _FREQUENCIES + 1) / 2)[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)
