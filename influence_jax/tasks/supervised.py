"""Classification and regression with any module: one array is the label, another the input."""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from influence_jax.data.dataset import Dataset
from influence_jax.tasks.base import Problem, shown_of
from influence_jax.tasks.images import as_numbers
from influence_jax.tasks.networks import MakeModule, Network, as_network
from influence_jax.training import Executor
from influence_jax.trees import described
from influence_jax.types import AnyArray, Batch, Margin, Params, PRNGKey, Variables

Prepare = Callable[[Array], Array]
Augment = Callable[..., Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Options:
    """What both tasks can be told besides their module; see `Classification`."""

    inputs: str | None = None
    label: str = 'label'
    prepare: Prepare = as_numbers
    augment: Augment | None = None


@dataclasses.dataclass(frozen=True)
class _Module:
    make_module: MakeModule | tuple[Callable, Callable]


@dataclasses.dataclass(frozen=True)
class Supervised(_Options, _Module, abc.ABC):
    """What both tasks share: which arrays they read, and how the module is called."""

    def __post_init__(self) -> None:
        as_network(self.make_module)

    def bind(
        self, dataset: Dataset, targets: Dataset | None = None, *, executor: Executor | None = None
    ) -> Problem:
        """Returns what the engine trains: the input and the label of each example.

        Raises:
            ValueError: an array is not there, the inputs could be several, or labels are of a type
                that this task does not take.
        """
        del executor
        examples = self._rows(dataset)
        name = type(self).__name__
        bound = self._bound(self._spec(examples))
        self._check_outputs(bound, examples['label'])
        description = {
            'task': name,
            'inputs': self.inputs,
            'label': self.label,
            'parameters': described(jax.eval_shape(lambda: bound.init(key=jax.random.key(0)))),
        }
        return Problem(
            bound,
            examples,
            examples if targets is None else self._rows(targets),
            description=description,
            shown=shown_of(dataset, self._input_name(dataset)),
        )

    def _check_outputs(self, bound: '_Bound', labels: np.ndarray) -> None:
        """Refuses (ValueError) labels that the module's outputs do not fit, by shapes alone."""

        def of_first(label: Array) -> tuple[Array, Any]:
            variables = bound.init(key=jax.random.key(0))
            outputs = self.network.predict(variables, self.prepare(bound.blank()))
            return outputs, self.measured(outputs, label)

        outputs, _ = jax.eval_shape(
            of_first, jax.ShapeDtypeStruct((1, *labels.shape[1:]), labels.dtype)
        )
        self._check_labels(labels, outputs.shape)

    def _check_labels(self, labels: np.ndarray, outputs: tuple[int, ...]) -> None:
        """Refuses labels whose values the outputs cannot take; by default none."""

    @property
    def network(self) -> Network:
        """The module as pure functions."""
        return as_network(self.make_module)

    def _rows(self, dataset: Dataset) -> dict[str, Any]:
        arrays = dataset.arrays
        name = type(self).__name__
        if not isinstance(arrays, Mapping) or self.label not in arrays:
            found = sorted(arrays) if isinstance(arrays, Mapping) else type(arrays).__name__
            raise ValueError(
                f'{name} reads the array {self.label!r}, but dataset {dataset.name!r} has {found}: '
                f'name the array of labels by label='
            )
        inputs = self._input_name(dataset)
        labels = self._labels(np.asarray(arrays[self.label]))
        return {'inputs': arrays[inputs], 'label': labels}

    def _input_name(self, dataset: Dataset) -> str:
        others = sorted(set(dataset.arrays) - {self.label})
        if self.inputs is None and len(others) != 1:
            raise ValueError(
                f'dataset {dataset.name!r} has the arrays {others} besides {self.label!r}: name '
                f'the one that the module is called with by inputs='
            )
        name = self.inputs or others[0]
        if name not in dataset.arrays:
            raise ValueError(f'dataset {dataset.name!r} has no array {name!r}: it has {others}')
        return name

    def _spec(self, rows: dict[str, Any]) -> Any:
        def one(leaf: np.ndarray) -> tuple[tuple[int, ...], str]:
            return (1, *leaf.shape[1:]), str(leaf.dtype)

        leaves, structure = jax.tree.flatten(rows['inputs'])
        return tuple(map(one, leaves)), structure

    def _bound(self, spec: Any) -> '_Bound':
        return _Bound(self, spec)

    @abc.abstractmethod
    def _labels(self, labels: np.ndarray) -> np.ndarray:
        """Labels as the engine takes them; ValueError where they are of another kind."""

    @property
    @abc.abstractmethod
    def measurements(self) -> tuple[str, ...]:
        """Names of what `measure` returns."""

    units: ClassVar[Mapping[str, str]]
    """Units of what is measured."""

    @abc.abstractmethod
    def losses(self, outputs: Array, labels: AnyArray) -> Float[Array, ' B']:
        """The training loss of each example."""

    @abc.abstractmethod
    def drawn(self, outputs: Array, *, key: PRNGKey) -> AnyArray:
        """Labels drawn from the model whose minus log-likelihood the loss is."""

    @abc.abstractmethod
    def measured(self, outputs: Array, labels: AnyArray) -> Mapping[str, Float[Array, ' B']]:
        """What is recorded of each target."""


@dataclasses.dataclass(frozen=True)
class _Bound:
    """The engine's task: a supervised task whose inputs have a known shape."""

    of: Supervised
    spec: Any

    @property
    def measurements(self) -> tuple[str, ...]:
        return self.of.measurements

    @property
    def units(self) -> Mapping[str, str]:
        return self.of.units

    def blank(self) -> Any:
        """Inputs of one example, all zero."""
        leaves, structure = self.spec
        return jax.tree.unflatten(structure, [jnp.zeros(*leaf) for leaf in leaves])

    def init(self, *, key: PRNGKey) -> Params | Variables:
        return self.of.network.init(self.of.prepare(self.blank()), key=key)

    def train_loss(self, params: Any, batch: Batch, *, key: PRNGKey) -> Any:
        inputs = self.of.prepare(batch['inputs'])
        if self.of.augment is not None:
            inputs = self.of.augment(inputs, key=key)
        outputs, state = self.of.network.train(params, inputs, key=key)
        losses = self.of.losses(outputs, batch['label'])
        return losses if state is None else (losses, state)

    def measure(self, params: Any, batch: Batch) -> Mapping[str, Float[Array, ' B']]:
        return self.of.measured(self.outputs(params, batch), batch['label'])

    def sampled_loss(self, params: Any, batch: Batch, *, key: PRNGKey) -> Float[Array, ' B']:
        outputs = self.outputs(params, batch)
        drawn = self.of.drawn(jax.lax.stop_gradient(outputs), key=key)
        return self.of.losses(outputs, drawn)

    def outputs(self, params: Any, batch: Batch) -> Array:
        return self.of.network.predict(params, self.of.prepare(batch['inputs']))

    def output_losses(self, outputs: Array, batch: Batch) -> Float[Array, ' B']:
        return self.of.losses(outputs, batch['label'])


@dataclasses.dataclass(frozen=True)
class _BoundClassification(_Bound):
    def margin(self, params: Any, batch: Batch) -> Margin:
        log_odds = self.measure(params, batch)['logit_gap']
        return Margin(log_odds, jax.nn.sigmoid(-log_odds))


@dataclasses.dataclass(frozen=True)
class Classification(Supervised):
    """Cross-entropy training of any module that returns logits `[B classes]`.

    Measured of every target: `loss`, the cross-entropy, in nats; `logit_gap`, log p_y - log of the
    sum of all other p, LiRA's statistic (arXiv 2112.03570, section V), computed from the logits so
    that it does not saturate; `correct`, 1 where the target's class has the largest logit, else 0.

    State besides the parameters, such as BatchNorm statistics, is carried through training and used
    when measuring; Dropout is on in training and off when measuring.

    Attributes:
        make_module: builds a Flax NNX module from its `nnx.Rngs`, to be called with one array; or
            the pair `(init, apply)` of a Linen module.
        inputs: name of the array that the module is called with; by default the one that is not
            the label.
        label: name of the array of classes, integers from 0.
        prepare: of the inputs, before the module sees them; by default bytes become numbers from 0
            to 1.
        augment: of prepared inputs in training alone, `augment(inputs, key=key)`.
    """

    @property
    def measurements(self) -> tuple[str, ...]:
        """Names of what is recorded of each target."""
        return ('loss', 'logit_gap', 'correct')

    units: ClassVar[Mapping[str, str]] = {'loss': 'nats', 'logit_gap': 'nats'}

    def _bound(self, spec: Any) -> '_Bound':
        return _BoundClassification(self, spec)

    def losses(self, outputs: Array, labels: AnyArray) -> Float[Array, ' B']:
        """Cross-entropy of each example, in nats."""
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)

    def drawn(self, outputs: Array, *, key: PRNGKey) -> AnyArray:
        """Classes, as likely as the model has them."""
        return jax.random.categorical(key, outputs)

    def measured(self, outputs: Array, labels: AnyArray) -> Mapping[str, Float[Array, ' B']]:
        """See the class."""
        if outputs.ndim != 2:
            raise ValueError(
                f'the module returns {list(outputs.shape)}: classification needs logits [B classes]'
            )
        own = jnp.take_along_axis(outputs, labels[:, None], axis=1)[:, 0]
        is_own = jax.nn.one_hot(labels, outputs.shape[1], dtype=bool)
        rest = jax.nn.logsumexp(jnp.where(is_own, -jnp.inf, outputs), axis=1)
        return {
            'loss': jax.nn.softplus(rest - own),
            'logit_gap': own - rest,
            'correct': (jnp.argmax(outputs, axis=1) == labels).astype(jnp.float32),
        }

    def _labels(self, labels: np.ndarray) -> np.ndarray:
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
            raise ValueError(
                f'{self.label!r} holds {labels.dtype}{list(labels.shape)}: classes are integers '
                f'from 0, one an example'
            )
        return labels.astype(np.int32)

    def _check_labels(self, labels: np.ndarray, outputs: tuple[int, ...]) -> None:
        if labels.max() >= outputs[1]:
            raise ValueError(
                f'{self.label!r} holds label {labels.max()}, but the module returns logits of '
                f'{outputs[1]} classes: give it more outputs, or number classes from 0'
            )


