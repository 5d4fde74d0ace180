"""The prune stage: what was asked for is reached or refused, and what stays says why. Time is a count of MACs here."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekit.data import Data, open_data
from edgekit.device import open_board
from edgekit.errors import GateError, InputError
from edgekit.model import Model
from edgekit.progress import Progress
from edgekit.settings import DataSettings, GoalSettings, ModelSettings
from edgekit.stages import Context, Outcome
from edgekit.stages.prune import Stage
from tests.networks import Grouped, realistic

RECOVER = {"epochs": 1, "batch": 256, "precision": "float32"}


class Plain(nn.Module):
    """Two convolutions of 32 and 48 channels; input [n, 1, 8, 8], 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 48, 3, padding=1)
        self.classifier = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        logits: Tensor = self.classifier(x.mean(dim=(2, 3)))
        return logits


@pytest.fixture(scope="module")
def data() -> Data:
    return open_data(DataSettings(source="digits"), folder=Path(), seed=0)


@pytest.fixture
def model() -> Model:
    return _model(realistic(Plain()))


@pytest.fixture
def prune(data: Data, tmp_path: Path) -> Callable[..., Outcome]:
    def run(
        model: Model, measure_ms: Callable[[Model], float] = _macs_as_ms, teacher: Model | None = None, **asked: Any
    ) -> Outcome:
        def earlier(name: str) -> Model:
            assert name == "teacher"
            assert teacher is not None
            return teacher

        goal = GoalSettings(device="x86-cpu", runtime="onnxruntime")
        progress, board = Progress(io.StringIO()), open_board("x86-cpu")
        context = Context(tmp_path, 0, progress, earlier, earlier, measure_ms, goal, board)
        return Stage.model_validate({"align": 1, **asked}).apply(model, data, context)

    return run


def test_half_of_the_macs_remain(prune: Callable[..., Outcome], model: Model) -> None:
    outcome = prune(model, macs=0.5)
    assert 0.46 <= outcome.model.macs / model.macs <= 0.5  # one channel of 32 is 3 % of the MACs


def test_a_third_of_the_parameters_remain(prune: Callable[..., Outcome], model: Model) -> None:
    outcome = prune(model, params=0.33)
    assert 0.29 <= outcome.model.parameters / model.parameters <= 0.33


def test_a_ratio_leaves_every_group_and_counts_are_multiples(prune: Callable[..., Outcome], model: Model) -> None:
    outcome = prune(model, ratio=0.4, align=8)
    # 32 x 0.6 = 19.2 and 48 x 0.6 = 28.8, rounded up to multiples of 8
    assert outcome.metrics["kept"] == {"conv1": [24, 32], "conv2": [32, 48]}
    assert outcome.model.net.get_submodule("conv2").weight.shape == (32, 24, 3, 3)


@pytest.mark.parametrize("speedup", [1.3, 2.0, 4.0])
def test_a_speedup_lands_within_5_percent_in_few_measurements(
    prune: Callable[..., Outcome], model: Model, speedup: float
) -> None:
    timed: list[float] = []

    def measure_ms(one: Model) -> float:
        timed.append(_macs_as_ms(one))
        return timed[-1]

    outcome = prune(model, measure_ms=measure_ms, speedup=speedup)
    assert outcome.metrics["speedup"] == pytest.approx(speedup, rel=0.05)
    assert len(timed) <= 2 + 5 + 3  # both ends, the search, and before, after, before again
    assert not [note for note in outcome.notes if "speed" in note]


def test_a_speedup_that_is_missed_says_what_was_reached(prune: Callable[..., Outcome], model: Model) -> None:
    staircase = _Staircase(whole=model.macs)  # 4 ms or 1 ms and nothing between
    outcome = prune(model, measure_ms=staircase, speedup=2.0)
    assert outcome.metrics["speedup"] == 4
    assert "speedup: 2 was asked for, 4.00 was reached" in outcome.notes


