"""Int8 quantization: NNCF places and calibrates, then plain torch modules learn the thresholds.

Learned step size: Esser et al., arXiv 1902.08153.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgekit.settings import Count, Positive, TrainSettings
from edgekit.stages import Stage as Base


class Stage(Base):
    """qat_epochs: 0 calibrates only. teacher: an earlier step, `original` or a source; None trains with labels alone.

    images: how many training images calibrate. keep_float: module paths left in float.
    """

    qat_epochs: Annotated[int, Field(ge=0)] = 2
    images: Count = 512
    batch: Count = 128
    lr: Positive = 0.01
    teacher: str | None = None
    keep_float: list[str] = []

    def training(self) -> TrainSettings:
        """The settings of quantization-aware training."""
        return TrainSettings(epochs=self.qat_epochs, batch=self.batch, lr=self.lr, weight_decay=0.0, precision="float32")
