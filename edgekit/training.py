"""The one training loop. A stage hands it a network, a loss and settings; it trains in place and reports.

The loop is deterministic by the seed. A loss that is NaN or infinite takes the network back to the last good epoch and
halves the rate, twice at most. float32 or bfloat16, and the memory format, are chosen by timing a few steps.
"""

from __future__ import annotations

import copy
import math
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgekit.data import batches
from edgekit.errors import NumericsError
from edgekit.evaluate import outputs_of, top1
from edgekit.losses import cross_entropy
from edgekit.quantizers import is_quantizer
from edgekit.settings import TrainSettings
from edgekit.teacher import Loss

if TYPE_CHECKING:
    from edgekit.data import Data
    from edgekit.progress import Progress

RETRIES = 2
TRIAL_STEPS = 4


@dataclass(frozen=True)
class Arithmetic:
    """How the arithmetic is done: `float32` or `bfloat16` autocast, contiguous or channels_last memory."""

    precision: str
    channels_last: bool

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def place(self, images: Tensor, device: torch.device) -> Tensor:
        return images.to(device, memory_format=torch.channels_last if self.channels_last else torch.contiguous_format)

    def __str__(self) -> str:
        return self.precision + (" channels_last" if self.channels_last else "")


@dataclass(frozen=True)
class Trained:
    """What training did. accuracy: share of the validation images that are right, by the network as it stands.

    images_per_s: of the training itself, without validation.
    """

    epochs: int
    loss: float
    accuracy: float
    images_per_s: float
    arithmetic: str
    retries: int


def train(
    net: nn.Module, data: Data, settings: TrainSettings, *, seed: int, progress: Progress, loss: Loss | None = None
) -> Trained:
    """Trains `net` in place; without a loss, by cross-entropy with the settings' label smoothing.

    Raises:
        NumericsError: the loss was NaN or infinite three times, each time at half the rate.
    """
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    net.to(device).train()
    loss = loss or _labels_only(settings.smoothing)
    arithmetic = _choose(net, data, settings, loss, device)
    net.to(memory_format=torch.channels_last if arithmetic.channels_last else torch.contiguous_format)  # type: ignore[call-overload]
    run = _Loop(net, data, settings, loss, arithmetic, device, seed, progress)
    result = run.all_epochs()
    net.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    net.eval()
    return result


def reestimate_batchnorm(net: nn.Module, data: Data, *, count: int = 32, batch: int = 128) -> None:
    """Fresh BatchNorm statistics from training images, as a plain average over `count` batches; weights stay."""
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average
    net.train()
    with torch.no_grad():
        for images, _ in islice(batches(data.train, batch, preprocess=data.preprocess, seed=0), count):
            net(images)
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
    net.eval()


