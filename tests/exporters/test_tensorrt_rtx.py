"""TensorRT-RTX's own parser and builder, run without a GPU: what it takes, and what it refuses."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from edgekit.artifact import sha256_of
from edgekit.engine.key import key_of
from edgekit.errors import DependencyError, GateError, InputError
from edgekit.exporters import tensorrt, tensorrt_rtx
from edgekit.lint import lint
from tests import exports

IMAGES = exports.images()


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason=f"TensorRT-RTX is not installed: {tensorrt_rtx.PACKAGES}")


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_both_files_for_tensorrt_are_parsed_and_built(precision: str, tmp_path: Path) -> None:
    net = exports.small()
    model = exports.quantized(net, IMAGES, "tensorrt") if precision == "int8" else exports.model(net, IMAGES[:1])
    artifact = tensorrt.export(model, tmp_path / "model.onnx")
    for path in (artifact.path, *artifact.companions):  # the companion of the float network is its float32 export
        tensorrt_rtx.accepts(path)


@pytest.mark.slow
@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "efficientnet_b0", "regnet_y_400mf", "signs"])
def test_known_networks_are_parsed_built_and_clean_in_int8_float16_and_float32(name: str, tmp_path: Path) -> None:
    if name != "signs" and importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    batch = exports.images((3, 32, 32) if name == "signs" else (3, 64, 64), 4)
    net = exports.recipes().signs_student(43).eval() if name == "signs" else exports.torchvision_network(name)
    for model in (exports.quantized(net, batch, "tensorrt"), exports.model(net, batch[:1])):
        artifact = tensorrt.export(model, tmp_path / "model.onnx")
        for path, version in ((artifact.path, "11.4"), (artifact.companions[0], "8.6")):
            tensorrt_rtx.accepts(path)
            assert [finding for finding in lint(path, "tensorrt", version) if finding.severity == "error"] == []


@pytest.mark.usefixtures("rtx")
def test_an_engine_is_exported_for_the_capabilities_asked_for(tmp_path: Path) -> None:
    model = exports.quantized(exports.small(), IMAGES, "tensorrt")
    one = tensorrt_rtx.export(model, tmp_path / "one.engine", compute_capabilities=("8.6",))
    two = tensorrt_rtx.export(model, tmp_path / "two.engine", compute_capabilities=("8.6", "8.9"))
    assert (one.format, one.precision, one.inputs[0].shape) == ("tensorrt_rtx", "int8", (1, 1, 8, 8))
    assert one.bytes == one.path.stat().st_size
    assert two.bytes > one.bytes  # kernels for a second GPU
    assert not list(tmp_path.glob("*.trt8.onnx"))
    key = key_of(two.path)
    assert (key.compute_capability, key.onnx_sha256) == ("8.6+8.9", sha256_of(tmp_path / "two.onnx"))
    assert two.companions == (tmp_path / "two.engine.json",)


@pytest.mark.usefixtures("rtx")
def test_a_capability_it_does_not_build_for_is_refused_with_those_it_does(tmp_path: Path) -> None:
    path = exports.export_float(tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"'8.7'") as caught:  # Jetson Orin
        tensorrt_rtx.accepts(path, ("8.7",))
    assert "8.6" in str(caught.value.next)


@pytest.mark.usefixtures("rtx")
def test_nncf_mixed_is_refused_for_its_zero_points(tmp_path: Path) -> None:
    path = exports.export_nncf(tmp_path / "nncf.onnx", exports.export_float)
    with pytest.raises(GateError, match="Non-zero zero point is not supported"):
        tensorrt_rtx.accepts(path)


@pytest.mark.usefixtures("rtx")
def test_onnxruntime_default_static_quantization_is_refused(tmp_path: Path) -> None:
    path = exports.export_onnxruntime_default(tmp_path / "default.onnx")
    with pytest.raises(GateError, match="bias_DequantizeLinear"):
        tensorrt_rtx.accepts(path)


@pytest.mark.usefixtures("rtx")
def test_uint8_that_the_parser_would_read_as_int8_is_refused(tmp_path: Path) -> None:
    import numpy as np
    import onnx

    from tests.lint.graphs import graph, pair

    path = tmp_path / "unsigned.onnx"
    onnx.save(graph(pair("x", "y", zero="u0"), s=np.array(0.1, np.float32)), path)
    with pytest.raises(GateError, match="Defaulting to INT8"):
        tensorrt_rtx.accepts(path)


@pytest.mark.usefixtures("rtx")
def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "noise.onnx"
    path.write_bytes(b"noise")
    with pytest.raises(GateError, match=r"noise\.onnx"):
        tensorrt_rtx.accepts(path)


def test_without_the_packages_the_error_says_what_to_install(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    with pytest.raises(DependencyError, match=r"edgekit\[tensorrt-rtx\]"):
        tensorrt_rtx.accepts(tmp_path / "model.onnx")
