"""Time of the scans behind a summary, part by part, on whatever device is there.

    python -m benchmarks.summary_scan [--members=1000] [--examples=20000] [--blocks=0]

The product alone (as the scan makes it, and in float32), the device scan's two questions, the host
scan's, and what `summarize` takes as a whole. Then parts of the device scan beside other ways of
doing the same, on one block of targets. Everything is compiled before it is timed; times of
blocks are scaled to all targets.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax import lax

from influence_jax.estimators import summarize
from influence_jax.estimators.scan import EDGES, Scan, SummaryRequest, Targets, device
from influence_jax.estimators.scan.device import DeviceScan
from influence_jax.estimators.scan.host import HostScan
from influence_jax.estimators.tiling import TILE
from influence_jax.threads import num_cores

_MEMBERS = flags.DEFINE_integer('members', 1000, 'M')
_EXAMPLES = flags.DEFINE_integer('examples', 20_000, 'N = T')
_BLOCKS = flags.DEFINE_integer('blocks', 3, f'blocks of {TILE} targets that are timed; 0: all')
_SUMMARIES = flags.DEFINE_integer('summaries', 2, 'how many summaries are timed; 0: none')
_LEVELS = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
_STRONGEST, _REGRESSORS, _LEAST_Z = 16, 8, 4.5
_ENTRIES = 33  # single entries a target that a summary looks up


def problem(members: int, examples: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks [M N], and losses [M N] that each depend on their own example and two others."""
    generator = np.random.default_rng(0)
    masks = generator.random((members, examples), np.float32) < 0.5
    losses = generator.standard_gamma(1.5, (members, examples)).astype(np.float32)
    losses -= masks + 0.5 * np.roll(masks, 1, axis=1) - 0.4 * np.roll(masks, 2, axis=1)
    return masks, losses


def block(losses: np.ndarray, columns: slice) -> Targets:
    centered = losses[:, columns] - losses[:, columns].mean(axis=0)
    centered /= np.abs(centered).max(axis=0)
    error = 2 * centered.std(axis=0) / np.sqrt(len(losses))
    own = np.arange(columns.start, columns.stop)
    return Targets(centered, error, own, _LEAST_Z * error, own[:, None], 9 * error[:, None])


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    begun = time.perf_counter()
    jax.block_until_ready(function(*arguments))
    return time.perf_counter() - begun


def each(function: Callable[..., Any], several: list[Any], *first: Any) -> list[Any]:
    """What the function returns for each, all asked for before any is waited for."""
    return [function(*first, one) for one in several]


def entries(scan: Scan, targets: Targets, examples: int) -> Any:
    of = np.repeat(np.arange(len(targets.self_index)), _ENTRIES)
    single = scan.single
    read = single.entries_of(targets.losses, single.moments_of_all(targets.losses))
    return read(of, np.resize(np.arange(examples), len(of)))


def report(name: str, taken: float, product: float) -> None:
    print(f'{name:52} {taken:9.4f} s  {taken / product:7.2f} of the product', flush=True)


def time_scans(masks: np.ndarray, losses: np.ndarray) -> None:
    targets = losses.shape[1]
    columns = [slice(i, i + TILE) for i in range(0, targets - TILE + 1, TILE)]
    columns = columns[: _BLOCKS.value or None] or [slice(0, targets)]
    blocks = [block(losses, of) for of in columns]
    whole = targets / sum(of.stop - of.start for of in columns)
    ranks = np.floor(np.multiply(_LEVELS, masks.shape[1] - 1)).astype(int)
    ranks = tuple(np.unique([ranks, ranks + 1]).clip(0, masks.shape[1] - 1).tolist())
    request = SummaryRequest(min(_STRONGEST, masks.shape[1]), ranks)
    on_device = DeviceScan(masks)

    held = [jax.device_put(jnp.asarray(of.losses, jnp.float32)) for of in blocks]
    prepared = on_device._prepared
    product = jax.jit(lambda masks, x: device._sums_of_halves(masks, x).sum(axis=0))
    float_masks = jax.device_put(jnp.asarray(masks, jnp.float32))
    by_float = jax.jit(lambda masks, x: jnp.matmul(x.T, masks, precision=lax.Precision.HIGHEST))
    by_default = jax.jit(lambda masks, x: jnp.matmul(x.T, masks))

    def of_all(function: Callable[..., Any], several: list[Any], of: Any) -> float:
        jax.block_until_ready(function(of, several[0]))
        return whole * min(seconds(each, function, several, of) for _ in range(3))

    unit = of_all(product, held, prepared)
    report('product as the device scan makes it', unit, unit)
    report('product in float32, highest precision', of_all(by_float, held, float_masks), unit)
    report("product in float32, jax's default", of_all(by_default, held, float_masks), unit)

    padded = jax.device_put([on_device._padded(of) for of in blocks])
    for name, function in (
        ('columns', device._compiled(device._columns, on_device._mesh, request, 2**14)),
        (
            'regressors',
            device._compiled(device._candidate_regressors, on_device._mesh, _REGRESSORS, 3),
        ),
    ):
        begun = seconds(function, prepared, padded[0])
        print(f'{name}: compiled and run once in {begun:.1f} s')
        report(
            f'device scan, {name}, on the device alone', of_all(function, padded, prepared), unit
        )
    scans: dict[str, Scan] = {'device': on_device, 'host': HostScan(masks)}
    for name, scan in scans.items():
        few = blocks if name == 'device' else blocks[:1]
        part = whole * len(blocks) / len(few)
        scan.columns(few[0], request)
        taken = part * sum(seconds(scan.columns, of, request) for of in few)
        report(f'{name} scan, columns, arrays from and to numpy', taken, unit)
        ask = scan.candidate_regressors
        ask(np.asarray(few[0].losses), np.asarray(few[0].self_index), _REGRESSORS)
        taken = part * sum(
            seconds(ask, np.asarray(of.losses), np.asarray(of.self_index), _REGRESSORS)
            for of in few
        )
        report(f'{name} scan, regressors, arrays from and to numpy', taken, unit)
        entries(scan, few[0], masks.shape[1])
        taken = part * sum(seconds(entries, scan, of, masks.shape[1]) for of in few)
        report(f'{name} scan, {_ENTRIES} single entries a target', taken, unit)
    time_parts(prepared, held[0], padded[0], ranks, unit, whole * len(blocks))