class _Loop:
    """The state of one training: network, optimizer, schedule, average."""

    def __init__(
        self,
        net: nn.Module,
        data: Data,
        settings: TrainSettings,
        loss: Loss,
        arithmetic: Arithmetic,
        device: torch.device,
        seed: int,
        progress: Progress,
    ) -> None:
        self.net, self.data, self.settings, self.loss = net, data, settings, loss
        self.arithmetic, self.device, self.seed, self.progress = arithmetic, device, seed, progress
        self.steps = math.ceil(len(data.train) / settings.batch)
        self.optimizer = _optimizer(net, settings)
        self.rate = 1.0  # halved after divergence
        self.average = copy.deepcopy(net) if settings.ema else None

    def all_epochs(self) -> Trained:
        seconds, retries, epoch, mean, accuracy = 0.0, 0, 0, math.nan, math.nan
        good = self._state()
        while epoch < self.settings.epochs:
            started = time.monotonic()
            mean = self._epoch(epoch)
            if not math.isfinite(mean):
                if retries == RETRIES:
                    raise _diverged(epoch)
                retries += 1
                self.rate /= 2
                self._restore(good)
                self.progress.note(f"the loss is not finite: back to the last good epoch, rate x{self.rate:g}")
                continue
            seconds += time.monotonic() - started
            good = self._state()
            epoch += 1
            accuracy = self._validate()
            self.progress.epoch(epoch, self.settings.epochs, loss=mean, accuracy=accuracy)
        if self.average is not None:
            self.net.load_state_dict(self.average.state_dict())
        speed = self.settings.epochs * len(self.data.train) / seconds
        return Trained(self.settings.epochs, mean, accuracy, speed, str(self.arithmetic), retries)

    def _epoch(self, epoch: int) -> float:
        """Mean loss of one pass over the training images; stops at the first that is not finite."""
        self.net.train()
        total, seen = 0.0, 0
        order = batches(
            self.data.train,
            self.settings.batch,
            preprocess=self.data.preprocess,
            seed=self.seed,
            epoch=epoch,
            augment=self.settings.augment,
        )
        for step, (images, labels) in enumerate(order):
            self._set_rate(epoch + step / self.steps)
            value = self._step(images, labels)
            if not math.isfinite(value):
                return value
            total, seen = total + value * len(images), seen + len(images)
        return total / seen

    def _step(self, images: Tensor, labels: Tensor) -> float:
        value = _forward(self.net, images, labels, self.loss, self.arithmetic, self.device)
        self.optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        if self.settings.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.settings.clip)
        self.optimizer.step()
        if self.average is not None:
            _follow(self.average, self.net, self.settings.ema)
        return float(value.detach())

    def _set_rate(self, epoch: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * self.rate * rate_at(epoch / self.settings.epochs, self.settings)

    def _validate(self) -> float:
        net = self.average or self.net
        with self.arithmetic.autocast(self.device):
            outputs = outputs_of(net, self.data.validation, self.data.preprocess)
        return top1(outputs, self.data.validation.labels)

    def _state(self) -> list[Any]:
        parts: list[Any] = [self.net, self.optimizer, *([self.average] if self.average is not None else [])]
        return [copy.deepcopy(part.state_dict()) for part in parts]

    def _restore(self, state: list[Any]) -> None:
        parts: list[Any] = [self.net, self.optimizer, *([self.average] if self.average is not None else [])]
        for part, saved in zip(parts, copy.deepcopy(state), strict=True):
            part.load_state_dict(saved)


def rate_at(done: float, settings: TrainSettings) -> float:
    """The share (0 to 1) of the peak learning rate when `done` (0 to 1) of the training is over."""
    if done < settings.warmup:
        return max(done, 1e-3) / settings.warmup
    rest = (done - settings.warmup) / max(1e-9, 1 - settings.warmup)
    if settings.schedule == "step":
        return 0.1 ** sum(rest >= edge for edge in (0.5, 0.75))
    if settings.schedule == "constant":
        return 1.0
    floor = 0.0 if settings.schedule == "one-cycle" else 1e-3
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))


def _labels_only(smoothing: float) -> Loss:
    return lambda images, outputs, labels: cross_entropy(outputs, labels, smoothing)


def _forward(
    net: nn.Module, images: Tensor, labels: Tensor, loss: Loss, arithmetic: Arithmetic, device: torch.device
) -> Tensor:
    images, labels = arithmetic.place(images, device), labels.to(device)
    with arithmetic.autocast(device):
        outputs = net(images)
    return loss(images, outputs, labels)


def _optimizer(net: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Weight decay pulls on matrices and kernels alone: not on biases, norms or quantizer scales."""
    named = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
    decayed = [p for name, p in named if p.dim() > 1 and not is_quantizer(name)]
    plain = [p for name, p in named if p.dim() <= 1 or is_quantizer(name)]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr)
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)


def _follow(average: nn.Module, net: nn.Module, decay: float) -> None:
    """Exponential moving average of everything that is a float; counters are copied."""
    with torch.no_grad():
        for kept, new in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - decay)
            else:
                kept.copy_(new)


def _choose(net: nn.Module, data: Data, settings: TrainSettings, loss: Loss, device: torch.device) -> Arithmetic:
    """The fastest arithmetic that the settings allow, by timing a few steps of each on a copy."""
    precisions = ["float32", "bfloat16"] if settings.precision == "auto" else [settings.precision]
    allowed = [Arithmetic(precision, last) for precision in precisions for last in (False, True)]
    images, labels = next(batches(data.train, settings.batch, preprocess=data.preprocess))
    return min(allowed, key=lambda one: _trial_s(net, images, labels, loss, one, device))


def _trial_s(
    net: nn.Module, images: Tensor, labels: Tensor, loss: Loss, arithmetic: Arithmetic, device: torch.device
) -> float:
    """Seconds of the fastest of a few steps; the first pays for set-up."""
    trial = copy.deepcopy(net)
    trial.to(memory_format=torch.channels_last if arithmetic.channels_last else torch.contiguous_format)  # type: ignore[call-overload]
    times = []
    for _ in range(TRIAL_STEPS):
        started = time.perf_counter()
        value = _forward(trial, images, labels, loss, arithmetic, device)
        value.backward()  # type: ignore[no-untyped-call]
        float(value.detach())  # sync: a GPU returns before the kernel ends
        times.append(time.perf_counter() - started)
    return min(times[1:])


def _diverged(epoch: int) -> NumericsError:
    return NumericsError(
        f"training diverged in epoch {epoch + 1}: the loss is NaN or infinite, and halving the rate twice did not help",
        next="lower lr in this stage, or set clip: 1.0",
    )
