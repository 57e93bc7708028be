"""3x3 convolutions and their gradients by Winograd's F(2x2, 3x3), on CPUs.

Of the products of a direct convolution they need 4/9. On one core of a Zen 4 they take 0.54 to 0.72
of XLA's time for a convolution or a gradient by the images, 0.36 to 0.60 for a gradient by the
kernel (docs/results/throughput.md). Results differ from those of a direct convolution by rounding.
"""

from influence_jax.kernels import library
from influence_jax.kernels.convolutions import Convolutions

WINOGRAD = Convolutions('influence_jax_convolve', 'influence_jax_kernel_gradient')
_LEAST_CHANNELS, _MOST_CHANNELS = 8, 4096


def serves(inputs: int, outputs: int) -> bool:
    """Whether convolutions between so many channels are to be computed here; else by XLA."""
    return (
        min(inputs, outputs) >= _LEAST_CHANNELS
        and max(inputs, outputs) <= _MOST_CHANNELS
        and library.registered('winograd.cc', WINOGRAD.targets)
    )
