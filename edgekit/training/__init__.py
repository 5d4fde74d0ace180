"""The one training loop. A stage hands it a network, a loss and settings; it trains in place and reports.

Deterministic by the seed: on one machine, with one number of threads and a `precision` that is given, two trainings end
in the same bits, and so does one that was stopped and goes on from its checkpoint. With `precision: auto` the
arithmetic is chosen by timing a few steps, and a checkpoint keeps the choice.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from edgekit.losses import of_labels
from edgekit.settings import TrainSettings
from edgekit.teacher import Loss
from edgekit.training import arithmetic
from edgekit.training.average import reestimate_batchnorm
from edgekit.training.checkpoint import Checkpoints, fingerprint
from edgekit.training.loop import Loop, Trained
from edgekit.training.optimizer import frozen_layers

if TYPE_CHECKING:
    from edgekit.data import Data
    from edgekit.progress import Progress

__all__ = ["Trained", "reestimate_batchnorm", "train"]


def train(
    net: nn.Module,
    data: Data,
    settings: TrainSettings,
    *,
    seed: int,
    progress: Progress,
    loss: Loss | None = None,
    folder: Path | None = None,
) -> Trained:
    """Trains `net` in place; without a loss, by its labels as the settings say.

    folder: where the log stands, and the checkpoints from which an interrupted training goes on; None keeps none.

    Raises:
        InputError: `rates` names no layer of the network.
        NumericsError: the loss was NaN, infinite or exploded three times, each time at half the rate.
        ResourceError: memory does not suffice for one image at a time.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    frozen_layers(net, settings)  # a wrong name is refused before anything is timed
    loss = loss or _by_labels(settings, data)
    checkpoints = Checkpoints(folder / "checkpoints" if folder else None, fingerprint(net, data, settings, seed))
    found = checkpoints.newest(progress)
    asked = {name: p.requires_grad for name, p in net.named_parameters()}
    torch.manual_seed(seed)
    net.to(device).train()
    how = arithmetic.Arithmetic(**found.record["arithmetic"]) if found else None
    how = how or arithmetic.choose(net, data, settings, loss, device)
    arithmetic.lay_out(net, how)
    torch.manual_seed(seed)
    loop = Loop(net, data, settings, loss, how, device, seed, progress, checkpoints)
    result = loop.all_epochs(found)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(asked[name])
    net.to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    net.eval()
    return result


def _by_labels(settings: TrainSettings, data: Data) -> Loss:
    labelled = of_labels(settings, data.train)
    return lambda images, outputs, labels: labelled(outputs, labels)
