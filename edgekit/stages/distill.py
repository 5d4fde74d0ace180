"""Knowledge distillation: a student learns from a teacher's outputs (Hinton et al., arXiv 1503.02531).

Loss: alpha * KD(student, teacher; temperature) + (1 - alpha) * cross-entropy(student, label).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from edgekit.settings import Positive, Share, TrainSettings
from edgekit.stages import Context, Outcome
from edgekit.stages import Stage as Base

if TYPE_CHECKING:
    from edgekit.data import Data
    from edgekit.model import Model


class Stage(Base, TrainSettings):
    """student: a source; None trains the incoming network itself.

    teacher: an earlier step, `original` or a source; None is the model that enters the stage. A list is several
    teachers, whose probabilities are averaged.
    """

    student: str | None = None
    teacher: str | Annotated[list[str], Field(min_length=1)] | None = None
    loss: Literal["kd", "kd_standardized", "dkd"] = "kd"
    temperature: Positive = 4.0
    alpha: Share = 0.7

    def apply(self, model: Model, data: Data, context: Context) -> Outcome:
        from edgekit.evaluate import outputs_of, top1
        from edgekit.losses import KD, of_labels
        from edgekit.teacher import distilled
        from edgekit.training import train

        names = [self.teacher] if isinstance(self.teacher, str) else self.teacher
        teachers = [context.model(name).net for name in names] if names else [model.copy().net]
        student = context.load(self.student) if self.student else model.copy()
        labelled = of_labels(self, data.train)
        loss = distilled(teachers, KD[self.loss], temperature=self.temperature, alpha=self.alpha, labelled=labelled)
        seed, folder = context.seed, context.step_dir
        trained = train(student.net, data, self, seed=seed, progress=context.progress, loss=loss, folder=folder)
        best = max(top1(outputs_of(net, data.validation, data.preprocess), data.validation.labels) for net in teachers)
        notes = (*trained.notes, *_doubts(best, trained.accuracy))
        return Outcome(student, {**trained.metrics, "teacher_accuracy": best}, notes)


def _doubts(teacher: float, student: float) -> tuple[str, ...]:
    """A teacher that the student has already passed holds it back. Both are shares of the validation images."""
    if teacher >= student:
        return ()
    return (
        f"the teacher is worse than the student on the validation images ({100 * teacher:.1f} % against "
        f"{100 * student:.1f} %): train the teacher longer, or lower alpha",
    )
