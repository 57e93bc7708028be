"""Architectures, one a file, and the tasks that say how they are trained and measured."""

from influence_jax.models.image_classification import ImageClassification
from influence_jax.models.resnet import ResNet, ResNetConfig

__all__ = ['ImageClassification', 'ResNet', 'ResNetConfig']
