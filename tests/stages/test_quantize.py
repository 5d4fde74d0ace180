"""The quantize stage: calibration first, training where it is needed, layers left in float, and what is recorded."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from edgekit import sensitivity
from edgekit.data import Data, Split
from edgekit.errors import InputError
from edgekit.model import Model
from edgekit.preprocess import Preprocess
from edgekit.progress import Progress
from edgekit.quantizers import FakeQuant
from edgekit.settings import GoalSettings, ModelSettings
from edgekit.stages import Outcome
from edgekit.stages.quantize import Stage
from tests.networks import Residual, realistic

PREPROCESS = Preprocess((8, 8), mean=(0.5,), std=(0.25,), colour="gray")


@pytest.fixture(scope="module")
def model() -> Model:
    net = realistic(Residual())
    return Model(ModelSettings(source="python:nets.py:build"), Path(), net, torch.zeros(1, 1, 8, 8))


@pytest.fixture(scope="module")
def data(model: Model) -> Data:
    """Noise, labelled by the float network itself: its accuracy is 1, and whatever int8 flips is lost."""
    train, validation = (_split(model, count, seed) for seed, count in enumerate((96, 64)))
    return Data(train, validation, validation, tuple("0123456789"), PREPROCESS, "f", "image")


def test_training_is_skipped_where_calibration_is_inside_the_budget(model: Model, data: Data) -> None:
    outcome = _apply(Stage(images=64), model, data, accuracy_drop=50.0)
    assert "epochs" not in outcome.metrics
    assert "quantization-aware training was skipped" in outcome.notes[0]
    assert "100.00 % in float on the 64 validation images, inside the budget of 50 points" in outcome.notes[0]
    assert f"gives {100 * outcome.metrics['ptq_accuracy']:.2f} %" in outcome.notes[0]


def test_training_happens_outside_the_budget_without_one_and_where_the_recipe_says_always(
    model: Model, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lose(monkeypatch, 0.10)  # 10 points
    for stage, drop in ((Stage(), 9.0), (Stage(), None), (Stage(qat="always"), 50.0)):
        changed = stage.model_copy(update={"images": 64, "qat_epochs": 1, "batch": 64})
        assert _apply(changed, model, data, accuracy_drop=drop).metrics["epochs"] == 1
    assert "epochs" not in _apply(Stage(images=64), model, data, accuracy_drop=10.0).metrics


def test_always_with_no_epochs_is_a_contradiction() -> None:
    with pytest.raises(ValidationError, match="qat: always needs qat_epochs of 1 or more"):
        Stage(qat="always", qat_epochs=0)


def test_calibration_is_recorded_and_repeats_by_the_seed(model: Model, data: Data) -> None:
    first, again = (_calibrated(model, data)["calibration"] for _ in range(2))
    assert first == again
    assert first["images"] == 64
    assert len(first["sha256"]) == 64
    assert first["sha256"] != _calibrated(model, data, seed=1)["calibration"]["sha256"]
    # uniform from 0 to 1, less 0.5, by 0.25: mean 0, std 4 / sqrt(12) = 1.155
    assert first["mean"] == pytest.approx([0.0], abs=0.1)
    assert first["std"] == pytest.approx([1.155], abs=0.05)
    assert first["evaluation_std"] == pytest.approx([1.155], abs=0.05)


def test_calibration_images_unlike_those_of_the_evaluation_are_a_doubt(model: Model, data: Data) -> None:
    dark = replace(data, train=replace(data.train, read=lambda rows: data.train.read(rows) // 2))
    notes = _apply(Stage(images=64, qat_epochs=0), model, dark).notes
    assert len(notes) == 1
    assert notes[0].startswith("calibration images differ from the validation images: channel 0 has mean -1")


def test_fewer_images_than_asked_for_are_said(model: Model, data: Data) -> None:
    outcome = _apply(Stage(images=512, qat_epochs=0), model, data)
    assert outcome.metrics["calibration"]["images"] == 96
    assert outcome.notes == ("calibrated with 96 images, all there are for training; 512 were asked for",)


def test_every_layer_has_its_noise_worst_first(model: Model, data: Data) -> None:
    sqnr = _calibrated(model, data)["sqnr_db"]
    assert set(sqnr) == {"stem.0", "conv1", "conv2", "classifier"}
    assert list(sqnr.values()) == sorted(sqnr.values())
    assert min(sqnr.values()) > 25  # 8 bits


def test_noise_of_one_layer_is_not_that_of_the_layers_after_it(model: Model, data: Data) -> None:
    """The stem's weights with steps 16 times as large: 24 dB worse there (20 log10 16), the same elsewhere."""
    from edgekit.quantizers import SCHEMES, fold_batchnorm, quantize

    images = torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    folded, _ = fold_batchnorm(model.net, model.example)
    net, edit = quantize(folded, [images], SCHEMES["onnxruntime"])
    layers = sensitivity.quantized_layers(edit, net)
    before = sensitivity.layer_sqnr(folded, net, layers, [images])
    for module in net.modules():
        if isinstance(module, FakeQuant) and module.place.op == "stem/0/conv2d/0":
            module.scale.data *= 16
            module.place = replace(module.place, low=-8, high=7)
    after = sensitivity.layer_sqnr(folded, net, layers, [images])
    assert next(iter(after)) == "stem.0"
    assert before["stem.0"] - after["stem.0"] > 12
    assert {name: db for name, db in after.items() if name != "stem.0"} == pytest.approx(
        {name: db for name, db in before.items() if name != "stem.0"}
    )


