"""The loop itself: epochs, rollback after divergence, less memory when it runs out, averages, checkpoints.

A loss that is NaN, infinite, or ten times that of guessing takes the network back to the last good epoch and halves the
rate, twice at most. EMA: exponential average of the weights, slower as training goes on. SWA: plain average of the last
epochs' weights (Izmailov et al., arXiv 1803.05407), after which BatchNorm is measured anew.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgekit.data import batches
from edgekit.errors import NumericsError, ResourceError
from edgekit.evaluate import outputs_of, top1
from edgekit.settings import TrainSettings
from edgekit.teacher import Loss
from edgekit.training.arithmetic import Arithmetic, out_of_memory
from edgekit.training.average import follow, mean_of, reestimate_batchnorm
from edgekit.training.checkpoint import Checkpoint, Checkpoints
from edgekit.training.optimizer import frozen_layers, rate_at, set_rate
from edgekit.training.signals import Held
from edgekit.training.state import State

if TYPE_CHECKING:
    from edgekit.data import Data
    from edgekit.progress import Progress

RETRIES = 2
SPIKE = 10.0  # times the loss at the start, or of guessing
CHECKPOINT_S = 120.0


@dataclass(frozen=True)
class Trained:
    """What training did. accuracy: share of the validation images that are right, by the network as it stands.

    loss: mean of the last epoch. images_per_s: None where nothing was left to train. accumulate: parts of a batch in
    the end. notes: what a reader should know.
    """

    epochs: int
    loss: float
    accuracy: float
    images_per_s: float | None
    arithmetic: str
    retries: int
    accumulate: int
    notes: tuple[str, ...]

    @property
    def metrics(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "notes"}


class Loop:
    """One training. `all_epochs` is to be called once."""

    def __init__(
        self,
        net: nn.Module,
        data: Data,
        settings: TrainSettings,
        loss: Loss,
        how: Arithmetic,
        device: torch.device,
        seed: int,
        progress: Progress,
        checkpoints: Checkpoints,
    ) -> None:
        self.net, self.data, self.settings, self.loss = net, data, settings, loss
        self.how, self.device, self.seed, self.progress = how, device, seed, progress
        self.checkpoints = checkpoints
        self.steps = math.ceil(len(data.train) / settings.batch)
        self.frozen = frozen_layers(net, settings)
        self.state = State(net, settings)
        self.seconds, self.seen, self.saved_at = 0.0, 0, time.monotonic()

    def all_epochs(self, found: Checkpoint | None) -> Trained:
        """Trains to the end, from a checkpoint where one was found."""
        if found is not None:
            self.state.go_on_from(found)
            self.progress.note(f"going on after epoch {self.state.place.epoch}, step {self.state.place.step}")
        with Held() as signals:
            while self.state.place.epoch < self.settings.epochs and not self._on_a_plateau():
                if self._epoch(signals) and self.state.is_finite():
                    self._end_epoch()
                else:
                    self._roll_back()
            self._save()
        self._take_weights()
        place = self.state.place
        return Trained(
            epochs=place.epoch,
            loss=place.loss,
            accuracy=place.accuracy,
            images_per_s=self.seen / self.seconds if self.seconds else None,
            arithmetic=str(self.how),
            retries=place.retries,
            accumulate=place.parts,
            notes=tuple(place.notes),
        )

    def _epoch(self, signals: Held) -> bool:
        """One pass over the training images, from the step it stands at; False as soon as the loss has diverged."""
        started, place = time.monotonic(), self.state.place
        self.net.train()
        for layer in self.frozen:
            layer.eval()
        for images, labels in batches(
            self.data.train,
            self.settings.batch,
            preprocess=self.data.preprocess,
            seed=self.seed,
            epoch=place.epoch,
            augment=self.settings.augment,
            skip=place.step,
        ):
            value = self._step(images, labels)
            if self._has_diverged(value):
                return False
            place.step, place.total = place.step + 1, place.total + value * len(images)
            place.images, self.seen = place.images + len(images), self.seen + len(images)
            if signals.came or time.monotonic() - self.saved_at > CHECKPOINT_S:
                self._save()
                signals.obey()
        self.seconds += time.monotonic() - started
        return True

    def _step(self, images: Tensor, labels: Tensor) -> float:
        """One step of the optimizer; where memory runs out, the batch is computed in twice as many parts."""
        done = (self.state.place.epoch + self.state.place.step / self.steps) / self.settings.epochs
        set_rate(self.state.optimizer, self.settings.lr * self.state.place.rate * rate_at(done, self.settings))
        value = None
        while value is None:
            try:
                value = self._gradients(images, labels)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                self._smaller_parts(len(images), error)
        if not math.isfinite(value):
            return value
        if self.settings.clip:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.settings.clip)
        self.state.optimizer.step()
        if self.state.average is not None and self.settings.ema:
            finished = self.state.place.epoch * self.steps + self.state.place.step
            follow(self.state.average, self.net, self.settings.ema, finished)
        return value

    def _has_diverged(self, value: float) -> bool:
        place = self.state.place
        if place.first is None and math.isfinite(value):
            place.first = value
        return not value <= SPIKE * max(place.first or 0.0, math.log(self.data.train.classes))  # NaN is never <=

    def _gradients(self, images: Tensor, labels: Tensor) -> float:
        """Leaves the gradient of the batch's mean loss in the parameters."""
        self.state.optimizer.zero_grad(set_to_none=True)
        size = math.ceil(self.settings.batch / self.state.place.parts)
        total = torch.zeros((), device=self.device)
        for at in range(0, len(images), size):
            part, targets = images[at : at + size], labels[at : at + size]
            value = self.how.forward(self.net, part, targets, self.loss, self.device) * (len(part) / len(images))
            value.backward()  # type: ignore[no-untyped-call]
            total += value.detach()
        return float(total)

    def _smaller_parts(self, count: int, error: Exception) -> None:
        if self.state.place.parts >= self.settings.batch or count == 1:
            raise ResourceError(
                "memory does not suffice to train on one image at a time",
                why=str(error).splitlines()[0],
                next="train a smaller network, or on a machine with more memory",
            ) from error
        self.state.place.parts = min(2 * self.state.place.parts, self.settings.batch)
        size = math.ceil(self.settings.batch / self.state.place.parts)
        self._note(
            f"memory ran out: a batch is computed in {self.state.place.parts} parts of {size} images, "
            "and BatchNorm sees one part at a time"
        )
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _end_epoch(self) -> None:
        state, place, settings = self.state, self.state.place, self.settings
        place.epoch, place.loss = place.epoch + 1, place.total / place.images
        place.begin_epoch()
        if state.average is not None and settings.swa and place.epoch > settings.epochs * (1 - settings.swa):
            mean_of(state.average, self.net, place.averaged)
            place.averaged += 1
        judged = state.average if state.average is not None and settings.ema else self.net
        place.accuracy = self._accuracy(judged)
        if settings.patience and place.accuracy > place.best:
            place.best, place.best_epoch = place.accuracy, place.epoch
            state.epoch_was_best(judged)
        state.epoch_was_good()
        self.progress.epoch(place.epoch, settings.epochs, loss=place.loss, accuracy=place.accuracy)
        self._log(epoch=place.epoch, loss=place.loss, accuracy=place.accuracy, seconds=round(self.seconds, 3))

    def _roll_back(self) -> None:
        place = self.state.place
        self.state.back_to_good()
        if place.retries == RETRIES:
            self._save()
            where = self.checkpoints.folder
            raise NumericsError(
                f"training diverged in epoch {place.epoch + 1}: the loss is NaN, infinite or exploded, and halving the "
                "rate twice did not help",
                kept=f"the network after epoch {place.epoch}, in {where}" if where else None,
                next="lower lr in this stage, or set clip: 1.0; if that does not help, look for broken images",
            )
        place.retries, place.rate = place.retries + 1, place.rate / 2
        self._note(f"the loss diverged in epoch {place.epoch + 1}: back to its beginning, rate x{place.rate:g}")

    def _on_a_plateau(self) -> bool:
        place, patience = self.state.place, self.settings.patience
        return bool(patience and place.epoch - place.best_epoch >= patience and place.best_epoch)

    def _take_weights(self) -> None:
        """Leaves in the network the weights that the settings ask for, and their accuracy."""
        state, place = self.state, self.state.place
        if self._on_a_plateau() and place.epoch < self.settings.epochs:
            self._note(f"no better accuracy in {self.settings.patience} epochs: stopped after epoch {place.epoch}")
        if state.best:
            self.net.load_state_dict(state.best)
            place.accuracy = place.best
        elif state.average is not None:
            self.net.load_state_dict(state.average.state_dict())
        if self.settings.swa:
            reestimate_batchnorm(self.net, self.data, batch=self.settings.batch)
            place.accuracy = self._accuracy(self.net)

    def _accuracy(self, net: nn.Module) -> float:
        with self.how.autocast(self.device):
            outputs = outputs_of(net, self.data.validation, self.data.preprocess)
        return top1(outputs, self.data.validation.labels)

    def _save(self) -> None:
        record, tensors = self.state.to_save()
        self.checkpoints.save({**record, "arithmetic": asdict(self.how)}, tensors)
        self.saved_at = time.monotonic()

    def _note(self, text: str) -> None:
        self.state.place.notes.append(text)
        self.progress.note(text)
        self._log(note=text)

    def _log(self, **facts: Any) -> None:
        """One line of JSON in `training.jsonl`, beside the checkpoints' folder."""
        if self.checkpoints.folder is not None:
            with open(self.checkpoints.folder.parent / "training.jsonl", "a") as stream:
                stream.write(json.dumps(facts) + "\n")
