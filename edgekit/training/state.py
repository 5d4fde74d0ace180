"""All that a training is at a step: enough to go back to a good epoch, and to go on in another process."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.settings import TrainSettings
from edgekit.training.checkpoint import Checkpoint
from edgekit.training.optimizer import optimizer_of, restore_state, state_of

Tensors = dict[str, Tensor]


@dataclass
class Place:
    """How far a training is; JSON values. epoch: finished ones; step, total, images: of the epoch under way.

    first: loss of the very first step. rate: halved after each divergence. averaged: epochs in the SWA.
    """

    epoch: int = 0
    step: int = 0
    total: float = 0.0
    images: int = 0
    first: float | None = None
    rate: float = 1.0
    retries: int = 0
    parts: int = 1
    averaged: int = 0
    loss: float = 0.0
    accuracy: float = 0.0
    best: float = -1.0
    best_epoch: int = 0
    notes: list[str] = field(default_factory=list)

    def begin_epoch(self) -> None:
        self.step, self.total, self.images = 0, 0.0, 0


class State:
    """Network, optimizer, average and place; the state after the last good epoch; the best epoch's weights."""

    def __init__(self, net: nn.Module, settings: TrainSettings) -> None:
        self.net = net
        self.optimizer = optimizer_of(net, settings)
        self.average = copy.deepcopy(net) if settings.ema or settings.swa else None
        self.place = Place(parts=settings.accumulate)
        self.good = self._tensors()
        self.best: Tensors = {}

    def epoch_was_good(self) -> None:
        self.good = self._tensors()

    def epoch_was_best(self, net: nn.Module) -> None:
        self.best = _copied(net.state_dict())

    def is_finite(self) -> bool:
        return all(bool(t.isfinite().all()) for t in self.net.state_dict().values() if t.is_floating_point())

    def back_to_good(self) -> None:
        self._restore(self.good)
        self.place.begin_epoch()

    def to_save(self) -> tuple[dict[str, Any], Tensors]:
        """Record and tensors of a checkpoint."""
        tensors = {
            **_named("now", self._tensors()),
            **_named("good", self.good),
            **_named("best", self.best),
            "random.cpu": torch.get_rng_state(),
        }
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        return {"place": asdict(self.place)}, tensors

    def go_on_from(self, found: Checkpoint) -> None:
        self.place = Place(**found.record["place"])
        self._restore(_part(found.tensors, "now"))
        self.good, self.best = _part(found.tensors, "good"), _part(found.tensors, "best")
        torch.set_rng_state(found.tensors["random.cpu"])
        if torch.cuda.is_available() and "random.cuda" in found.tensors:
            torch.cuda.set_rng_state(found.tensors["random.cuda"])

    def _tensors(self) -> Tensors:
        average = self.average.state_dict() if self.average is not None else {}
        parts = {"net": self.net.state_dict(), "average": average, "optimizer": dict(state_of(self.optimizer))}
        return _copied({f"{part}.{name}": t for part, held in parts.items() for name, t in held.items()})

    def _restore(self, tensors: Tensors) -> None:
        self.net.load_state_dict(_part(tensors, "net"))
        restore_state(self.optimizer, _part(tensors, "optimizer"))
        if self.average is not None:
            self.average.load_state_dict(_part(tensors, "average"))


def _copied(tensors: Mapping[str, Tensor]) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _named(prefix: str, tensors: Tensors) -> Tensors:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _part(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