def test_a_layer_whose_output_is_overwritten_in_place_has_the_noise_it_had_before(model: Model, data: Data) -> None:
    net = copy.deepcopy(model.net)
    for module in net.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    assert _calibrated(replace(model, net=net), data)["sqnr_db"] == _calibrated(model, data)["sqnr_db"]


def test_the_worst_layers_stay_in_float_until_the_budget_holds(
    model: Model, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    worst = list(_calibrated(model, data)["sqnr_db"])
    _lose(monkeypatch, 0.10, for_each_of=4)  # 10 points with 4 quantized layers, 7.5 with 3, 5 with 2
    stage = Stage(images=64, sensitivity="auto")
    outcome = _apply(stage, model, data, accuracy_drop=6.0)
    assert len(outcome.metrics["left_in_float"]) == 2
    assert outcome.metrics["left_in_float"][0] == worst[0]
    assert outcome.metrics["ptq_accuracy"] == pytest.approx(0.95)
    assert not set(outcome.metrics["left_in_float"]) & set(outcome.metrics["sqnr_db"])
    assert outcome.notes[0].startswith(f"sensitivity: {worst[0]} (")
    assert "the budget of 6 points holds: 5.00 points are lost on the 64 validation images" in outcome.notes[0]
    assert "quantization-aware training was skipped" in outcome.notes[1]


def test_a_budget_that_no_choice_of_layers_holds_is_said(
    model: Model, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    _lose(monkeypatch, 0.10)
    outcome = _apply(Stage(images=64, sensitivity="auto", qat_epochs=0), model, data, accuracy_drop=1.0)
    assert outcome.metrics["left_in_float"] == []  # no attempt was better than the first
    assert "no layer left in float; the budget of 1 points does not hold, with up to 3 layers tried" in outcome.notes[0]


def test_leaving_layers_in_float_without_a_budget_is_refused(model: Model, data: Data) -> None:
    with pytest.raises(InputError, match="there is none"):
        _apply(Stage(sensitivity="auto"), model, data)


def _split(model: Model, count: int, seed: int) -> Split:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    with torch.no_grad():
        labels = model.net(PREPROCESS.normalize_torch(torch.from_numpy(pixels))).argmax(1).numpy()
    return Split(labels, 10, lambda rows: pixels[rows])


def _apply(stage: Stage, model: Model, data: Data, *, accuracy_drop: float | None = None, seed: int = 0) -> Outcome:
    goal = GoalSettings(device="x86-cpu", runtime="onnxruntime", accuracy_drop=accuracy_drop)
    fields: dict[str, Any] = {"step_dir": None, "seed": seed, "progress": Progress(quiet=True), "goal": goal}
    return stage.apply(model, data, SimpleNamespace(**fields))  # type: ignore[arg-type]


def _calibrated(model: Model, data: Data, seed: int = 0) -> dict[str, Any]:
    return dict(_apply(Stage(images=64, qat_epochs=0), model, data, seed=seed).metrics)


def _lose(monkeypatch: pytest.MonkeyPatch, share: float, for_each_of: int = 0) -> None:
    """Accuracy of a quantized model: 1 less a share; in proportion to its quantized layers where a number is given."""

    def accuracy(model: Model, data: Data) -> float:
        edit = next((edit for edit in model.edits if edit["kind"] == "quantize"), None)
        if edit is None:
            return 1.0
        count = sum(place["axis"] is not None for place in edit["quantizers"])
        return 1.0 - share * (count / for_each_of if for_each_of else 1)

    monkeypatch.setattr("edgekit.stages.quantize._accuracy", accuracy)
