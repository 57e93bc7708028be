"""Architectures, one a file; the tasks that train them are in `influence_jax.tasks`."""

from influence_jax.models.diffusion import Denoiser, DenoiserConfig
from influence_jax.models.mlp import MLP, MLPConfig
from influence_jax.models.resnet import ResNet, ResNetConfig

__all__ = ['MLP', 'Denoiser', 'DenoiserConfig', 'MLPConfig', 'ResNet', 'ResNetConfig']
