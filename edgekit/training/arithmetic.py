"""How the arithmetic of training is done, float32 or bfloat16 and in which memory order, chosen by timing a few steps.

float32 in contiguous memory unless another way is clearly faster, so that noise does not decide.
"""

from __future__ import annotations

import copy
import math
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgekit.data import batches
from edgekit.settings import TrainSettings
from edgekit.teacher import Loss

if TYPE_CHECKING:
    from edgekit.data import Data

TRIAL_STEPS = 4
CLEARLY = 0.9  # another way must take at most this share of the time


@dataclass(frozen=True)
class Arithmetic:
    """precision: `float32` or `bfloat16` autocast. channels_last: the memory order of images and kernels."""

    precision: str
    channels_last: bool

    @property
    def memory(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def forward(self, net: nn.Module, images: Tensor, labels: Tensor, loss: Loss, device: torch.device) -> Tensor:
        """The loss of a batch, a scalar. images: float32 [n, channels, height, width]."""
        images, labels = images.to(device, memory_format=self.memory), labels.to(device)
        with self.autocast(device):
            outputs = net(images)
        return loss(images, outputs, labels)

    def __str__(self) -> str:
        return self.precision + (" channels_last" if self.channels_last else "")


def choose(net: nn.Module, data: Data, settings: TrainSettings, loss: Loss, device: torch.device) -> Arithmetic:
    """The fastest way by trial on a copy; a precision that is given is taken as it is, in contiguous memory."""
    if settings.precision != "auto":
        return Arithmetic(settings.precision, channels_last=False)
    images, labels = next(batches(data.train, -(-settings.batch // settings.accumulate), preprocess=data.preprocess))
    plain, *others = [Arithmetic(name, last) for name in ("float32", "bfloat16") for last in (False, True)]
    plain_s = _trial_s(net, images, labels, loss, plain, device)
    times = {one: _trial_s(net, images, labels, loss, one, device) for one in others}
    best = min(times, key=lambda one: times[one])
    return best if times[best] < CLEARLY * plain_s else plain


def lay_out(net: nn.Module, how: Arithmetic) -> None:
    """Puts the network's kernels into the memory order, in place."""
    net.to(memory_format=how.memory)  # type: ignore[call-overload]


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: a GPU's has a class of its own, the CPU's only words."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _trial_s(
    net: nn.Module, images: Tensor, labels: Tensor, loss: Loss, how: Arithmetic, device: torch.device
) -> float:
    """Seconds of the fastest of a few steps; the first pays for set-up. Infinite where memory does not suffice."""
    times = []
    try:
        trial = copy.deepcopy(net)
        lay_out(trial, how)
        for _ in range(TRIAL_STEPS):
            started = time.perf_counter()
            value = how.forward(trial, images, labels, loss, device)
            value.backward()  # type: ignore[no-untyped-call]
            float(value.detach())  # sync: a GPU returns before the kernel ends
            times.append(time.perf_counter() - started)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return math.inf
    return min(times[1:])
