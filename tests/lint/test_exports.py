"""The linter on whole networks: ours are clean in the runtime they are made for, a naive quantization is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.lint import lint
from tests import exports as made


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same network as we and as others write it."""
    folder = tmp_path_factory.mktemp("exports")
    return {
        "onnxruntime": made.export_int8(folder / "onnxruntime.onnx", "onnxruntime"),
        "tensorrt": made.export_int8(folder / "tensorrt.onnx", "tensorrt"),
        "float": made.export_float(folder / "float.onnx"),
        "nncf": made.export_nncf(folder / "nncf.onnx"),
        "default": made.export_onnxruntime_default(folder / "default.onnx"),
    }


def errors(path: Path, runtime: str, version: str | None = None) -> dict[str, int]:
    """How often each rule marked error fires."""
    rules = [finding.rule for finding in lint(path, runtime, version) if finding.severity == "error"]
    return {rule: rules.count(rule) for rule in rules}


def test_our_exports_are_clean_in_the_runtime_they_are_made_for(exports: dict[str, Path]) -> None:
    ours = exports["onnxruntime"]
    assert lint(ours, "onnxruntime") == lint(ours, "openvino") == []


def test_our_tensorrt_export_is_clean_in_tensorrt_and_openvino_and_named_in_onnxruntime(
    exports: dict[str, Path],
) -> None:
    ours = exports["tensorrt"]
    assert [finding.rule for finding in lint(ours, "tensorrt")] == ["float32-remainder"]  # mended by the exporter
    assert lint(ours, "openvino") == []
    # five ReLUs, and of each of the two Adds the convolution that TensorRT fuses with it
    expected = {"clamp-zero-point": 5, "add-one-input": 2, "convolution-output-float": 2}
    assert errors(ours, "onnxruntime") == expected


def test_our_onnxruntime_export_is_named_in_tensorrt(exports: dict[str, Path]) -> None:
    ours = exports["onnxruntime"]
    assert errors(ours, "tensorrt") == {"unsigned": 10, "zero-point": 3, "add-both-inputs": 2}


def test_float_exports_are_clean_everywhere(exports: dict[str, Path]) -> None:
    plain = exports["float"]
    for runtime in ("tensorrt", "onnxruntime", "openvino"):
        assert lint(plain, runtime) == []


@pytest.mark.parametrize("runtime", ["tensorrt", "onnxruntime", "openvino"])
def test_nncf_on_a_network_whose_batchnorm_is_not_folded_is_flagged(runtime: str, exports: dict[str, Path]) -> None:
    naive = exports["nncf"]
    found = errors(naive, runtime)
    assert found["batchnorm"] == 6  # one behind each convolution
    assert ("zero-point" in found) == (runtime == "tensorrt")


def test_onnxruntime_default_quantization_is_named_for_tensorrt(exports: dict[str, Path]) -> None:
    found = errors(exports["default"], "tensorrt")
    assert found["int32-bias"] == 7  # six convolutions and the classifier
    assert "zero-point" in found