def time_parts(
    prepared: Any, losses: Any, targets: Any, ranks: tuple[int, ...], unit: float, whole: float
) -> None:
    """Parts of the device scan, and what they took the place of, on one block's values."""

    def z_of(masks: Any, losses: Any, targets: Any) -> Any:
        sums = device._sums_of_halves(masks, losses).sum(axis=0)
        return (
            device._differences(sums, masks, losses) * device._inverse(targets.null_error)[:, None]
        )

    z = jax.jit(z_of)(prepared, losses, targets)
    inner = jnp.asarray(EDGES[1:-1], jnp.float32)
    rows = jnp.arange(len(z))[:, None]
    digit = jnp.arange(32)

    def by_products(z: Any, dtype: Any, out: Any) -> Any:
        bins = device._bins(z)
        high = (bins[..., None] // 32 == digit[None, None]).astype(dtype)
        low = (bins[..., None] % 32 == digit[None, None]).astype(dtype)
        return jnp.einsum('tnh,tnl->thl', high, low, preferred_element_type=out)

    def by_scattering(z: Any) -> Any:
        return jnp.zeros((len(z), 1024), jnp.int32).at[rows, device._bins(z)].add(1)

    def keys(z: Any) -> Any:
        return lax.bitcast_convert_type(z, jnp.uint32)

    def positions(z: Any) -> Any:
        return jnp.broadcast_to(jnp.arange(z.shape[1]), z.shape)

    ways: dict[str, Callable[[Any], Any]] = {
        'copy (one pass)': lambda z: z * 1.5,
        'moments': lambda z: jnp.stack([(z**p).mean(axis=1) for p in (1, 2, 3, 4)]),
        'bins by scattering, a row': by_scattering,
        'bins by scattering, all rows together': lambda z: (
            jnp.zeros(1024, jnp.int32).at[device._bins(z)].add(1)
        ),
        'bins by products in bfloat16': lambda z: by_products(z, jnp.bfloat16, jnp.float32),
        'bins by products in int8': lambda z: by_products(z, jnp.int8, jnp.int32),
        'quantiles by digits': lambda z: device._ranked_by_digits(keys(z), ranks=ranks),
        'quantiles by halving': lambda z: device._ranked_by_halving(keys(z), ranks=ranks),
        'sort of values': lambda z: jnp.sort(z, axis=1),
        'sort of values and positions': lambda z: lax.sort((z, positions(z)), num_keys=1),
        'bins of sorted values': lambda z: jax.vmap(lambda r: jnp.searchsorted(r, inner))(z),
        'largest 16 by chunks': lambda z: device._largest(z, _STRONGEST, last_first=True),
        'largest 16 by top_k': lambda z: lax.top_k(z, _STRONGEST),
        'candidates by chunks': lambda z: device._positions(jnp.abs(z) > _LEAST_Z, 2**14),
        'candidates by nonzero': lambda z: jnp.nonzero(jnp.abs(z) > _LEAST_Z, size=2**14),
    }
    for name, way in ways.items():
        try:
            compiled = jax.jit(way)
            jax.block_until_ready(compiled(z))
            taken = whole * min(seconds(compiled, z) for _ in range(2))
            report(f'  {name}', taken, unit)
        except Exception as problem:  # a way that this device lacks: the others are timed
            print(f'  {name}: {str(problem)[:200]}')


def main(arguments: list[str]) -> None:
    del arguments
    begun = time.perf_counter()
    masks, losses = problem(_MEMBERS.value, _EXAMPLES.value)
    first = jax.devices()[0]
    print(
        f'{len(jax.devices())} x {first.platform} {first.device_kind}, {num_cores()} cores, '
        f'jax {jax.__version__}, numpy {np.__version__}, M = {len(masks):,}, '
        f'N = T = {masks.shape[1]:,}; made in {time.perf_counter() - begun:.1f} s'
    )
    few = losses[:, :TILE]
    by_example = np.ascontiguousarray(masks.T.astype(np.float32))
    by_example @ few
    peer = seconds(lambda: by_example @ few) * losses.shape[1] / few.shape[1]
    print(f"numpy's float32 product on the CPU: {peer:.2f} s")
    time_scans(masks, losses)
    for i in range(_SUMMARIES.value):
        taken = seconds(lambda: summarize(masks, losses))
        print(f'summarize, {i + 1}: {taken:.2f} s, {taken / peer:.2f} of numpy on the CPU')
    print(f'{time.perf_counter() - begun:.0f} s in all')


if __name__ == '__main__':
    app.run(main)