def test_a_speedup_out_of_reach_is_refused(prune: Callable[..., Outcome], model: Model) -> None:
    with pytest.raises(GateError, match=r"speedup: 3\.0 cannot be reached") as caught:
        prune(model, measure_ms=lambda _: 1.0, speedup=3.0)
    assert caught.value.exit_code == 5


def test_a_time_that_will_not_repeat_is_a_doubt(prune: Callable[..., Outcome], model: Model) -> None:
    times = iter([1.0, 0.5, 1.2])  # before, after, before again
    outcome = prune(model, measure_ms=lambda _: next(times), ratio=0.5)
    assert outcome.metrics["speedup"] == pytest.approx(1.1 / 0.5)
    assert any("uncertain: the same network took 1.000 and 1.200 ms" in note for note in outcome.notes)


def test_less_than_at_least_stops_the_run(prune: Callable[..., Outcome], model: Model) -> None:
    with pytest.raises(GateError, match=r"1\.00 times faster, at_least asks for 1\.5") as caught:
        prune(model, measure_ms=lambda _: 1.0, ratio=0.5, at_least=1.5)
    assert caught.value.exit_code == 5


def test_nothing_pruned_is_an_error(prune: Callable[..., Outcome], model: Model) -> None:
    with pytest.raises(GateError, match="0 channels pruned"):
        prune(model, ratio=0.1, align=16)  # 32 and 48 channels less a tenth round up to themselves


def test_a_frozen_group_is_named_with_its_reason(prune: Callable[..., Outcome]) -> None:
    outcome = prune(_model(realistic(Grouped())), ratio=0.5)
    reason = "'grouped' is a convolution in 2 groups, whose channels cannot leave one by one"
    assert f"'second' keeps its channels: {reason}" in outcome.notes
    assert "second" in [one["layer"] for one in outcome.metrics["frozen"]]


def test_a_network_in_which_nothing_can_be_cut_is_refused_with_the_reasons(prune: Callable[..., Outcome]) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    with pytest.raises(GateError, match="no channel of this network can be removed") as caught:
        prune(_model(net), ratio=0.5)
    assert caught.value.why == "1: its channels are outputs of the network"


def test_recovery_trains_what_was_cut_with_labels_or_with_a_teacher(
    prune: Callable[..., Outcome], model: Model
) -> None:
    cut = prune(model, ratio=0.5)
    labels = prune(model, ratio=0.5, recover=RECOVER)
    taught = prune(model, ratio=0.5, recover={**RECOVER, "teacher": "teacher"}, teacher=_model(realistic(Plain(), 1)))
    weights = [outcome.model.net.get_parameter("conv1.weight") for outcome in (cut, labels, taught)]
    assert [weight.shape for weight in weights] == [(16, 1, 3, 3)] * 3
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_the_model_that_came_in_stays_as_it_was(prune: Callable[..., Outcome], model: Model) -> None:
    before = {name: tensor.clone() for name, tensor in model.net.state_dict().items()}
    prune(model, ratio=0.5, recover=RECOVER, score="taylor")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.net.state_dict().items())


def test_a_quantized_model_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match="quantized already"):
        Stage(ratio=0.5).requires(model.edited(model.net, {"kind": "quantize"}))


@pytest.mark.parametrize("asked", [{}, {"ratio": 0.5, "macs": 0.5}])
def test_one_request_is_needed_and_no_more(asked: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="exactly one of speedup, macs, params, ratio"):
        Stage.model_validate(asked)


class _Staircase:
    """A board on which a network takes 4 ms until it has lost half of its MACs, and 1 ms then."""

    def __init__(self, whole: int) -> None:
        self.whole = whole

    def __call__(self, model: Model) -> float:
        return 4.0 if model.macs > self.whole / 2 else 1.0


def _macs_as_ms(model: Model) -> float:
    return model.macs / 1e6


def _model(net: nn.Module) -> Model:
    return Model(ModelSettings(source="python:nets.py:build", classes=10), Path(), net, torch.zeros(1, 1, 8, 8))
