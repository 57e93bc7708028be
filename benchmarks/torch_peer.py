"""The default ResNet of experiments.image_resnet in PyTorch, for throughput comparisons only.

Same layers, batch and preprocessing as `influence_jax.models`, and AdamW with weight decay of
kernels only; the learning rate is constant, where the engine's follows a schedule.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, groups: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(groups, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(groups, outputs)
        same = inputs == outputs
        self.project = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = F.relu(self.first_norm(self.first(x)))
        return F.relu(self.second_norm(self.second(hidden)) + self.project(x))


class ResNet(nn.Module):
    def __init__(
        self, classes: int, width: int, blocks: tuple[int, ...], patch: int, groups: int = 8
    ) -> None:
        super().__init__()
        self.patch = patch
        self.stem = nn.Conv2d(3 * patch**2, width, 3, padding=1, bias=False)
        self.stem_norm = nn.GroupNorm(groups, width)
        self.stages = nn.ModuleList()
        inputs = width
        for stage, count in enumerate(blocks):
            outputs = width * 2**stage
            layers = []
            for _ in range(count):
                layers.append(Block(inputs, outputs, groups))
                inputs = outputs
            self.stages.append(nn.Sequential(*layers))
        self.head = nn.Linear(inputs, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = F.pixel_unshuffle(images, self.patch)
        x = F.relu(self.stem_norm(self.stem(x)))
        for number, stage in enumerate(self.stages):
            x = stage(F.avg_pool2d(x, 2) if number else x)
        return self.head(x.amax((2, 3)))


def standardized(images: torch.Tensor) -> torch.Tensor:
    """Images [B C H W] with mean 0 and variance 1 each, from uint8."""
    images = images.float() / 255
    variance, mean = torch.var_mean(images, (1, 2, 3), correction=0, keepdim=True)
    return (images - mean) * torch.rsqrt(variance + 1e-3)


def adamw(parameters: list[torch.Tensor], stacked: bool = False) -> torch.optim.Optimizer:
    """`stacked` parameters have one more axis, of members."""
    kernels = [p for p in parameters if p.ndim > 1 + stacked]
    others = [p for p in parameters if p.ndim <= 1 + stacked]
    groups = [
        {'params': kernels, 'weight_decay': 0.05},
        {'params': others, 'weight_decay': 0.0},
    ]
    return torch.optim.AdamW(groups, lr=3e-3, betas=(0.8, 0.95), fused=True)
