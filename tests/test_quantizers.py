"""Quantizers: folding, the arithmetic of FakeQuant by hand, placement by NNCF in the spelling a runtime wants."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgekit.errors import InputError
from edgekit.quantizers import (
    SCHEMES,
    FakeQuant,
    Placement,
    fold_batchnorm,
    is_quantizer,
    quantize,
    replay,
    replay_fold,
)
from tests.networks import Residual, realistic

EXAMPLE = torch.zeros(1, 1, 8, 8)
IMAGES = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(3))
UNSIGNED = Placement("post", "x", 0, low=0, high=255, zero_point=128, axis=None)


def test_a_value_is_rounded_to_the_nearest_step_and_clipped_to_the_range() -> None:
    quantizer = FakeQuant(torch.tensor([0.5]), UNSIGNED).eval()
    # low: (0 - 128) * 0.5; high: (255 - 128) * 0.5; 0.74 / 0.5 rounds to 1; 0.76 / 0.5 to 2
    given, wanted = [-100.0, 0.74, 0.76, 100.0], [-64.0, 0.5, 1.0, 63.5]
    assert quantizer(torch.tensor(given)).tolist() == wanted


def test_training_computes_the_same_values_as_evaluation() -> None:
    quantizer = FakeQuant(torch.tensor([0.037]), UNSIGNED)
    learned = quantizer.train()(IMAGES)
    torch.testing.assert_close(learned, quantizer.eval()(IMAGES))


def test_weights_have_a_scale_for_each_output_channel() -> None:
    place = Placement("pre", "conv", 1, low=-127, high=127, zero_point=0, axis=0, channels=2)
    quantizer = FakeQuant(torch.tensor([1.0, 0.1]), place)
    weight = torch.tensor([[1.4, 200.0], [1.4, 200.0]])
    wanted = [[1.0, 127.0], [1.4, 12.7]]
    for mode in (True, False):
        torch.testing.assert_close(quantizer.train(mode)(weight), torch.tensor(wanted))


def test_the_gradient_is_that_of_learned_step_size() -> None:
    quantizer = FakeQuant(torch.tensor([0.5]), UNSIGNED).train()
    x = torch.tensor([0.6, 100.0], requires_grad=True)
    quantizer(x).sum().backward()
    assert x.grad is not None
    assert quantizer.scale.grad is not None
    assert x.grad.tolist() == [1.0, 0.0]  # straight through inside the range, nothing outside
    # inside: round(v) - v = 1 - 1.2; outside: the clipped level 127; scaled by 1 / sqrt(2 values * 127 levels)
    assert quantizer.scale.grad.item() == pytest.approx((1 - 1.2 + 127) / (2 * 127) ** 0.5, rel=1e-5)


def test_folding_batchnorm_changes_no_output_and_leaves_none() -> None:
    net = realistic(Residual())
    folded, edit = fold_batchnorm(net, EXAMPLE)
    assert edit["pairs"] == [["stem.0", "stem.1"], ["conv1", "norm1"], ["conv2", "norm2"]]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(IMAGES), net(IMAGES), rtol=1e-4, atol=1e-4)


class Shared(nn.Module):
    """The convolution's output is used before its BatchNorm too: folding would change the other use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.conv(x)
        normed: torch.Tensor = self.norm(y)
        return normed + y


def test_a_batchnorm_whose_input_is_used_elsewhere_is_not_folded() -> None:
    net = realistic(Shared())
    folded, edit = fold_batchnorm(net, EXAMPLE)
    assert edit["pairs"] == []
    torch.testing.assert_close(folded(IMAGES), net(IMAGES))


def test_onnx_runtime_gets_zero_point_0_after_relu_and_128_elsewhere() -> None:
    places = _quantized()[1]["quantizers"]
    activations = {place["op"]: place["zero_point"] for place in places if place["axis"] is None}
    assert activations["x"] == 128  # the image has negative values
    assert activations["conv2/conv2d/0"] == 128  # before the addition
    assert activations["stem/2/relu/0"] == 0
    assert {(p["low"], p["high"]) for p in places if p["axis"] is None} == {(0, 255)}


