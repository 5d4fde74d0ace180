"""Losses of labels, against arithmetic on two classes; distillation's losses where they are 0 or known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from edgekit.data import Split
from edgekit.losses import KD, class_weights, cross_entropy, dkd, focal, kd, of_labels
from edgekit.settings import TrainSettings

# softmax of log(3), 0 is 3/4, 1/4
LOGITS = torch.tensor([[math.log(3.0), 0.0]])


def split(*labels: int, classes: int = 2) -> Split:
    return Split(np.array(labels), classes, lambda rows: np.zeros((len(rows), 1, 1, 1), np.uint8))


def of(labels: Split, **fields: object) -> object:
    return of_labels(TrainSettings.model_validate({"epochs": 1, **fields}), labels)(LOGITS, torch.tensor([1])).item()


def test_cross_entropy_is_minus_the_logarithm_of_the_labels_share() -> None:
    assert cross_entropy(LOGITS, torch.tensor([1])).item() == pytest.approx(math.log(4))
    assert of(split(0, 1)) == pytest.approx(math.log(4))


def test_smoothing_spreads_its_share_over_all_classes() -> None:
    wanted = 0.9 * math.log(4) + 0.1 * math.log(4 / 3)  # 0.2 over two classes: the label keeps 0.8 + 0.1
    assert cross_entropy(LOGITS, torch.tensor([1]), 0.2).item() == pytest.approx(wanted)
    assert focal(LOGITS, torch.tensor([1]), 0.0, smoothing=0.2).item() == pytest.approx(wanted)


def test_focal_counts_an_image_by_how_wrong_it_is() -> None:
    assert focal(LOGITS, torch.tensor([1]), 2.0).item() == pytest.approx((3 / 4) ** 2 * math.log(4))
    assert focal(LOGITS, torch.tensor([0]), 2.0).item() == pytest.approx((1 / 4) ** 2 * math.log(4 / 3))
    assert of(split(0, 1), focal=2.0) == pytest.approx((3 / 4) ** 2 * math.log(4))


def test_focal_takes_mixed_labels() -> None:
    mixed = torch.tensor([[0.25, 0.75]])
    wanted = 0.25 * (1 / 4) * math.log(4 / 3) + 0.75 * (3 / 4) * math.log(4)
    assert focal(LOGITS, mixed, 1.0).item() == pytest.approx(wanted)


def test_focal_has_a_finite_slope_where_an_image_is_certainly_right() -> None:
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    focal(logits, torch.tensor([0]), 0.5).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.0, 0.0]]


def test_class_weights_follow_the_number_of_images_and_average_to_one() -> None:
    counts = torch.tensor([1.0, 2.0])
    # (1 - 0.999) / (1 - 0.999) is 1, and 0.001 / (1 - 0.998001) is 1 / 1.999; the mean over 3 images becomes 1
    first, second = 1.0, 1 / 1.999
    scale = 3 / (first + 2 * second)
    assert class_weights(counts).tolist() == pytest.approx([first * scale, second * scale], rel=1e-3)
    many = class_weights(torch.tensor([1e6, 2e6]))
    assert many.tolist() == pytest.approx([1.0, 1.0])  # beyond 1 / (1 - beta) images a class has enough


def test_a_class_balanced_loss_weighs_the_label() -> None:
    weights = class_weights(torch.tensor([3.0, 1.0]))
    assert of(split(0, 0, 0, 1), balance="class-balanced") == pytest.approx(weights[1].item() * math.log(4))


def test_balanced_softmax_adds_the_logarithm_of_the_counts() -> None:
    # logits log 3 + log 3 and 0 + log 1: shares 9 / 10 and 1 / 10
    assert of(split(0, 0, 0, 1), balance="balanced-softmax") == pytest.approx(math.log(10))


@pytest.mark.parametrize("name", list(KD))
def test_a_student_that_equals_its_teacher_has_no_distillation_loss(name: str) -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    assert KD[name](logits, logits.clone(), torch.arange(6) % 5, 4.0).item() == pytest.approx(0, abs=1e-5)


def test_kd_is_the_divergence_times_the_square_of_the_temperature() -> None:
    teacher = torch.zeros(1, 2)  # 1/2, 1/2 at every temperature
    student = 2 * LOGITS  # at temperature 2: 3/4, 1/4
    wanted = 4 * (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25))
    assert kd(student, teacher, torch.tensor([0]), 2.0).item() == pytest.approx(wanted)


def test_dkd_of_two_classes_is_the_divergence_on_the_target_alone() -> None:
    teacher = torch.zeros(1, 2)
    wanted = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)  # one other class: nothing to diverge among
    assert dkd(LOGITS, teacher, torch.tensor([0]), 1.0).item() == pytest.approx(wanted, rel=1e-5)
