"""Ways of writing the 3x3 convolutions of vmapped members: every member has a kernel of its own.

    python -m benchmarks.member_convolutions [--members=64]

For accelerators, where members train side by side. Prints microseconds of forward and both
gradients within a scan, and TFLOP/s of the direct form's operations. A product is rounded as said:
TF32 is what XLA makes of float32 on recent NVIDIA GPUs unless told otherwise.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from jax import lax

from benchmarks.convolution_forms import patches
from influence_jax.models import band_convolution
from influence_jax.models.convolution import _convolve

_MEMBERS = flags.DEFINE_integer('members', 64, 'members at a time')
_FIRST = flags.DEFINE_integer('first', 0, 'shape to begin with')
_REPEATS = flags.DEFINE_integer('repeats', 20, 'steps of the scan')

SHAPES = (
    (8, 48, 32),
    (8, 32, 32),
    (4, 64, 64),
    (16, 16, 16),
    (32, 16, 16),
    (16, 64, 64),
)
BATCH = 48


def product(a: jax.Array, b: jax.Array, axes: tuple[int, int], dtype: Any) -> jax.Array:
    """Of one member, with float32 sums."""
    return lax.dot_general(
        a.astype(dtype),
        b.astype(dtype),
        (((axes[0],), (axes[1],)), ((), ())),
        preferred_element_type=jnp.float32,
    )


def by_hand(forward: Callable, weights: Callable) -> Callable:
    """A convolution whose gradients are written by `forward` and `weights(x, g)`."""

    @jax.custom_vjp
    def form(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return forward(x, kernel)

    def back(kept: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, kernel = kept
        rotated = jnp.transpose(kernel[::-1, ::-1], (0, 1, 3, 2))
        return forward(g, rotated), weights(x, g)

    form.defvjp(lambda x, k: (forward(x, k), (x, k)), back)
    return form


def im2col(dtype: Any) -> Callable:
    def forward(x: jax.Array, kernel: jax.Array) -> jax.Array:
        rows = patches(x.astype(dtype)).reshape(-1, 9 * x.shape[-1])
        y = product(rows, kernel.reshape(rows.shape[-1], -1), (1, 0), dtype)
        return y.reshape(*x.shape[:3], -1)

    def weights(x: jax.Array, g: jax.Array) -> jax.Array:
        rows = patches(x.astype(dtype)).reshape(-1, 9 * x.shape[-1])
        found = product(rows, g.reshape(-1, g.shape[-1]), (0, 0), dtype)
        return found.reshape(3, 3, x.shape[-1], g.shape[-1])

    return by_hand(forward, weights)


def band(dtype: Any) -> Callable:
    """What the library computes on NVIDIA GPUs."""
    return by_hand(
        partial(band_convolution.convolution, dtype), partial(band_convolution.by_kernel, dtype)
    )


FORMS: dict[str, Callable] = {
    'grouped convolutions': _convolve,
    'im2col, TF32': im2col(jnp.float32),
    'im2col, bfloat16': im2col(jnp.bfloat16),
    'band matrices, TF32': band(jnp.float32),
    'band matrices, bfloat16': band(jnp.bfloat16),
}


def seconds(form: Callable, x: jax.Array, kernels: jax.Array) -> float:
    """Of forward and both gradients of all members."""

    def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.square(form(x, kernel)).sum()

    gradients = jax.vmap(jax.grad(loss, argnums=(0, 1)))

    def body(carry: tuple[jax.Array, ...], _: None) -> tuple[tuple[jax.Array, ...], None]:
        by_x, by_kernel = gradients(*carry)
        return (carry[0] + 1e-12 * by_x, carry[1] + 1e-12 * by_kernel), None

    run = jax.jit(lambda *carry: lax.scan(body, carry, length=_REPEATS.value)[0])
    jax.block_until_ready(run(x, kernels))
    times = []
    for _ in range(4):
        start = time.perf_counter()
        jax.block_until_ready(run(x, kernels))
        times.append(time.perf_counter() - start)
    return min(times) / _REPEATS.value


def main(_: list[str]) -> None:
    members = _MEMBERS.value
    keys = jax.random.split(jax.random.key(0), 2)
    print(f'{jax.devices()[0].device_kind}, {members} members, batch {BATCH}')
    for side, inputs, outputs in SHAPES[_FIRST.value :]:
        x = jax.random.normal(keys[0], (members, BATCH, side, side, inputs))
        kernels = 0.05 * jax.random.normal(keys[1], (members, 3, 3, inputs, outputs))
        flops = 3 * 2 * 9 * inputs * outputs * side**2 * BATCH * members
        print(f'\n{side}x{side}, {inputs} to {outputs} channels')
        reference = jax.grad(lambda x, k: jnp.square(_convolve(x, k)).sum(), argnums=(0, 1))
        expected = reference(x[0], kernels[0])
        for name, form in FORMS.items():
            found = jax.grad(lambda x, k, form=form: jnp.square(form(x, k)).sum(), argnums=(0, 1))(
                x[0], kernels[0]
            )
            error = max(
                float(jnp.abs(a - b).max() / jnp.abs(b).max())
                for a, b in zip(found, expected, strict=True)
            )
            t = seconds(form, x, kernels)
            print(
                f'  {name:34}{1e6 * t:9.0f} us{flops / t / 1e12:8.1f} TFLOP/s'
                f'   largest error {error:.0e}',
                flush=True,
            )


if __name__ == '__main__':
    app.run(main)
