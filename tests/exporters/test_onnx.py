"""The exported file is the network: outputs, census, domain, size; a file that is not is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from edgekit.errors import GateError, ResourceError
from edgekit.exporters import onnx as exporter
from edgekit.model import Model
from edgekit.quantizers import SCHEMES, fold_batchnorm, quantize
from edgekit.settings import ModelSettings
from tests.networks import Residual, realistic

EXAMPLE = torch.zeros(1, 1, 8, 8)
IMAGES = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(5))


def test_a_float_file_gives_what_the_network_gives(tmp_path: Path) -> None:
    model = _float()
    artifact = exporter.export(model, tmp_path / "x.onnx")
    np.testing.assert_allclose(_run(artifact.path), model.net(IMAGES).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_an_int8_file_gives_what_the_fake_quantized_network_gives(tmp_path: Path) -> None:
    model = _int8()
    got = _run(exporter.export(model, tmp_path / "x.onnx").path, optimize=False)
    # Sums in another order round a few activations to the next step; most images must come out the same.
    same = np.isclose(got, model.net(IMAGES).detach().numpy(), rtol=1e-4, atol=1e-4).all(axis=1)
    assert same.mean() > 0.8


def test_the_artifact_says_what_the_file_is(tmp_path: Path) -> None:
    artifact = exporter.export(_int8(), tmp_path / "x.onnx", preprocess={"size": [8, 8]}, parent="ab")
    assert (artifact.format, artifact.precision, artifact.parent) == ("onnx", "int8", "ab")
    assert artifact.bytes == (tmp_path / "x.onnx").stat().st_size
    assert [(spec.name, spec.dtype, spec.shape) for spec in artifact.inputs] == [("input", "float32", (1, 1, 8, 8))]
    assert artifact.outputs[0].shape == (1, 10)


def test_weights_are_int8_behind_one_dequantize_and_biases_stay_float(tmp_path: Path) -> None:
    graph = onnx.load(exporter.export(_int8(), tmp_path / "x.onnx").path).graph
    constants = {one.name: one for one in graph.initializer}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            maker = next(n for n in graph.node if n.output[0] == node.input[1])
            assert maker.op_type == "DequantizeLinear"
            assert constants[maker.input[0]].data_type == onnx.TensorProto.INT8
            assert constants[node.input[2]].data_type == onnx.TensorProto.FLOAT


def test_only_standard_operators_and_no_remarks_of_this_machine_are_in_the_file(tmp_path: Path) -> None:
    path = exporter.export(_int8(), tmp_path / "x.onnx").path
    assert {node.domain for node in onnx.load(path).graph.node} <= {"", "ai.onnx"}
    assert b"edgekit" not in path.read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()


def test_nodes_are_named_after_the_modules_they_came_from(tmp_path: Path) -> None:
    graph = onnx.load(exporter.export(_int8(), tmp_path / "x.onnx").path).graph
    names = [node.name for node in graph.node]
    assert [name for name in names if name.endswith(("/Conv", "/Gemm", "/GlobalAveragePool"))] == [
        "stem.0/Conv",
        "conv1/Conv",
        "conv2/Conv",
        "pool/GlobalAveragePool",
        "classifier/Gemm",
    ]
    assert {"Add", "relu/Relu", "relu/Relu_1", "stem.2/QuantizeLinear"} <= set(names)
    assert len(set(names)) == len(names)


def test_a_lost_quantizer_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    translate = exporter._translate

    def lossy(model: Model) -> Any:
        proto = translate(model)
        first = next(n for n in proto.graph.node if n.op_type == "QuantizeLinear")
        second = next(n for n in proto.graph.node if n.input[0] == first.output[0])
        for node in proto.graph.node:
            node.input[:] = [first.input[0] if name == second.output[0] else name for name in node.input]
        proto.graph.node.remove(first)
        proto.graph.node.remove(second)
        return proto

    monkeypatch.setattr(exporter, "_translate", lossy)
    with pytest.raises(GateError, match="the exported file is not the model") as error:
        exporter.export(_int8(), tmp_path / "x.onnx")
    assert "QuantizeLinear, the model has" in str(error.value.why)


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ResourceError, match="cannot be written"):
        exporter.export(_float(), tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def _float() -> Model:
    return Model(ModelSettings(source="python:x.py:f"), Path(), realistic(Residual()), EXAMPLE)


def _int8() -> Model:
    folded, fold = fold_batchnorm(realistic(Residual()), EXAMPLE)
    net, edit = quantize(folded, [IMAGES], SCHEMES["onnxruntime"])
    return _float().edited(net, fold, edit)


def _run(path: Path, *, optimize: bool = True) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"input": image[None]})[0] for image in IMAGES.numpy()])


def test_a_weight_that_training_moved_below_the_range_ends_at_minus_127_as_in_training(tmp_path: Path) -> None:
    model = _int8()
    with torch.no_grad():
        model.net.get_submodule("classifier").get_parameter("weight")[5, 1] = -100.0
    graph = onnx.load(exporter.export(model, tmp_path / "x.onnx").path).graph
    values = [onnx.numpy_helper.to_array(one) for one in graph.initializer if one.data_type == onnx.TensorProto.INT8]
    assert min(int(value.min()) for value in values if value.ndim) == -127