def test_tensorrt_gets_zero_point_0_and_the_whole_range_that_quantize_linear_has() -> None:
    folded, _ = fold_batchnorm(realistic(Residual()), EXAMPLE)
    _, edit = quantize(folded, [IMAGES], SCHEMES["tensorrt"])
    activations = {(p["low"], p["high"], p["zero_point"]) for p in edit["quantizers"] if p["axis"] is None}
    assert activations == {(-128, 127, 0)}


def test_weights_are_int8_for_each_output_channel() -> None:
    weights = {place["op"]: place for place in _quantized()[1]["quantizers"] if place["axis"] is not None}
    assert {op: place["channels"] for op, place in weights.items()} == {
        "stem/0/conv2d/0": 8,
        "conv1/conv2d/0": 16,
        "conv2/conv2d/0": 8,
        "classifier/linear/0": 10,
    }
    assert {(p["low"], p["high"], p["zero_point"], p["axis"]) for p in weights.values()} == {(-127, 127, 0, 0)}


def test_calibration_alone_stays_near_the_float_network() -> None:
    net = realistic(Residual())
    quantized, _ = _quantized()
    wanted, got = net(IMAGES), quantized(IMAGES)
    assert ((got - wanted).norm() / wanted.norm()).item() < 0.05


def test_quantizers_replayed_from_json_give_the_same_network() -> None:
    quantized, edit = _quantized()
    _, fold = fold_batchnorm(realistic(Residual()), EXAMPLE)
    again = replay(replay_fold(realistic(Residual()), EXAMPLE, fold), EXAMPLE, json.loads(json.dumps(edit)))
    again.load_state_dict(quantized.state_dict())
    assert torch.equal(again(IMAGES), quantized(IMAGES))


def test_thresholds_do_not_count_as_weights_of_the_network() -> None:
    quantized, _ = _quantized()
    own = [name for name, _ in quantized.named_parameters() if not is_quantizer(name)]
    assert own == [name for name, _ in fold_batchnorm(realistic(Residual()), EXAMPLE)[0].named_parameters()]


def test_a_module_named_in_keep_float_gets_no_quantizer() -> None:
    folded, _ = fold_batchnorm(realistic(Residual()), EXAMPLE)
    _, edit = quantize(folded, [IMAGES], SCHEMES["onnxruntime"], keep_float=["conv1"])
    assert not any(place["op"].startswith("conv1/") for place in edit["quantizers"])


def test_keep_float_that_names_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match=r"keep_float 'convX': the network has no such module"):
        quantize(Residual(), [IMAGES], SCHEMES["onnxruntime"], keep_float=["convX"])


def test_a_network_without_convolutions_is_refused() -> None:
    with pytest.raises(InputError, match="no convolution or linear layer"):
        quantize(nn.ReLU(), [IMAGES], SCHEMES["onnxruntime"])


def test_quantization_compiles_nothing(tmp_path: Path) -> None:
    """With no compiler on the PATH, and with a folder for extensions that stays empty."""
    code = (
        "import torch, tests.test_quantizers as t\n"
        "net, _ = t._quantized()\n"
        "net.train()\n"
        "net(t.IMAGES).sum().backward()\n"
    )
    environment = {"PATH": "/nonexistent", "TORCH_EXTENSIONS_DIR": str(tmp_path), "NNCF_CI": "1", "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=Path(__file__).parents[1])
    assert list(tmp_path.rglob("*.so")) == []


def _quantized() -> tuple[nn.Module, dict[str, Any]]:
    folded, _ = fold_batchnorm(realistic(Residual()), EXAMPLE)
    return quantize(folded, [IMAGES], SCHEMES["onnxruntime"])
