"""Ways of writing a 3x3 convolution and its gradients, timed where members train: in a scan.

    python -m benchmarks.convolution_forms

Prints milliseconds, and GFLOP/s of the direct form's operations, on one core.
"""

import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from absl import app
from jax import lax

from influence_jax.models.convolution import _convolve, conv3x3

SHAPES = ((8, 32), (4, 64), (16, 16), (16, 32), (8, 64))
BATCH, REPEATS = 48, 30


def patches(x: jax.Array) -> jax.Array:
    _, height, width, _ = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifts, axis=-1)


def im2col(x: jax.Array, kernel: jax.Array) -> jax.Array:
    columns = patches(x)
    rows = columns.reshape(-1, columns.shape[-1])
    return (rows @ kernel.reshape(rows.shape[-1], -1)).reshape(*x.shape[:3], -1)


def in_bfloat16(a: jax.Array, b: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """A product of bfloat16 factors with float32 sums, which runs on AMX where there is any."""
    return lax.dot_general(
        a.astype(jnp.bfloat16),
        b.astype(jnp.bfloat16),
        (((axes[0],), (axes[1],)), ((), ())),
        preferred_element_type=jnp.float32,
    )


def rows_of_patches(x: jax.Array) -> jax.Array:
    columns = lax.optimization_barrier(patches(x.astype(jnp.bfloat16)))
    return columns.reshape(-1, columns.shape[-1])


@jax.custom_vjp
def im2col_bfloat16(x: jax.Array, kernel: jax.Array) -> jax.Array:
    rows = rows_of_patches(x)
    product = in_bfloat16(rows, kernel.reshape(rows.shape[-1], -1), (1, 0))
    return product.reshape(*x.shape[:3], -1)


def _im2col_bfloat16_back(kept: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple:
    x, kernel = kept
    inputs, outputs = kernel.shape[2:]
    by_x = im2col_bfloat16(g, jnp.transpose(kernel[::-1, ::-1], (0, 1, 3, 2)))
    by_kernel = in_bfloat16(g.reshape(-1, outputs), rows_of_patches(x), (0, 0))
    return by_x, by_kernel.reshape(outputs, 3, 3, inputs).transpose(1, 2, 3, 0)


im2col_bfloat16.defvjp(lambda x, k: (im2col_bfloat16(x, k), (x, k)), _im2col_bfloat16_back)


def product_alone(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Of im2col's size, with factors that are there."""
    rows = jnp.broadcast_to(x.reshape(-1)[:1], (x.size // x.shape[-1], 9 * x.shape[-1]))
    rows = lax.optimization_barrier(rows.astype(jnp.bfloat16))
    return in_bfloat16(rows, kernel.reshape(rows.shape[-1], -1), (1, 0))


def winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """F(2x2, 3x3): a 4/9 of the multiplications, and transforms over every activation."""
    batch, height, width, channels = x.shape
    rows, columns = height // 2, width // 2
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

    def combine(parts: list[jax.Array]) -> list[jax.Array]:
        a, b, c, d = parts
        return [a - c, b + c, c - b, b - d]

    horizontal = combine([padded[:, i : i + 2 * rows - 1 : 2] for i in range(4)])
    tiles = [
        t
        for part in horizontal
        for t in combine([part[:, :, j : j + 2 * columns - 1 : 2] for j in range(4)])
    ]
    transform = jnp.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
    kernels = jnp.einsum('ij,jkco,lk->ilco', transform, kernel, transform)
    product = lax.dot_general(
        jnp.stack(tiles).reshape(16, -1, channels),
        kernels.reshape(16, channels, -1),
        (((2,), (1,)), ((0,), (0,))),
    ).reshape(4, 4, batch, rows, columns, -1)
    up = [product[0] + product[1] + product[2], product[1] - product[2] - product[3]]
    pixels = [jnp.stack([u[0] + u[1] + u[2], u[1] - u[2] - u[3]], axis=3) for u in up]
    return jnp.stack(pixels, axis=2).reshape(batch, height, width, -1)


def weight_convolution(x: jax.Array, g: jax.Array) -> jax.Array:
    first, second = lax.optimization_barrier(
        (jnp.transpose(x, (3, 1, 2, 0)), jnp.transpose(g, (1, 2, 0, 3)))
    )
    return _convolve(first, second)


def weight_wide_minor(x: jax.Array, g: jax.Array) -> jax.Array:
    columns = patches(x)
    flat = g.reshape(-1, g.shape[-1]), columns.reshape(-1, columns.shape[-1])
    return lax.dot_general(*flat, (((0,), (0,)), ((), ())))


def weight_narrow_minor(x: jax.Array, g: jax.Array) -> jax.Array:
    columns = patches(x)
    flat = columns.reshape(-1, columns.shape[-1]), g.reshape(-1, g.shape[-1])
    return lax.dot_general(*flat, (((0,), (0,)), ((), ())))


def gradients_of(form: Callable) -> Callable:
    return jax.grad(lambda x, kernel: jnp.square(form(x, kernel)).sum(), argnums=(0, 1))


FORMS = {
    'automatic gradients': gradients_of(_convolve),
    'gradients as convolutions (used)': gradients_of(conv3x3),
    'im2col': gradients_of(im2col),
    'im2col, bfloat16': gradients_of(im2col_bfloat16),
    'Winograd 2x2': gradients_of(winograd),
}
FORWARD: dict[str, Callable] = {
    'direct': conv3x3,
    'im2col, bfloat16': im2col_bfloat16,
    'its patches alone': lambda x, _: rows_of_patches(x),
    'its product alone': product_alone,
}
WEIGHT_GRADIENTS = {
    'as a convolution (used)': weight_convolution,
    'im2col, output [O, 9 I]': weight_wide_minor,
    'im2col, output [9 I, O]': weight_narrow_minor,
}


def seconds(function: Callable, x: jax.Array, second: jax.Array) -> float:
    """Of one call within a scan; every output is used whole, so that none is cut down."""

    def body(carry: tuple[jax.Array, ...], _: None) -> tuple[tuple[jax.Array, ...], None]:
        outputs = jax.tree.leaves(function(*carry))
        change = 1e-12 * sum(jnp.max(output) for output in outputs)
        return (carry[0] + change, carry[1]), None

    run = jax.jit(
        lambda *carry: lax.scan(body, carry, length=REPEATS)[0],
        compiler_options={'xla_cpu_multi_thread_eigen': False},
    )
    jax.block_until_ready(run(x, second))
    times = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(run(x, second))
        times.append(time.perf_counter() - start)
    return min(times) / REPEATS


def main(_: list[str]) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    keys = jax.random.split(jax.random.key(0), 3)
    for side, channels in SHAPES:
        x = jax.random.normal(keys[0], (BATCH, side, side, channels))
        g = jax.random.normal(keys[1], x.shape)
        kernel = 0.05 * jax.random.normal(keys[2], (3, 3, channels, channels))
        flops = 2 * 9 * channels**2 * side**2 * BATCH
        print(f'\n{side}x{side}x{channels}, batch {BATCH}: forward and both gradients')
        for name, form in FORMS.items():
            t = seconds(form, x, kernel)
            print(f'  {name:34}{1e3 * t:9.2f} ms{3 * flops / t / 1e9:8.0f} GFLOP/s', flush=True)
        print('  forward alone')
        for name, form in FORWARD.items():
            t = seconds(form, x, kernel)
            print(f'  {name:34}{1e3 * t:9.2f} ms{flops / t / 1e9:8.0f} GFLOP/s', flush=True)
        print('  weight gradient alone')
        for name, form in WEIGHT_GRADIENTS.items():
            t = seconds(form, x, g)
            print(f'  {name:34}{1e3 * t:9.2f} ms{flops / t / 1e9:8.0f} GFLOP/s', flush=True)


if __name__ == '__main__':
    app.run(main)
