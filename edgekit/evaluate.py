"""Accuracy of anything that maps images to outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from edgekit.data import Split
    from edgekit.preprocess import Preprocess


def outputs_of(net: nn.Module, split: Split, preprocess: Preprocess, *, batch: int = 256) -> np.ndarray:
    """What the network gives for every image of a split: float32 [n, classes], in float32 arithmetic."""
    from edgekit.data import batches

    device = next(net.parameters()).device
    net.eval()
    with torch.no_grad():
        parts = [net(x.to(device)).float().cpu().numpy() for x, _ in batches(split, batch, preprocess=preprocess)]
    return np.concatenate(parts)


def top1(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Share of images (0 to 1) whose largest output is the label's. outputs: [n, classes]; labels: int64 [n]."""
    return float((outputs.argmax(axis=1) == labels).mean())
