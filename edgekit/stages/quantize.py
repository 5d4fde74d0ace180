"""Int8 quantization: NNCF places and calibrates; where that costs too much accuracy, training learns the thresholds.

Learned step size: Esser et al., arXiv 1902.08153. BatchNorm is folded first: int8 is slower than float otherwise.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from edgekit.errors import InputError
from edgekit.settings import Count, Positive, Share, TrainSettings
from edgekit.stages import Context, Outcome
from edgekit.stages import Stage as Base

if TYPE_CHECKING:
    from torch import Tensor

    from edgekit.data import Data, Split
    from edgekit.model import Model

BATCH = 32  # images of a calibration batch
SQNR_IMAGES = 128  # enough for a ratio of powers
MOST_FLOAT = 8  # layers that `sensitivity: auto` may leave in float: each takes a calibration and an evaluation
MEAN_APART, STD_APART = (
    0.25,
    1.25,
)  # standard deviations, a factor: beyond, calibration saw other images than evaluation


class Stage(Base):
    """qat_epochs: 0 calibrates only. teacher: an earlier step, `original` or a source; None trains with labels alone.

    qat: `auto` trains only where calibration alone misses goal.accuracy_drop on the validation images.
    images: how many training images calibrate. keep_float: paths of modules left in float.
    sensitivity: `auto` leaves the layers that int8 disturbs most in float, one by one, until goal.accuracy_drop holds
    on the validation images; `report` only lists how much each is disturbed.
    """

    uses_goal = True
    uses_budget = True
    qat: Literal["auto", "always"] = "auto"
    qat_epochs: Annotated[int, Field(ge=0)] = 2
    images: Count = 512
    batch: Count = 128
    lr: Positive = 0.002
    teacher: str | None = None
    temperature: Positive = 4.0
    alpha: Share = 0.7
    keep_float: list[str] = Field(default=[])
    sensitivity: Literal["auto", "report"] = "report"

    @model_validator(mode="after")
    def _epochs_to_train(self) -> Self:
        if self.qat == "always" and not self.qat_epochs:
            raise ValueError("qat: always needs qat_epochs of 1 or more")
        return self

    def requires(self, model: Model) -> None:
        if any(edit["kind"] == "quantize" for edit in model.edits):
            raise InputError("quantize: the model is quantized already", next="keep one quantize stage in the recipe")

    def apply(self, model: Model, data: Data, context: Context) -> Outcome:
        from edgekit import quantizers

        budget = context.goal.accuracy_drop
        if self.sensitivity == "auto" and budget is None:
            raise InputError(
                "quantize.sensitivity: auto leaves layers in float until goal.accuracy_drop holds, and there is none",
                next="write accuracy_drop under goal, or sensitivity: report",
            )
        images, record, doubts = _calibration(data, self.images, context.seed)
        task = _Task(model, data, images, quantizers.SCHEMES[context.goal.runtime], _accuracy(model, data), budget)
        calibrated = task.calibrate(self.keep_float)
        notes = list(doubts)
        if self.sensitivity == "auto":
            calibrated, said = _with_floats(task, calibrated)
            notes += said
        metrics = {**task.facts(calibrated), "calibration": record}
        if not self.qat_epochs:
            return Outcome(calibrated.model, metrics, tuple(notes))
        if self.qat == "auto" and task.holds(calibrated):
            return Outcome(calibrated.model, metrics, (*notes, _not_trained(task, calibrated)))
        better = self._better(calibrated.model, data, context, metrics)
        return replace(better, notes=(*notes, *better.notes))

    def _better(self, calibrated: Model, data: Data, context: Context, metrics: dict[str, Any]) -> Outcome:
        """Trains the thresholds and weights; a result that does not beat calibration alone is thrown away."""
        from edgekit.training import train

        learned = calibrated.copy()
        settings = TrainSettings(
            epochs=self.qat_epochs, batch=self.batch, lr=self.lr, weight_decay=0.0, precision="float32"
        )
        loss = self._loss(context)
        seed, folder = context.seed, context.step_dir
        trained = train(learned.net, data, settings, seed=seed, progress=context.progress, loss=loss, folder=folder)
        metrics = {**metrics, **trained.metrics, "qat_accuracy": trained.accuracy}
        if trained.accuracy >= metrics["ptq_accuracy"]:
            return Outcome(learned, metrics, trained.notes)
        note = (
            f"quantization-aware training lost to calibration alone on the {len(data.validation)} validation images "
            f"({100 * trained.accuracy:.1f} % against {100 * metrics['ptq_accuracy']:.1f} %) and was discarded"
        )
        return Outcome(calibrated, metrics, (*trained.notes, note))

    def _loss(self, context: Context) -> Any:
        from edgekit.losses import kd
        from edgekit.teacher import distilled

        if self.teacher is None:
            return None
        return distilled([context.model(self.teacher).net], kd, temperature=self.temperature, alpha=self.alpha)


@dataclass(frozen=True)
class _Calibrated:
    """A model quantized by calibration alone. floats: modules left in float; sqnr: dB by layer, worst first."""

    model: Model
    edit: Mapping[str, Any]
    accuracy: float
    floats: tuple[str, ...]
    sqnr: Mapping[str, float]


@dataclass(frozen=True)
class _Task:
    """What is to be quantized, and what it must reach. images: for calibration, [n, channels, height, width] each.

    accuracy: of the float model on the validation images. budget: points it may lose; None where the goal says nothing.
    """

    model: Model
    data: Data
    images: Sequence[Tensor]
    scheme: Any
    accuracy: float
    budget: float | None

    def calibrate(self, floats: Sequence[str]) -> _Calibrated:
        from edgekit import quantizers, sensitivity

        folded, fold = quantizers.fold_batchnorm(self.model.net, self.model.example)
        net, edit = quantizers.quantize(folded, self.images, self.scheme, floats)
        layers = sensitivity.quantized_layers(edit, net)
        sqnr = sensitivity.layer_sqnr(folded, net, layers, self.images[: SQNR_IMAGES // BATCH])
        model = self.model.edited(net, fold, edit)
        return _Calibrated(model, edit, _accuracy(model, self.data), tuple(floats), sqnr)

    def lost(self, calibrated: _Calibrated) -> float:
        """Points of accuracy, on the validation images."""
        return 100 * (self.accuracy - calibrated.accuracy)

    def holds(self, calibrated: _Calibrated) -> bool:
        return self.budget is not None and self.lost(calibrated) <= self.budget + 1e-9

    def facts(self, calibrated: _Calibrated) -> dict[str, Any]:
        edits = {edit["kind"]: edit for edit in calibrated.model.edits}
        return {
            "scheme": self.scheme.name,
            "quantizers": len(calibrated.edit["quantizers"]),
            "folded": len(edits["fold_batchnorm"]["pairs"]),
            "float_accuracy": self.accuracy,
            "ptq_accuracy": calibrated.accuracy,
            "validation_images": len(self.data.validation),
            "sqnr_db": {name: round(db, 1) if math.isfinite(db) else None for name, db in calibrated.sqnr.items()},
            "left_in_float": list(calibrated.floats),
        }


def _calibration(data: Data, count: int, seed: int) -> tuple[list[Tensor], dict[str, Any], list[str]]:
    """Training images, as they are evaluated: chosen by the seed, without augmentation. With what they are, and doubts.

    The record: how many, a sha256 over what the network is fed, mean and std by channel beside the evaluation's.
    """
    import numpy as np

    from edgekit.data import batches

    rows = np.random.default_rng(seed).permutation(len(data.train))[:count]
    images = [x for x, _ in batches(data.train.take(rows), BATCH, preprocess=data.preprocess)]
    digest = hashlib.sha256()
    for one in images:
        digest.update(one.numpy().tobytes())
    mean, std = _moments(images)
    seen_mean, seen_std = _moments(
        [x for x, _ in batches(_spread(data.validation, count), BATCH, preprocess=data.preprocess)]
    )
    record = {"images": len(rows), "sha256": digest.hexdigest(), "mean": mean, "std": std}
    record |= {"evaluation_mean": seen_mean, "evaluation_std": seen_std}
    notes = list(_apart(mean, std, seen_mean, seen_std))
    if len(rows) < count:
        notes.append(f"calibrated with {len(rows)} images, all there are for training; {count} were asked for")
    return images, record, notes


def _spread(split: Split, count: int) -> Split:
    """At most so many images, from all over the split: it may be sorted by class."""
    import numpy as np

    return split.take(np.unique(np.linspace(0, len(split) - 1, min(len(split), count)).astype(np.int64)))


def _moments(images: Sequence[Tensor]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel."""
    import torch

    every = torch.cat([one.transpose(0, 1).flatten(1) for one in images], dim=1).double()
    return [round(x, 4) for x in every.mean(1).tolist()], [round(x, 4) for x in every.std(1).tolist()]