@dataclasses.dataclass(frozen=True)
class Regression(Supervised):
    """Least squares with any module that returns predictions `[B]`, `[B 1]` or `[B outputs]`.

    Measured of every target: `loss`, the squared error (mean over outputs), in the squared unit of
    the labels; `absolute_error`, likewise in their unit. Attributes as of `Classification`; the
    label is an array of numbers, `[N]` or `[N outputs]`.
    """

    @property
    def measurements(self) -> tuple[str, ...]:
        """Names of what is recorded of each target."""
        return ('loss', 'absolute_error')

    units: ClassVar[Mapping[str, str]] = {
        'loss': 'squared unit of the label',
        'absolute_error': 'unit of the label',
    }

    def losses(self, outputs: Array, labels: AnyArray) -> Float[Array, ' B']:
        """Squared error of each example."""
        return (self._errors(outputs, labels) ** 2).mean(axis=1)

    def drawn(self, outputs: Array, *, key: PRNGKey) -> AnyArray:
        """Normal about the prediction, of the variance that makes the loss -log p + const."""
        count = outputs.size // len(outputs)
        return outputs + jax.random.normal(key, outputs.shape) * jnp.sqrt(count / 2)

    def measured(self, outputs: Array, labels: AnyArray) -> Mapping[str, Float[Array, ' B']]:
        """See the class."""
        return {
            'loss': self.losses(outputs, labels),
            'absolute_error': jnp.abs(self._errors(outputs, labels)).mean(axis=1),
        }

    def _errors(self, outputs: Array, labels: AnyArray) -> Float[Array, 'B outputs']:
        found, expected = (x[:, None] if x.ndim == 1 else x for x in (outputs, labels))
        if found.shape != expected.shape:
            raise ValueError(
                f'the module returns {list(found.shape)} for labels {list(expected.shape)}: '
                f'regression needs one prediction for each number'
            )
        return jnp.asarray(found - expected)

    def _labels(self, labels: np.ndarray) -> np.ndarray:
        if labels.ndim not in (1, 2) or not np.issubdtype(labels.dtype, np.number):
            raise ValueError(
                f'{self.label!r} holds {labels.dtype}{list(labels.shape)}: regression needs '
                f'numbers, [N] or [N outputs]'
            )
        return labels.astype(np.float32)
