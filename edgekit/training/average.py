"""Averages over training: of a network's weights, and of its BatchNorm statistics."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import torch
from torch import nn

from edgekit.data import batches

if TYPE_CHECKING:
    from edgekit.data import Data


def follow(average: nn.Module, net: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average, in place: average = d * average + (1 - d) * net.

    d is min(decay, (1 + step) / (10 + step)), so that a short training is not dominated by its beginning.
    """
    _towards(average, net, 1 - min(decay, (1 + step) / (10 + step)))


def mean_of(average: nn.Module, net: nn.Module, count: int) -> None:
    """Plain average, in place, of `count` networks that are in it already and this one."""
    _towards(average, net, 1 / (count + 1))


def reestimate_batchnorm(net: nn.Module, data: Data, *, count: int = 32, batch: int = 128) -> None:
    """Fresh BatchNorm statistics from training images, as a plain average over `count` batches; weights stay."""
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
    device = next(net.parameters()).device
    net.train()
    with torch.no_grad():
        for images, _ in islice(batches(data.train, batch, preprocess=data.preprocess, seed=0), count):
            net(images.to(device))
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
    net.eval()


def _towards(average: nn.Module, net: nn.Module, share: float) -> None:
    """Everything that is a float moves by this share of the way; counters are copied."""
    with torch.no_grad():
        for kept, new in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, share)
            else:
                kept.copy_(new)
