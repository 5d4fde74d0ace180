"""Losses as plain functions: formula and paper in each docstring, shapes stated.

Shapes: logits [n, classes]; labels int64 [n], or shares of each class float [n, classes] (Mixup). Every loss is a
scalar, the mean over the batch, computed in float32 whatever the network's precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from edgekit.data import Split
    from edgekit.settings import TrainSettings

Distance = Callable[[Tensor, Tensor, Tensor, float], Tensor]
LabelLoss = Callable[[Tensor, Tensor], Tensor]  # logits, labels -> scalar
BETA = 0.999  # class-balanced: a class counts as at most 1 / (1 - BETA) images


def of_labels(settings: TrainSettings, train: Split) -> LabelLoss:
    """The loss that a stage's settings ask for: cross-entropy or focal, with rare classes of `train` weighed or not."""
    counts = torch.from_numpy(np.bincount(train.labels, minlength=train.classes)).float()
    weights = class_weights(counts) if settings.balance == "class-balanced" else None
    shift = counts.log() if settings.balance == "balanced-softmax" else None

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        if shift is not None:
            # Balanced Softmax (Ren et al., arXiv 2007.10740): logits + log(images of the class), in training alone
            logits = logits.float() + shift.to(logits.device)
        if settings.focal or weights is not None:
            return focal(logits, labels, settings.focal, weights=weights, smoothing=settings.smoothing)
        return cross_entropy(logits, labels, settings.smoothing)

    return loss


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy; `smoothing` spreads that share of the label evenly over the classes (arXiv 1512.00567)."""
    return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)


def focal(
    logits: Tensor, labels: Tensor, gamma: float, *, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """sum over classes of -label * (1 - p)^gamma * log p: easy images count less   (Lin et al., arXiv 1708.02002).

    weights: of each class, [classes]. gamma 0 without weights is cross-entropy.
    """
    classes = logits.shape[1]
    shares = F.one_hot(labels, classes).float() if labels.dim() == 1 else labels.float()
    shares = shares * (1 - smoothing) + smoothing / classes
    log_p = F.log_softmax(logits.float(), dim=1)
    each = shares * (1 - log_p.exp()).clamp_min(1e-7) ** gamma * -log_p  # clamp: the power's slope at 0 is infinite
    if weights is not None:
        each = each * weights.to(each.device)
    return each.sum(dim=1).mean()


def class_weights(counts: Tensor) -> Tensor:
    """(1 - beta) / (1 - beta^count), scaled to a mean of 1 over the images   (Cui et al., arXiv 1901.05555).

    counts: images of each class, [classes], all above 0.
    """
    weights = (1 - BETA) / (1 - BETA**counts)
    return weights * counts.sum() / (weights * counts).sum()


def kd(logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(softmax(teacher / T) || softmax(logits / T))   (Hinton et al., arXiv 1503.02531).

    T^2 keeps the gradient's size independent of the temperature. The labels are not used.
    """
    student = F.log_softmax(logits.float() / temperature, dim=1)
    target = F.log_softmax(teacher.float() / temperature, dim=1)
    return F.kl_div(student, target, reduction="batchmean", log_target=True) * temperature**2


def kd_standardized(logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """KD on logits of mean 0 and deviation 1 per image, so that the student need not match the teacher's range

    (Sun et al., arXiv 2403.01427): kd((z - mean z) / std z).
    """
    return kd(_standardize(logits), _standardize(teacher), labels, temperature)


def dkd(logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float, beta: float = 8.0) -> Tensor:
    """Decoupled KD: T^2 * (KL of target against the rest + beta * KL among the rest)   (Zhao et al., arXiv 2203.08679).

    labels: int64 [n], or shares, whose largest entry is the target.
    """
    target = labels if labels.dim() == 1 else labels.argmax(dim=1)
    mask = F.one_hot(target, logits.shape[1]).bool()
    student, guide = logits.float() / temperature, teacher.float() / temperature
    p, q = F.softmax(student, dim=1)[mask], F.softmax(guide, dim=1)[mask]
    tiny = 1e-7  # keeps the logarithm finite where a probability rounds to 0 or 1
    binary = q * ((q + tiny) / (p + tiny)).log() + (1 - q) * ((1 - q + tiny) / (1 - p + tiny)).log()
    rest = kd(student[~mask].view(len(target), -1), guide[~mask].view(len(target), -1), labels, 1.0)
    return (binary.mean() + beta * rest) * temperature**2


KD: dict[str, Distance] = {"kd": kd, "kd_standardized": kd_standardized, "dkd": dkd}


def _standardize(logits: Tensor) -> Tensor:
    logits = logits.float()
    return (logits - logits.mean(dim=1, keepdim=True)) / (logits.std(dim=1, keepdim=True, correction=0) + 1e-7)
