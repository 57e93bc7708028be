"""EK-FAC and TRAK of other libraries, on this project's networks in PyTorch.

Each contender has the same parameters, records, threads and float32. A function takes a `Problem`
and returns scores `[N T]` in the sign and scale of this project.
"""

import dataclasses
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import torch_peer

Flat = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A trained network and its records, which are examples and targets.

    params: of the network here, by path.
    network: 'resnet' or 'mlp'.
    images: uint8 `[N H W C]`.
    labels: `[N]`.
    damping: of EK-FAC; None for a tenth of each layer's mean eigenvalue.
    batch: records at once.
    projection: of TRAK.
    """

    params: Flat
    network: str
    images: np.ndarray
    labels: np.ndarray
    damping: float | None
    batch: int
    projection: int


class Patched(nn.Module):
    """The ResNet of `torch_peer` with images scaled as the task scales them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(torch_peer.standardized(images))


class Flattened(nn.Module):
    """A multilayer perceptron on scaled pixels."""

    def __init__(self, layers: list[nn.Linear]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch_peer.standardized(images).permute(0, 2, 3, 1).flatten(1)
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def network_of(problem: Problem) -> nn.Module:
    """The network in PyTorch, with the same parameters."""
    return (_mlp if problem.network == 'mlp' else _resnet)(problem.params).eval()


def _mlp(params: Flat) -> nn.Module:
    layers = []
    for number in range(len(params) // 2):
        kernel, bias = (params[f'layers/{number}/{name}'] for name in ('kernel', 'bias'))
        layer = nn.Linear(*kernel.shape)
        _set(layer.weight, kernel.T)
        _set(layer.bias, bias)
        layers.append(layer)
    return Flattened(layers)


def _resnet(params: Flat) -> nn.Module:
    stages = 1 + max(int(path.split('/')[1]) for path in params if path.startswith('stages/'))
    width, classes = params['stem/kernel'].shape[-1], params['head/bias'].shape[0]
    patch = round((params['stem/kernel'].shape[2] / 3) ** 0.5)
    network = torch_peer.ResNet(classes, width, (1,) * stages, patch)
    # Patches are channels in the order row, column, color here, and color, row, column there.
    stem = params['stem/kernel'].reshape(3, 3, patch, patch, 3, width).transpose(0, 1, 4, 2, 3, 5)
    _set(network.stem.weight, stem.reshape(3, 3, -1, width).transpose(3, 2, 0, 1))
    _norm(network.stem_norm, params, 'stem_norm')
    for number in range(stages):
        stage: Any = network.stages[number]
        block, path = stage[0], f'stages/{number}/0'
        for name in ('first', 'second'):
            kernel = params[f'{path}/{name}/kernel']
            _set(getattr(block, name).weight, kernel.transpose(3, 2, 0, 1))
            _norm(getattr(block, f'{name}_norm'), params, f'{path}/{name}_norm')
        if f'{path}/project/kernel' in params:
            _set(block.project.weight, params[f'{path}/project/kernel'].T[:, :, None, None])
    _set(network.head.weight, params['head/kernel'].T)
    _set(network.head.bias, params['head/bias'])
    return Patched(network)


def _norm(norm: nn.GroupNorm, params: Flat, path: str) -> None:
    _set(norm.weight, params[f'{path}/scale'])
    _set(norm.bias, params[f'{path}/shift'])


def _set(parameter: torch.Tensor, values: np.ndarray) -> None:
    assert tuple(parameter.shape) == values.shape
    parameter.data = torch.tensor(np.ascontiguousarray(values))


def _tensors(problem: Problem) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.tensor(problem.images).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor(problem.labels, dtype=torch.long)


def kronfluence(problem: Problem) -> Callable[[], np.ndarray]:
    """EK-FAC of the empirical Fisher information, factors and pairwise scores."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class Classification(Task):
        def compute_train_loss(self, batch: Any, model: nn.Module, sample: bool = False) -> Any:
            images, labels = batch
            assert not sample
            return F.cross_entropy(model(images), labels, reduction='sum')

        def compute_measurement(self, batch: Any, model: nn.Module) -> Any:
            return self.compute_train_loss(batch, model)

    task = Classification()
    model = prepare_model(network_of(problem), task)
    data = TensorDataset(*_tensors(problem))

    def run() -> np.ndarray:
        with tempfile.TemporaryDirectory() as directory:
            analyzer = Analyzer(
                'clipart',
                model,
                task,
                cpu=True,
                output_dir=directory,
                disable_model_save=True,
                disable_tqdm=True,
            )
            analyzer.fit_all_factors(
                'ekfac',
                data,
                per_device_batch_size=problem.batch,
                factor_args=FactorArguments('ekfac', use_empirical_fisher=True),
            )
            analyzer.compute_pairwise_scores(
                'scores',
                'ekfac',
                data,
                data,
                per_device_query_batch_size=problem.batch,
                per_device_train_batch_size=problem.batch,
                score_args=ScoreArguments(damping_factor=problem.damping),
            )
            scores = analyzer.load_pairwise_scores('scores')['all_modules']
        return scores.float().numpy().T / len(data)

    return run


def dattri(problem: Problem) -> Callable[[], np.ndarray]:
    """EK-FAC of the empirical Fisher information; of linear layers alone."""
    from dattri.algorithm.influence_function import IFAttributorEKFAC
    from dattri.task import AttributionTask

    model = network_of(problem)
    loader = DataLoader(TensorDataset(*_tensors(problem)), batch_size=problem.batch)

    def mean(params: Any, batch: Any) -> torch.Tensor:
        images, labels = batch
        return F.cross_entropy(torch.func.functional_call(model, params, (images,)), labels)

    def run() -> np.ndarray:
        task = AttributionTask(mean, model, model.state_dict())
        method = IFAttributorEKFAC(task, damping=problem.damping or 1e-4)
        method.cache(loader)
        return method.attribute(loader, loader).detach().numpy() / len(problem.labels)

    return run


def traker(problem: Problem) -> Callable[[], np.ndarray]:
    """TRAK of one model."""
    from trak import TRAKer

    model = network_of(problem)
    images, labels = _tensors(problem)
    loader = DataLoader(TensorDataset(images, labels), batch_size=problem.batch)

    def run() -> np.ndarray:
        with tempfile.TemporaryDirectory() as directory:
            method = TRAKer(
                model,
                'image_classification',
                len(labels),
                save_dir=directory,
                device='cpu',
                proj_dim=problem.projection,
                use_half_precision=False,
                logging_level=50,
            )
            method.load_checkpoint(model.state_dict(), model_id=0)
            for batch in loader:
                method.featurize(batch, num_samples=len(batch[1]))
            method.finalize_features()
            method.start_scoring_checkpoint('all', model.state_dict(), 0, len(labels))
            for batch in loader:
                method.score(batch, num_samples=len(batch[1]))
            return np.array(method.finalize_scores('all'))

    return run
