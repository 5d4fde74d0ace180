"""The teacher as a context: any training stage may learn from one. It sees what the student sees, in eval mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from edgekit.losses import Distance, LabelLoss, cross_entropy

# images as the network takes them, its outputs, labels -> scalar
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def distilled(
    teachers: Sequence[nn.Module],
    distance: Distance,
    *,
    temperature: float,
    alpha: float,
    labelled: LabelLoss = cross_entropy,
) -> Loss:
    """A loss: alpha * distance(student, teacher) + (1 - alpha) * labelled(student, labels).

    Several teachers count as the mean of their probabilities. Their weights and statistics never change.
    """
    ensemble = _Ensemble(teachers)

    def loss(images: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        guided = distance(outputs, ensemble(images), labels, temperature)
        if alpha == 1:
            return guided
        return alpha * guided + (1 - alpha) * labelled(outputs, labels)

    return loss


class _Ensemble:
    """Logits of the teachers for a batch, without gradient: float32 [n, classes]."""

    def __init__(self, teachers: Sequence[nn.Module]) -> None:
        self.teachers = teachers
        for teacher in teachers:
            teacher.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        outputs: list[Tensor] = [teacher.to(images.device)(images).float() for teacher in self.teachers]
        if len(outputs) == 1:
            return outputs[0]
        mean: Tensor = torch.stack([one.softmax(dim=1) for one in outputs]).mean(dim=0)
        return mean.clamp_min(1e-9).log()
