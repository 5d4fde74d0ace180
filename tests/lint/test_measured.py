"""What the rules claim, read back from a real runtime: the broken graph costs what the text says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgekit.errors import GateError
from edgekit.exporters import tensorrt_rtx
from edgekit.lint import lint
from edgekit.runtimes import onnxruntime as ort
from tests.lint.graphs import conv, graph, pair
from tests.lint.test_rules import CASES

NORM: dict[str, Any] = {"scale": np.ones(16, np.float32), "mean": np.zeros(16, np.float32)}
START = pair("x", "a", zero="u128") + conv("a", "c")
END = "r = Relu(c)\n" + pair("r", "y", zero="u0")
GOOD = START + END
# rule -> (graph that breaks it, the same mended), each with one convolution.
CONVOLUTIONS = {
    "clamp-zero-point": (START + "r = Relu(c)\n" + pair("r", "y", zero="u128"), GOOD),
    "convolution-output-float": (START + "y = Relu(c)", GOOD),
    "float-activation": (conv("x", "c") + END, GOOD),
    "batchnorm": (
        START + "n = BatchNormalization(c, b, b, mean, scale) r = Relu(n)\n" + pair("r", "y", zero="u0"),
        GOOD,
    ),
    "add-one-input": (
        START + "n = Add(c, a)\n" + pair("n", "y", zero="u128"),
        START + pair("c", "m", "t", "u128") + "n = Add(m, a)\n" + pair("n", "y", zero="u128"),
    ),
}


def convolutions(model: Any, path: Path) -> tuple[int, int]:
    """(in int8, in float), as onnxruntime executed them."""
    onnx.save(model, path)
    session = ort.open_session(str(path), {})
    engine = session.engine
    session.close()
    return engine["convolutions_int8"], engine["convolutions_float"]


@pytest.mark.parametrize("rule", CONVOLUTIONS)
def test_the_convolution_of_a_broken_graph_runs_in_float(rule: str, tmp_path: Path) -> None:
    bad, good = (graph(body, shape="1,16,8,8", **(NORM if "mean" in body else {})) for body in CONVOLUTIONS[rule])
    assert rule in {finding.rule for finding in lint(bad, "onnxruntime")}
    assert lint(good, "onnxruntime") == []
    assert convolutions(bad, tmp_path / "bad.onnx") == (0, 1)
    assert convolutions(good, tmp_path / "good.onnx") == (1, 0)


def test_onnxruntime_quantizes_a_float_weight_itself_so_that_rule_is_not_for_it(tmp_path: Path) -> None:
    model = graph(pair("x", "a", zero="u128") + "c = Conv(a, f)\n" + END)
    assert lint(model, "onnxruntime") == []
    assert convolutions(model, tmp_path / "model.onnx") == (1, 0)


def test_openvino_runs_a_convolution_with_a_float_weight_in_float(tmp_path: Path) -> None:
    openvino = pytest.importorskip("edgekit.runtimes.openvino")
    if openvino.missing():
        pytest.skip(openvino.missing())
    counts = []
    for body in (pair("x", "a", zero="u128") + "c = Conv(a, f)\n" + END, GOOD):
        onnx.save(graph(body), tmp_path / "model.onnx")
        engine = openvino.open_session(str(tmp_path / "model.onnx"), {}).engine
        counts.append((engine["convolutions_int8"], engine["convolutions_float"]))
    assert counts == [(0, 1), (1, 0)]


def test_float_weights_behind_a_quantizer_make_the_file_almost_four_times_as_large() -> None:
    levels = np.ones((64, 16, 3, 3))
    scales: dict[str, Any] = {"ks": np.ones(64, np.float32), "kz": np.zeros(64, np.int8)}
    quantize, dequantize = "q = QuantizeLinear <axis = 0> (k, ks, kz)", "v = DequantizeLinear <axis = 0> ({}, ks, kz)"
    bad = graph(f"{quantize} {dequantize.format('q')} y = Conv(x, v)", k=levels.astype(np.float32), **scales)
    good = graph(f"{dequantize.format('k')} y = Conv(x, v)", k=levels.astype(np.int8), **scales)
    assert 3.5 < bad.ByteSize() / good.ByteSize() < 4


@pytest.mark.parametrize(
    "rule",
    ["zero-point", "unsigned", "int32-bias", "integer-operator", "private-domain", "operator-newer", "free-shape"],
)
def test_what_the_text_says_tensorrt_refuses_tensorrt_rtx_refuses(rule: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx_bindings", reason=f"TensorRT-RTX is not installed: {tensorrt_rtx.PACKAGES}")
    case = next(case for case in CASES if case.rule == rule)
    onnx.save(case.good, tmp_path / "good.onnx")
    onnx.save(case.bad, tmp_path / "bad.onnx")
    tensorrt_rtx.accepts(tmp_path / "good.onnx")
    with pytest.raises(GateError):
        tensorrt_rtx.accepts(tmp_path / "bad.onnx")
