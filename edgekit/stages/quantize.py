"""Int8 quantization: NNCF places and calibrates, then plain torch modules learn the thresholds.

Learned step size: Esser et al., arXiv 1902.08153. BatchNorm is folded first: int8 is slower than float otherwise.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from edgekit.errors import InputError
from edgekit.settings import Count, Positive, Share, TrainSettings
from edgekit.stages import Context, Outcome
from edgekit.stages import Stage as Base

if TYPE_CHECKING:
    from torch import Tensor

    from edgekit.data import Data
    from edgekit.model import Model


class Stage(Base):
    """qat_epochs: 0 calibrates only. teacher: an earlier step, `original` or a source; None trains with labels alone.

    images: how many training images calibrate. keep_float: paths of modules left in float.
    """

    uses_goal = True
    qat_epochs: Annotated[int, Field(ge=0)] = 2
    images: Count = 512
    batch: Count = 128
    lr: Positive = 0.002
    teacher: str | None = None
    temperature: Positive = 4.0
    alpha: Share = 0.7
    keep_float: list[str] = Field(default=[])

    def requires(self, model: Model) -> None:
        if any(edit["kind"] == "quantize" for edit in model.edits):
            raise InputError("quantize: the model is quantized already", next="keep one quantize stage in the recipe")

    def apply(self, model: Model, data: Data, context: Context) -> Outcome:
        from edgekit import quantizers

        scheme = quantizers.SCHEMES[context.goal.runtime]
        folded, fold = quantizers.fold_batchnorm(model.net, model.example)
        net, edit = quantizers.quantize(folded, self._calibration(data, context), scheme, self.keep_float)
        calibrated = model.edited(net, fold, edit)
        metrics = {"scheme": scheme.name, "quantizers": len(edit["quantizers"]), "folded": len(fold["pairs"])}
        metrics |= {"float_accuracy": _accuracy(model, data), "ptq_accuracy": _accuracy(calibrated, data)}
        if not self.qat_epochs:
            return Outcome(calibrated, metrics)
        return self._better(calibrated, data, context, metrics)

    def _calibration(self, data: Data, context: Context) -> list[Tensor]:
        """Training images, as they are evaluated: chosen by the seed, without augmentation."""
        from edgekit.data import batches

        order = batches(data.train, 32, preprocess=data.preprocess, seed=context.seed)
        return [images for images, _ in islice(order, -(-self.images // 32))]

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
            f"quantization-aware training lost to calibration alone on the validation images "
            f"({100 * trained.accuracy:.1f} % against {100 * metrics['ptq_accuracy']:.1f} %) and was discarded"
        )
        return Outcome(calibrated, metrics, (*trained.notes, note))

    def _loss(self, context: Context) -> Any:
        from edgekit.losses import kd
        from edgekit.teacher import distilled

        if self.teacher is None:
            return None
        return distilled([context.model(self.teacher).net], kd, temperature=self.temperature, alpha=self.alpha)


def _accuracy(model: Model, data: Data) -> float:
    from edgekit.evaluate import outputs_of, top1

    return top1(outputs_of(model.net, data.validation, data.preprocess), data.validation.labels)