def _apart(mean: list[float], std: list[float], seen_mean: list[float], seen_std: list[float]) -> Iterator[str]:
    for channel, (m, s, seen_m, seen_s) in enumerate(zip(mean, std, seen_mean, seen_std, strict=True)):
        if abs(m - seen_m) > MEAN_APART * seen_s or not 1 / STD_APART <= s / max(seen_s, 1e-12) <= STD_APART:
            yield (
                f"calibration images differ from the validation images: channel {channel} has mean {m:.3g} and std "
                f"{s:.3g} against {seen_m:.3g} and {seen_s:.3g}; int8 ranges may not fit what the model will see"
            )


def _with_floats(task: _Task, calibrated: _Calibrated) -> tuple[_Calibrated, list[str]]:
    """Leaves the worst layers in float, one by one, until the budget holds; else the most accurate attempt."""
    attempts = [calibrated]
    while not task.holds(attempts[-1]) and len(attempts) <= MOST_FLOAT and len(attempts[-1].sqnr) > 1:
        last = attempts[-1]
        attempts.append(task.calibrate([*last.floats, next(iter(last.sqnr))]))
    best = attempts[-1] if task.holds(attempts[-1]) else max(attempts, key=lambda one: one.accuracy)
    chosen = best.floats[len(calibrated.floats) :]
    seen = {name: db for one in attempts for name, db in one.sqnr.items()}
    named = ", ".join(f"{name} ({seen[name]:.1f} dB)" for name in chosen) or "no layer"
    outcome = "holds" if task.holds(best) else f"does not hold, with up to {len(attempts) - 1} layers tried"
    said = (
        f"sensitivity: {named} left in float; the budget of {task.budget:g} points {outcome}: "
        f"{task.lost(best):.2f} points are lost on the {len(task.data.validation)} validation images"
    )
    return best, [said] if len(attempts) > 1 else []


def _not_trained(task: _Task, calibrated: _Calibrated) -> str:
    return (
        f"quantization-aware training was skipped: calibration alone gives {100 * calibrated.accuracy:.2f} % against "
        f"{100 * task.accuracy:.2f} % in float on the {len(task.data.validation)} validation images, inside the budget "
        f"of {task.budget:g} points; qat: always trains anyway"
    )


def _accuracy(model: Model, data: Data) -> float:
    from edgekit.evaluate import outputs_of, top1

    return top1(outputs_of(model.net, data.validation, data.preprocess), data.validation.labels)
