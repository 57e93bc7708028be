"""3x3 convolutions with one pixel of zero padding, and their gradients, by functions in C++."""

import dataclasses

import jax
from jaxtyping import Array, Float

from influence_jax.kernels.library import threads
from influence_jax.types import AnyArray


@dataclasses.dataclass(frozen=True)
class Convolutions:
    """Of each of P problems; there may be no axis P.

    Attributes:
        convolve: XLA's name of the function of convolutions and gradients by the images.
        kernel_gradient: of gradients by the kernel.
    """

    convolve: str
    kernel_gradient: str

    @property
    def targets(self) -> tuple[str, str]:
        """Both names."""
        return self.convolve, self.kernel_gradient

    def convolution(
        self, images: Float[AnyArray, '*P B H W I'], kernel: Float[AnyArray, '*P 3 3 I O']
    ) -> Float[Array, '*P B H W O']:
        """The convolution."""
        return self._call(images, kernel, kernel.shape[-1], turned=False)

    def by_images(
        self, cotangent: Float[AnyArray, '*P B H W O'], kernel: Float[AnyArray, '*P 3 3 I O']
    ) -> Float[Array, '*P B H W I']:
        """Its gradient by the images."""
        return self._call(cotangent, kernel, kernel.shape[-2], turned=True)

    def by_kernel(
        self, images: Float[AnyArray, '*P B H W I'], cotangent: Float[AnyArray, '*P B H W O']
    ) -> Float[Array, '*P 3 3 I O']:
        """Its gradient by the kernel."""
        shape = (*images.shape[:-4], 3, 3, images.shape[-1], cotangent.shape[-1])
        call = jax.ffi.ffi_call(self.kernel_gradient, jax.ShapeDtypeStruct(shape, images.dtype))
        return call(images, cotangent, threads=threads())

    def _call(self, images: AnyArray, kernel: AnyArray, channels: int, *, turned: bool) -> Array:
        shape = jax.ShapeDtypeStruct((*images.shape[:-1], channels), images.dtype)
        call = jax.ffi.ffi_call(self.convolve, shape)
        return call(images, kernel, turned=turned, threads=threads())
