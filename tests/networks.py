"""Small networks that tests share: each has one feature that breaks careless tools."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """Stem, one residual block with BatchNorm, classifier; input [n, 1, 8, 8], 8 channels, 10 classes."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.conv1 = nn.Conv2d(8, 16, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 8, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        y = torch.flatten(self.pool(self.relu(x + y)), 1)
        result: Tensor = self.classifier(y)
        return result


class Grouped(nn.Module):
    """A depthwise convolution and one in 2 groups."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.second = nn.Conv2d(8, 12, 1)
        self.grouped = nn.Conv2d(12, 12, 3, padding=1, groups=2)
        self.classifier = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.depthwise(torch.relu(self.first(x))))
        x = torch.relu(self.grouped(torch.relu(self.second(x))))
        result: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return result


def realistic(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network with weights by the seed and BatchNorm statistics as if trained: all different, none trivial."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.copy_(torch.randn(module.running_mean.shape, generator=generator) * 0.3)
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
    return net.eval()
