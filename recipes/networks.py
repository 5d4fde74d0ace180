"""The networks of the recipes in this folder: residual networks for small images (He et al., arXiv 1512.03385)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: relu(x + f(x))."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = (
            nn.Identity()
            if before == width and stride == 1
            else nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        )
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return self.relu2(y + self.shortcut(x))


class ResNet(nn.Module):
    """Stem, blocks, global average pooling, a linear classifier.

    blocks: (width, stride) of each. stride: of the stem.
    """

    def __init__(
        self, channels: int, classes: int, stem: int, blocks: Sequence[tuple[int, int]], stride: int = 1
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, stem, 3, stride, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU())
        widths = [stem, *(width for width, _ in blocks)]
        self.blocks = nn.Sequential(*(Block(widths[i], width, step) for i, (width, step) in enumerate(blocks)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.pool(self.blocks(self.stem(x)))
        return self.classifier(torch.flatten(features, 1))


def digits_teacher(classes: int) -> nn.Module:
    """8x8 gray images; 268,000 parameters."""
    return ResNet(1, classes, 48, [(48, 1), (48, 1), (48, 1), (64, 2), (64, 1)])


def digits_student(classes: int) -> nn.Module:
    """8x8 gray images; 96,000 parameters."""
    return ResNet(1, classes, 32, [(32, 1), (32, 1), (64, 2)])


def signs_teacher(classes: int) -> nn.Module:
    """32x32 colour images; 313,000 parameters."""
    return ResNet(3, classes, 32, [(32, 1), (64, 2), (128, 2)])


def signs_student(classes: int) -> nn.Module:
    """32x32 colour images, halved in the stem already; 113,000 parameters."""
    return ResNet(3, classes, 16, [(24, 1), (48, 2), (64, 2)], stride=2)
