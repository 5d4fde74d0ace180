"""Knowledge distillation: a student learns from a teacher's outputs (Hinton et al., arXiv 1503.02531).

Loss: alpha * KD(student, teacher; temperature) + (1 - alpha) * cross-entropy(student, label).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from edgekit.settings import Positive, Share, TrainSettings
from edgekit.stages import Stage as Base


class Stage(Base, TrainSettings):
    """student: a source; None trains the incoming network itself. teacher: an earlier step, `original` or a source;

    None is the model that enters the stage. loss: name of a function in losses.KD.
    """

    student: str | None = None
    teacher: str | Annotated[list[str], Field(min_length=1)] | None = None
    loss: Literal["kd", "kd_standardized", "dkd"] = "kd"
    temperature: Positive = 4.0
    alpha: Share = 0.7
