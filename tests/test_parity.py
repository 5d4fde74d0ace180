"""The gate between a network and its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.data import Split
from edgekit.errors import GateError
from edgekit.exporters import onnx as exporter
from edgekit.model import Model
from edgekit.parity import agreement, check, check_layers, first_departure
from edgekit.preprocess import Preprocess
from tests import exports
from tests.networks import Residual, realistic

NETWORK = np.array([[3.0, 1.0], [0.0, 4.0]])
IMAGES = exports.images()  # 16 of [1, 8, 8]


def test_agreement_counts_flips_and_relates_the_error_to_the_largest_output() -> None:
    found = agreement(NETWORK, np.array([[1.0, 3.0], [0.0, 4.0]]))
    assert (found.flips, found.n, found.error) == (1, 2, 2.0 / 4.0)


def test_a_float_file_must_give_the_same_outputs() -> None:
    check("teacher", agreement(NETWORK, NETWORK + 0.001), quantized=False)  # 0.001 / 4 is below 1e-3
    with pytest.raises(GateError, match="teacher: the exported file is not its network") as error:
        check("teacher", agreement(NETWORK, NETWORK + 0.01), quantized=False)
    assert error.value.exit_code == 5


def test_an_int8_file_may_flip_three_of_540_images_and_no_more() -> None:
    network = np.tile([[1.0, 0.0]], (540, 1))
    flipped = network.copy()
    flipped[:3] = [0.0, 1.0]
    check("quantize", agreement(network, flipped), quantized=True)
    flipped[3] = [0.0, 1.0]
    with pytest.raises(GateError, match="4 of 540 images are classified differently"):
        check("quantize", agreement(network, flipped), quantized=True)


def test_a_file_that_gives_nan_is_refused() -> None:
    for quantized in (False, True):
        with pytest.raises(GateError):
            check("x", agreement(NETWORK, np.full_like(NETWORK, np.nan)), quantized=quantized)


def test_a_file_with_another_number_of_outputs_is_refused() -> None:
    with pytest.raises(GateError, match="outputs of shape"):
        agreement(NETWORK, np.zeros((2, 3)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    model = exports.quantized(realistic(Residual()), IMAGES, "onnxruntime")
    path = tmp_path_factory.mktemp("parity") / "model.onnx"
    exporter.export(model, path)
    return model, path


def test_no_layer_of_a_good_file_departs(exported: tuple[Model, Path], tmp_path: Path) -> None:
    assert first_departure(exported[0].net, exported[1], IMAGES) is None
    for number, net in enumerate((realistic(Residual()), exports.small())):  # BatchNorm is folded by the exporter
        exports.export_float(tmp_path / f"{number}.onnx", net, IMAGES[:1])
        assert first_departure(net, tmp_path / f"{number}.onnx", IMAGES) is None


def one_weight(graph: Any) -> None:
    """The largest weight of one filter changes its sign."""
    levels = _weight(graph, "conv2").copy()
    levels[3].flat[np.abs(levels[3]).argmax()] *= -1
    _put(graph, _input(graph, "conv2/DequantizeLinear", 0), levels)


def layout(graph: Any) -> None:
    """Rows and columns of a kernel are swapped."""
    _put(
        graph, _input(graph, "conv1/DequantizeLinear", 0), np.ascontiguousarray(_weight(graph, "conv1").swapaxes(2, 3))
    )


def quantizer(graph: Any) -> None:
    """One pair of QuantizeLinear and DequantizeLinear is gone."""
    first, second = _node(graph, "stem.2/QuantizeLinear"), _node(graph, "stem.2/DequantizeLinear")
    for node in graph.node:
        node.input[:] = [first.input[0] if name == second.output[0] else name for name in node.input]
    graph.node.remove(first)
    graph.node.remove(second)


def activation_scale(graph: Any) -> None:
    name = _input(graph, "stem.2/QuantizeLinear", 1)
    _put(graph, name, _constant(graph, name) * np.float32(2))


def weight_scale(graph: Any) -> None:
    name = _input(graph, "classifier/DequantizeLinear", 1)
    _put(graph, name, _constant(graph, name) * np.float32(2))


@pytest.mark.parametrize(
    ("damage", "layer"),
    [
        (one_weight, "conv2"),
        (layout, "conv1"),
        (quantizer, "stem.2"),
        (activation_scale, "stem.2"),
        (weight_scale, "classifier"),
    ],
)
def test_damage_in_a_file_is_refused_and_the_layer_named(
    exported: tuple[Model, Path], tmp_path: Path, damage: Callable[[Any], None], layer: str
) -> None:
    proto = onnx.load(exported[1])
    damage(proto.graph)
    onnx.save(proto, tmp_path / "damaged.onnx")
    with pytest.raises(GateError, match="quantize: the exported file is not its network") as error:
        check_layers("quantize", exported[0].net, tmp_path / "damaged.onnx", _data())
    assert f"the first layer that departs is {layer}:" in str(error.value.why)
    assert error.value.exit_code == 5


def test_the_layers_of_a_good_file_pass(exported: tuple[Model, Path]) -> None:
    check_layers("quantize", exported[0].net, exported[1], _data())


def _data() -> Any:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
    test = Split(np.zeros(20, dtype=np.int64), 10, lambda rows: pixels[rows])
    return SimpleNamespace(test=test, preprocess=Preprocess((8, 8), mean=(0.0,), std=(1.0,), colour="gray"))


def _node(graph: Any, name: str) -> Any:
    return next(node for node in graph.node if node.name == name)


def _input(graph: Any, node: str, at: int) -> str:
    return str(_node(graph, node).input[at])


def _weight(graph: Any, module: str) -> np.ndarray:
    return _constant(graph, _input(graph, f"{module}/DequantizeLinear", 0))


def _constant(graph: Any, name: str) -> np.ndarray:
    return np.asarray(numpy_helper.to_array(next(one for one in graph.initializer if one.name == name)))


def _put(graph: Any, name: str, values: np.ndarray) -> None:
    next(one for one in graph.initializer if one.name == name).CopyFrom(numpy_helper.from_array(values, name))
