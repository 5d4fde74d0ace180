"""The networks of the recipe: a teacher that learns well, and a student small enough for the device.

Put your own here: a function that returns a torch.nn.Module, which gives one number for each class.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: relu(x + f(x))."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))
        self.shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.second(self.first(x)) + self.shortcut(x))


class Network(nn.Module):
    """Blocks that halve the image and widen, global average pooling, a linear classifier."""

    def __init__(self, classes: int, widths: list[int]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(Block(a, b, 2) for a, b in zip([3, *widths], widths, strict=False)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.pool(self.blocks(x)), 1))


def teacher(classes: int) -> nn.Module:
    return Network(classes, [32, 64, 128, 256])


def student(classes: int) -> nn.Module:
    return Network(classes, [16, 32, 64])
