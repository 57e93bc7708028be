"""A ResNet for small images, in forms that are fast on CPU as well as on GPU and TPU.

It differs from the ResNet of He et al. (arXiv 1512.03385, section 4.2) where that shape wastes
a CPU's or a TPU's time: the stem reads patches as channels, so no layer is both thin and of
full resolution; resolution is halved by averaging 2x2 pixels, so every convolution has stride
1; normalisation is GroupNorm, which holds no state and sees one example at a time; and features
are pooled by their maximum, since GroupNorm fixes the means that average pooling would read.
"""

import dataclasses
import math

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from influence_jax.models.convolution import conv3x3
from influence_jax.models.group_norm import GroupNorm


@dataclasses.dataclass(frozen=True)
class ResNetConfig:
    """Shape of a `ResNet`; called with `nnx.Rngs` it builds one.

    Attributes:
        num_classes: width of the output.
        width: channels of the first stage; every further stage has twice as many.
        blocks: residual blocks of each stage; resolution is halved between stages.
        patch: side of the square of pixels that the stem reads as channels.
        groups: groups of every GroupNorm.
        channels: C of the images.
    """

    num_classes: int
    width: int = 16
    blocks: tuple[int, ...] = (1, 1, 1)
    patch: int = 2
    groups: int = 8
    channels: int = 3

    def __post_init__(self) -> None:
        if self.num_classes < 2:
            raise ValueError(f'{self.num_classes} class: a classifier needs at least 2')
        if not self.blocks or min(self.width, self.patch, self.groups, *self.blocks) < 1:
            raise ValueError(f'width, patch, groups, stages and blocks must be at least 1: {self}')
        if self.width % self.groups:
            raise ValueError(
                f'width {self.width} does not divide into {self.groups} groups; '
                f'use a multiple of {self.groups}'
            )

    def __call__(self, rngs: nnx.Rngs) -> 'ResNet':
        """Builds a fresh network."""
        return ResNet(self, rngs=rngs)

    @property
    def downsampling(self) -> int:
        """Factor by which height and width shrink; images are padded to multiples of it."""
        return self.patch * 2 ** (len(self.blocks) - 1)


class Conv3x3(nnx.Module):
    """`conv3x3` with a kernel of its own (He initialisation) and no bias."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs) -> None:
        init = nnx.initializers.he_normal()
        self.kernel = nnx.Param(init(rngs.params(), (3, 3, inputs, outputs)))

    def __call__(self, x: Float[Array, 'B H W I']) -> Float[Array, 'B H W O']:
        """The convolution, of stride 1 with zero padding."""
        return conv3x3(x, self.kernel[...])


class Block(nnx.Module):
    """Two convolutions around which the input is carried, projected where the width changes."""

    def __init__(self, inputs: int, outputs: int, groups: int, *, rngs: nnx.Rngs) -> None:
        self.first = Conv3x3(inputs, outputs, rngs=rngs)
        self.first_norm = GroupNorm(outputs, groups)
        self.second = Conv3x3(outputs, outputs, rngs=rngs)
        self.second_norm = GroupNorm(outputs, groups)
        self.project = (
            None if inputs == outputs else nnx.Linear(inputs, outputs, use_bias=False, rngs=rngs)
        )

    def __call__(self, x: Float[Array, 'B H W I']) -> Float[Array, 'B H W O']:
        """Features of the same resolution."""
        hidden = self.second(self.first_norm(self.first(x), rectified=True))
        carried = x if self.project is None else _of_pixels(self.project, x)
        return self.second_norm(hidden, carried, rectified=True)


class ResNet(nnx.Module):
    """Logits of small images; see the module's docstring for its shape."""

    def __init__(self, config: ResNetConfig, *, rngs: nnx.Rngs) -> None:
        self.patch = config.patch
        self.downsampling = config.downsampling
        self.stem = Conv3x3(config.channels * config.patch**2, config.width, rngs=rngs)
        self.stem_norm = GroupNorm(config.width, config.groups)
        stages, width = [], config.width
        for stage, blocks in enumerate(config.blocks):
            outputs = config.width * 2**stage
            layers = []
            for _ in range(blocks):
                layers.append(Block(width, outputs, config.groups, rngs=rngs))
                width = outputs
            stages.append(nnx.List(layers))
        self.stages = nnx.List(stages)
        self.head = nnx.Linear(width, config.num_classes, rngs=rngs)

    def __call__(self, images: Float[Array, 'B H W C']) -> Float[Array, 'B classes']:
        """Logits `[B classes]` of images with centred pixels of order one."""
        images = _padded_to_multiple(images, self.downsampling)
        x = self.stem(_patches_as_channels(images, self.patch))
        x = self.stem_norm(x, rectified=True)
        for number, stage in enumerate(self.stages):
            if number:
                x = halve(x)
            for block in stage:
                x = block(x)
        return self.head(x.max((1, 2)))


def _padded_to_multiple(x: Float[Array, 'B H W C'], side: int) -> Array:
    _, height, width, _ = x.shape
    return jnp.pad(x, ((0, 0), (0, -height % side), (0, -width % side), (0, 0)))


def _patches_as_channels(x: Float[Array, 'B H W C'], side: int) -> Array:
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // side, side, width // side, side, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height // side, width // side, side * side * channels)


def _of_pixels(linear: nnx.Linear, x: Float[Array, 'B H W I']) -> Array:
    """Applies the layer as one product of matrices, whose gradients are faster on CPUs."""
    y = linear(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]))
    return y.reshape(*x.shape[:-1], y.shape[-1])


def halve(x: Float[Array, 'B H W C']) -> Float[Array, 'B h w C']:
    """Returns the mean of each square of four pixels; H and W are even."""
    batch, height, width, channels = x.shape
    squares = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    # On CPUs XLA's mean over these two axes is slow, most of all with ReLU fused into it.
    upper, lower = (squares[:, :, row, :, 0] + squares[:, :, row, :, 1] for row in (0, 1))
    return 0.25 * (upper + lower)
