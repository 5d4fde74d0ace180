"""The ONNX files for TensorRT: signed, typed, in the opset of the parser, and still the same network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.artifact import Artifact
from edgekit.errors import GateError
from edgekit.exporters import tensorrt
from edgekit.lint import lint
from edgekit.runtimes import onnxruntime as ort
from edgekit.runtimes import openvino
from tests import exports
from tests.lint.graphs import conv, graph, pair

IMAGES = exports.images()
INT8 = onnx.TensorProto.INT8


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    model = exports.quantized(exports.small(), IMAGES, "tensorrt")
    return tensorrt.export(model, tmp_path_factory.mktemp("int8") / "model.onnx")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    model = exports.model(exports.small(), IMAGES[:1])
    return tensorrt.export(model, tmp_path_factory.mktemp("float") / "model.onnx")


def opset(path: Path) -> int:
    return int(onnx.load(path).opset_import[0].version)


def outputs(path: Path) -> np.ndarray:
    session = ort.open_session(str(path), {})
    name = session.outputs[0].name
    return np.concatenate([session.infer({"input": image[None].numpy()})[name] for image in IMAGES])


def test_one_file_is_for_10_and_later_and_its_companion_for_8(int8: Artifact) -> None:
    assert (int8.format, int8.precision, int8.bytes) == ("tensorrt", "int8", int8.path.stat().st_size)
    (for_8,) = int8.companions
    assert (opset(int8.path), opset(for_8)) == (19, 17)
    assert int8.inputs[0].dtype == int8.outputs[0].dtype == "float32"


def test_both_files_are_clean_in_the_versions_they_are_for(int8: Artifact, plain: Artifact) -> None:
    for artifact in (int8, plain):
        for version in ("10.3", "10.16", "11.4"):
            assert lint(artifact.path, "tensorrt", version) == []
        for version in ("8.5.2", "8.6.1"):
            assert lint(artifact.companions[0], "tensorrt", version) == []


def test_no_zero_point_differs_from_0_and_no_unsigned_tensor_remains(int8: Artifact) -> None:
    for path in (int8.path, *int8.companions):
        model = onnx.load(path)
        constants = {one.name: one for one in model.graph.initializer}
        zeros = [constants[n.input[2]] for n in model.graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
        assert zeros
        assert all(zero.data_type == INT8 and not numpy_helper.to_array(zero).any() for zero in zeros)
        assert not any(one.data_type == onnx.TensorProto.UINT8 for one in model.graph.initializer)


def test_only_the_ends_of_the_typed_file_are_float32(int8: Artifact) -> None:
    model = onnx.load(int8.path)
    types = {one.data_type for one in model.graph.initializer}
    assert onnx.TensorProto.FLOAT not in types
    assert types >= {onnx.TensorProto.FLOAT16, INT8}
    assert [node.op_type for node in (model.graph.node[0], model.graph.node[-1])] == ["Cast", "Cast"]


def test_the_two_files_are_the_same_network(int8: Artifact, plain: Artifact) -> None:
    for artifact, allowed in ((plain, 1e-3), (int8, 0.03)):  # int8: a step that float16 rounds to the other side
        full, halved = outputs(artifact.companions[0]), outputs(artifact.path)
        assert np.abs(full - halved).max() <= allowed * np.abs(full).max()


def test_the_file_gives_in_openvino_what_it_gives_in_onnxruntime(int8: Artifact) -> None:
    if openvino.missing():
        pytest.skip(str(openvino.missing()))
    path = int8.companions[0]
    session = openvino.open_session(str(path), {})
    name = session.outputs[0].name
    got = np.concatenate([session.infer({"input": image[None].numpy()})[name] for image in IMAGES])
    expected = outputs(path)
    assert np.abs(got - expected).max() <= 0.05 * np.abs(expected).max()  # rounding steps that fall the other way


def test_skip_branches_are_quantized_and_the_paths_beside_them_are_not(int8: Artifact) -> None:
    model = onnx.load(int8.companions[0])
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    adds = [sorted(makers[name] for name in node.input) for node in model.graph.node if node.op_type == "Add"]
    assert adds == [["Conv", "DequantizeLinear"]] * 2


def test_a_number_too_large_for_float16_is_refused() -> None:
    model = graph("y = Add(x, k)", opset=18, k=np.array(70000, np.float32))
    with pytest.raises(GateError, match="k holds 70000, more than float16 can"):
        tensorrt.half(model, "big.onnx")


def test_an_activation_scale_below_float16_is_refused_with_the_way_out() -> None:
    model = graph(pair("x", "y", scale="k"), opset=19, k=np.array(2.0**-18, np.float32))
    with pytest.raises(GateError, match="keep_float"):
        tensorrt.half(model, "dead.onnx")


def test_a_weight_scale_below_float16_is_raised_and_its_weights_rounded_again() -> None:
    scales = np.full(16, 0.01, np.float32)
    scales[3] = 2.0**-19  # a quarter of the smallest that is taken: levels become a quarter
    model = graph(pair("x", "a") + conv("a", "y"), opset=19, ws=scales)
    constants = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    halved = {one.name: numpy_helper.to_array(one) for one in tensorrt.half(model, "m.onnx").graph.initializer}
    assert float(halved["ws"][3]) == 2.0**-17
    assert (halved["w"][3] == np.rint(constants["w"][3] / 4)).all()
    assert (halved["w"][4] == constants["w"][4]).all()


def test_an_operator_that_opset_17_lacks_is_named() -> None:
    model: Any = graph("y = Mish(x)", opset=18)
    with pytest.raises(GateError, match="Mish"):
        tensorrt.with_opset(model, 17, "mish.onnx")
