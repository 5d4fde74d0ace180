"""Optimizer, learning rates by layer, and the schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import InputError, did_you_mean
from edgekit.quantizers import is_quantizer
from edgekit.settings import TrainSettings


def optimizer_of(net: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Weight decay pulls on matrices and kernels alone: not on biases, norms or quantizer scales.

    Layers whose rate is 0 get no gradient. Each group keeps its `factor`, by which the learning rate is multiplied.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        factor = _factor(name, settings.rates)
        parameter.requires_grad_(parameter.requires_grad and factor > 0)
        if parameter.requires_grad:
            decay = settings.weight_decay if parameter.dim() > 1 and not is_quantizer(name) else 0.0
            groups.setdefault((decay, factor), []).append(parameter)
    if not groups:
        raise InputError("rates: every layer has the rate 0, so that nothing would be trained")
    made: list[dict[str, Any]] = [
        {"params": params, "weight_decay": decay, "factor": factor} for (decay, factor), params in groups.items()
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(made, lr=settings.lr)
    return torch.optim.SGD(made, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)


def frozen_layers(net: nn.Module, settings: TrainSettings) -> list[nn.Module]:
    """BatchNorm layers whose statistics stay as they are: all (`batchnorm: frozen`), or those whose rate is 0.

    Raises:
        InputError: `rates` names something that is not in the network.
    """
    names = [name for name, _ in net.named_parameters()]
    for prefix in settings.rates:
        if not any(_begins(name, prefix) for name in names):
            known = [name for name, child in net.named_children() if any(True for _ in child.parameters())]
            raise InputError(f"rates: the network has no layer '{prefix}'." + did_you_mean(prefix, known))
    return [
        module
        for name, module in net.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and (settings.batchnorm == "frozen" or _factor(name, settings.rates) == 0)
    ]


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """rate: of layers whose factor is 1."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


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


def state_of(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """The optimizer's tensors, named `number of the parameter.what`."""
    for number, state in optimizer.state_dict()["state"].items():
        yield from ((f"{number}.{key}", value) for key, value in state.items() if isinstance(value, Tensor))


def restore_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Copies what `state_of` gave back in, in the memory order of the parameters: sums then round the same way."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        copied = tensor.clone()
        if tensor.dim():
            copied = torch.empty_like(parameters[int(number)]).copy_(tensor)
        state.setdefault(int(number), {})[key] = copied
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _factor(name: str, rates: Mapping[str, float]) -> float:
    """Of the prefixes that a name begins with, the longest counts."""
    fitting = [prefix for prefix in rates if _begins(name, prefix)]
    return rates[max(fitting, key=len)] if fitting else 1.0


def _begins(name: str, prefix: str) -> bool:
    return f"{name}.".startswith(f"{prefix}.")
