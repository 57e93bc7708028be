"""Denoising diffusion: networks that predict the noise in noised images (Ho et al. 2020)."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from influence_jax.data.dataset import Dataset
from influence_jax.tasks.base import Problem, shown_of
from influence_jax.tasks.images import centered
from influence_jax.tasks.networks import MakeModule, Network, as_network
from influence_jax.training import Executor
from influence_jax.trees import described
from influence_jax.types import Batch, Params, PRNGKey, Variables


@dataclasses.dataclass(frozen=True)
class Diffusion:
    """Training of any module that predicts noise `[B H W C]` from noised images and their times.

    An image x at time t is noised to cos(pi t / 2) x + sin(pi t / 2) noise: the cosine schedule
    (arXiv 2102.09672) in continuous time. The training loss is the mean squared error of the noise
    that the module predicts, at a random time and noise each time an image is met.

    Measured of every target: `loss`, the mean of the same over `draws` times, spread evenly, each
    with one noise. Times and noises are the same for all targets, members and runs, so that what is
    measured is a function of parameters and the target alone, whose differences carry no noise.

    For example `tasks.Diffusion(DenoiserConfig(channels=3))`, in `train_ensemble` or, of a trained
    one, in `attribution.KFAC`.

    Attributes:
        make_module: builds a Flax NNX module from its `nnx.Rngs`, to be called with the pair of
            noised images and times `[B]`; or the pair `(init, apply)` of a Linen module.
        image: name of the array of images `[N H W C]`.
        prepare: of images, before they are noised; by default bytes become numbers from -1 to 1.
        draws: times at which a target is measured.
        seed: of the noises of measuring.
    """

    make_module: MakeModule | tuple[Callable, Callable]
    image: str = 'image'
    prepare: Callable[[Array], Array] = centered
    draws: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        as_network(self.make_module)
        if self.draws < 1:
            raise ValueError(f'draws={self.draws} must be at least 1')

    units: ClassVar[Mapping[str, str]] = {'loss': 'mean squared error'}

    @property
    def network(self) -> Network:
        """The module as pure functions."""
        return as_network(self.make_module)

    def bind(
        self, dataset: Dataset, targets: Dataset | None = None, *, executor: Executor | None = None
    ) -> Problem:
        """Returns what the engine trains: the images alone.

        Raises:
            ValueError: the images are not there or not of rank 4, or the module returns another
                shape than theirs.
        """
        del executor
        examples = self._rows(dataset)
        shape = examples['image'].shape[1:]
        bound = _Bound(self, shape)
        params = jax.eval_shape(lambda: bound.init(key=jax.random.key(0)))
        one = jax.ShapeDtypeStruct((1, *shape), examples['image'].dtype)
        found = jax.eval_shape(bound.outputs, params, {'image': one}).shape
        if found != (1, self.draws, *shape):
            raise ValueError(
                f'the module returns {list(found[2:])} for an image of {list(shape)}: it must '
                f'return noise of the shape of the images'
            )
        description = {
            'task': type(self).__name__,
            'image': self.image,
            'draws': self.draws,
            'seed': self.seed,
            'parameters': described(params),
        }
        return Problem(
            bound,
            examples,
            examples if targets is None else self._rows(targets),
            description=description,
            measure_batch=max(1, 256 // self.draws),
            shown=shown_of(dataset, self.image),
        )

    def _rows(self, dataset: Dataset) -> dict[str, np.ndarray]:
        images = dataset.array(self.image)
        if images.ndim != 4:
            raise ValueError(
                f'{self.image!r} of dataset {dataset.name!r} is of shape {list(images.shape)}: '
                f'diffusion takes images [N H W C]'
            )
        return {'image': images}


@dataclasses.dataclass(frozen=True)
class _Bound:
    """The engine's task: diffusion of images of a known shape."""

    of: Diffusion
    shape: tuple[int, ...]

    @property
    def measurements(self) -> tuple[str, ...]:
        return tuple(self.of.units)

    @property
    def units(self) -> Mapping[str, str]:
        return self.of.units

    def init(self, *, key: PRNGKey) -> Params | Variables:
        return self.of.network.init((jnp.zeros((1, *self.shape)), jnp.zeros(1)), key=key)

    def train_loss(self, params: Any, batch: Batch, *, key: PRNGKey) -> Any:
        images = self.of.prepare(batch['image'])
        for_times, for_noise, for_network = jax.random.split(key, 3)
        times = jax.random.uniform(for_times, (len(images),))
        noise = jax.random.normal(for_noise, images.shape)
        inputs = _noised(images, times, noise), times
        outputs, state = self.of.network.train(params, inputs, key=for_network)
        losses = jnp.square(outputs - noise).mean((1, 2, 3))
        return losses if state is None else (losses, state)

    def measure(self, params: Any, batch: Batch) -> Mapping[str, Float[Array, ' B']]:
        return {'loss': self.output_losses(self.outputs(params, batch), batch)}

    def outputs(self, params: Any, batch: Batch) -> Float[Array, 'B draws ...']:
        images = self.of.prepare(batch['image'])
        draws, count = self.of.draws, len(images)
        times = jnp.tile((jnp.arange(draws) + 0.5) / draws, count)
        noise = jnp.tile(self._noise(), (count, 1, 1, 1))
        noised = _noised(jnp.repeat(images, draws, axis=0), times, noise)
        outputs = self.of.network.predict(params, (noised, times))
        return outputs.reshape(count, draws, *outputs.shape[1:])

    def output_losses(
        self, outputs: Float[Array, 'B draws H W C'], batch: Batch
    ) -> Float[Array, ' B']:
        del batch
        return jnp.square(outputs - self._noise()[None]).mean((1, 2, 3, 4))

    def sampled_loss(self, params: Any, batch: Batch, *, key: PRNGKey) -> Float[Array, ' B']:
        outputs = self.outputs(params, batch)
        # Of the variance that makes the loss minus the log-likelihood, but for a constant.
        size = jnp.sqrt(math.prod(outputs.shape[1:]) / 2)
        errors = size * jax.random.normal(key, outputs.shape)
        drawn = jax.lax.stop_gradient(outputs) + errors
        return jnp.square(outputs - drawn).mean((1, 2, 3, 4))

    def _noise(self) -> Float[Array, 'draws H W C']:
        return jax.random.normal(jax.random.key(self.of.seed), (self.of.draws, *self.shape))


def _noised(
    images: Float[Array, 'B H W C'], times: Float[Array, ' B'], noise: Float[Array, 'B H W C']
) -> Float[Array, 'B H W C']:
    angle = (jnp.pi / 2 * times)[:, None, None, None]
    return jnp.cos(angle) * images + jnp.sin(angle) * noise
