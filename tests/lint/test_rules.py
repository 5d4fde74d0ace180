"""Every rule with the smallest graph that breaks it and one that does not."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from edgekit.errors import InputError, UsageError
from edgekit.lint import RULES, Finding, lint
from tests.lint.graphs import conv, graph, pair


class Case(NamedTuple):
    """The rule fires on `bad` and not on `good`. times: how often it fires."""

    rule: str
    bad: Any
    good: Any
    runtime: str = "tensorrt"
    version: str | None = None
    times: int = 1


ONE = np.array(1, np.float32)
CLEAN = graph(pair("x", "a") + conv("a", "c") + "r = Relu(c)\n" + pair("r", "y"))
ORT_CLEAN = graph(pair("x", "a", zero="u128") + conv("a", "c") + "r = Relu(c)\n" + pair("r", "y", zero="u0"))
NORM: dict[str, Any] = {"scale": np.ones(16, np.float32), "mean": np.zeros(16, np.float32)}


def skip(main: bool, branch: bool) -> Any:
    """x -> Q/DQ -> convolution, added to the skip branch; main, branch: which inputs of the Add are quantized."""
    body = pair("x", "a") + conv("a", "c") + (pair("c", "m", "t") if main else "")
    return graph(body + f"sum = Add({'m' if main else 'c'}, {'a' if branch else 'x'})\n" + pair("sum", "y"))


def plain(operator: str, **options: Any) -> Any:
    return graph(f"y = {operator}", **options)


CASES = [
    # zero points, types, scales
    Case("zero-point", graph(pair("x", "y", zero="k"), k=np.array(3, np.int8)), CLEAN),
    Case("unsigned", graph(pair("x", "y", zero="u0")), CLEAN),
    Case("unsigned", graph("q = QuantizeLinear(x, s) y = DequantizeLinear(q, s)"), CLEAN),
    Case("scale-positive", graph(pair("x", "y", scale="k"), k=np.array(0, np.float32)), CLEAN),
    Case("scale-positive", graph(pair("x", "y", scale="k"), k=np.array(np.inf, np.float32)), CLEAN),
    Case("scale-constant", graph("k = ReduceMax <keepdims = 0> (x)\n" + pair("x", "y", scale="k")), CLEAN, times=2),
    Case(
        "activation-per-channel",
        graph("q = QuantizeLinear <axis = 1> (x, ws, wz) y = DequantizeLinear <axis = 1> (q, ws, wz)"),
        CLEAN,
    ),
    Case("weight-per-tensor", graph(pair("x", "a") + "v = DequantizeLinear(w, s, z) y = Conv(a, v)"), CLEAN),
    Case(
        "weight-axis",
        graph(pair("x", "a") + "v = DequantizeLinear <axis = 1> (w, ws, wz) y = Conv(a, v)"),
        graph(pair("x", "a") + "v = DequantizeLinear <axis = 1> (w, ws, wz) y = ConvTranspose(a, v)"),
    ),
    Case("pair-disagrees", graph("q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, t, z)"), CLEAN),
    Case(
        "clamp-zero-point",
        graph(pair("x", "a", zero="u128") + conv("a", "c") + "r = Relu(c)\n" + pair("r", "y", zero="u128")),
        ORT_CLEAN,
        "onnxruntime",
    ),
    Case("clamp-zero-point", CLEAN, ORT_CLEAN, "onnxruntime"),
    # placement
    Case("add-both-inputs", skip(main=True, branch=True), skip(main=False, branch=True)),
    Case("add-skip-float", skip(main=False, branch=False), skip(main=False, branch=True)),
    Case("add-one-input", skip(main=False, branch=True), skip(main=True, branch=True), "onnxruntime"),
    Case(
        "convolution-output-float",
        graph(pair("x", "a", zero="u128") + conv("a", "c") + "y = Relu(c)"),
        ORT_CLEAN,
        "onnxruntime",
    ),
    Case("float-weight", graph(pair("x", "a") + "y = Conv(a, f)"), CLEAN),
    Case("float-activation", graph(conv("x", "y")), CLEAN),
    Case("float-layer", graph(pair("x", "a") + conv("a", "c") + "r = Relu(c) y = Conv(r, f)"), plain("Conv(x, f)")),
    Case("quantizer-before-clamp", graph(pair("x", "a") + conv("a", "c") + pair("c", "d") + "y = Relu(d)"), CLEAN),
    Case(
        "concat-scales",
        graph(pair("x", "a") + pair("x", "c", "t") + "y = Concat <axis = 1> (a, c)"),
        graph(pair("x", "a") + pair("x", "c") + "y = Concat <axis = 1> (a, c)"),
    ),
    Case(
        "pool-input",
        graph("p = GlobalAveragePool(x)\n" + pair("p", "y")),
        graph(pair("x", "a") + "p = GlobalAveragePool(a)\n" + pair("p", "y")),
    ),
    Case(
        "dangling-quantize",
        graph("q = QuantizeLinear(x, s, z) y = Cast <to = 1> (q)"),
        graph("q = QuantizeLinear(x, s, z) m = MaxPool <kernel_shape = [2, 2]> (q) y = DequantizeLinear(m, s, z)"),
    ),
    Case("dangling-quantize", graph("q = QuantizeLinear(x, s, z) y = Relu(x)"), CLEAN),
    Case("dangling-dequantize", graph("q = Cast <to = 3> (x) y = DequantizeLinear(q, s, z)"), CLEAN),
    Case("island", graph(pair("x", "a") + "y = Erf(a)"), CLEAN),
    Case("quantized-twice", graph(pair("x", "a") + pair("a", "y", "t")), CLEAN),
    # structure
    Case(
        "batchnorm",
        graph(pair("x", "a") + conv("a", "c") + "y = BatchNormalization(c, b, b, mean, scale)", **NORM),
        plain("BatchNormalization(x, b, b, mean, scale)", **NORM),
    ),
    Case("int32-bias", graph("v = DequantizeLinear(w32, s) y = Add(x, v)"), CLEAN),
    Case(
        "float-weights",
        graph(
            pair("x", "a") + "q = QuantizeLinear <axis = 0> (f, ws, wz) v = DequantizeLinear(q, ws, wz) y = Conv(a, v)"
        ),
        CLEAN,
    ),
    Case("integer-operator", plain("ConvInteger(x, w)"), CLEAN),
    Case("private-domain", plain("ours.Magic(x)", domain="ours"), CLEAN),
    Case(
        "unknown-domain",
        plain("ours.Magic(x)", domain="ours"),
        plain("com.microsoft.Gelu(x)", domain="com.microsoft"),
        "onnxruntime",
    ),
    Case("opset-17", plain("Relu(x)", opset=18), plain("Relu(x)", opset=17), version="8.6.1"),
    Case("opset-20", plain("Relu(x)", opset=21), plain("Relu(x)", opset=20), version="10.0"),
    Case("operator-8.5", plain("Mish(x)", opset=18), plain("HardSwish(x)"), version="8.5.2"),
    Case("operator-8.6", plain("Mish(x)", opset=18), plain("HardSwish(x)"), version="8.6.1"),
    Case("operator-10.1", plain("Det(x)"), plain("Mish(x)", opset=18), version="10.1"),
    Case("operator-newer", plain("Det(x)"), plain("Mish(x)", opset=18), version="11.4"),
    Case("alignment", plain("Conv(x, k)", k=np.ones((10, 16, 1, 1), np.float32)), CLEAN),
    Case("alignment", plain("Conv(x, k)", k=np.ones((10, 16, 1, 1), np.float32)), plain("Conv(x, f)")),
    Case(
        "float32-remainder",
        CLEAN,
        graph("h = Cast <to = 10> (x)\n" + pair("h", "y", "k"), opset=19, k=np.array(0.1, np.float16)),
        version="10.3",
    ),
    Case("free-shape", plain("Relu(x)", shape="batch,16,8,8"), CLEAN),
]


def named(findings: list[Finding], rule: str) -> list[Finding]:
    return [finding for finding in findings if finding.rule == rule]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)
def test_a_rule_fires_on_the_graph_that_breaks_it_and_on_no_other(case: Case) -> None:
    found = named(lint(case.bad, case.runtime, case.version), case.rule)
    assert len(found) == case.times
    assert all(finding.cost and finding.remedy and finding.what for finding in found)
    assert named(lint(case.good, case.runtime, case.version), case.rule) == []


def test_every_rule_has_a_case_and_there_are_many() -> None:
    assert {case.rule for case in CASES} == set(RULES)
    assert len(RULES) >= 18


def test_the_clean_graphs_break_no_rule_of_their_runtime() -> None:
    assert [finding.rule for finding in lint(CLEAN, "tensorrt", "8.6")] == []
    assert lint(ORT_CLEAN, "onnxruntime") == lint(ORT_CLEAN, "openvino") == []


def test_rules_hold_for_their_versions_only() -> None:
    late = plain("Relu(x)", opset=18)
    assert [finding.rule for finding in lint(late, "tensorrt", "8.6")] == ["opset-17"]
    assert lint(late, "tensorrt", "10.3") == lint(late, "tensorrt") == []
    assert [finding.rule for finding in lint(CLEAN, "tensorrt", "10.3")] == ["float32-remainder"]


def test_a_finding_names_its_node_and_errors_come_first() -> None:
    model = graph(pair("x", "a", zero="u128") + conv("a", "y"))
    model.graph.node[0].name = "input quantizer"
    findings = lint(model, "tensorrt", "10.3")
    assert [(finding.rule, finding.node) for finding in findings] == [
        ("zero-point", "input quantizer"),
        ("unsigned", "input quantizer"),
        ("float32-remainder", None),
    ]
    assert [finding.severity for finding in findings] == ["error", "error", "warning"]
    assert str(findings[0]).startswith("error zero-point: input quantizer: zero point 128")


def test_tensorrt_rtx_is_judged_as_the_newest_tensorrt() -> None:
    assert lint(skip(True, True), "tensorrt_rtx") == lint(skip(True, True), "tensorrt", "11")


def test_what_is_no_model_runtime_or_version_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "noise.onnx"
    path.write_bytes(b"\x08\xff not a model")
    with pytest.raises(InputError, match=r"noise.onnx"):
        lint(path, "tensorrt")
    with pytest.raises(InputError, match="cannot be read"):
        lint(tmp_path / "absent.onnx", "tensorrt")
    with pytest.raises(UsageError, match="Did you mean 'tensorrt'"):
        lint(CLEAN, "tensort")
    with pytest.raises(UsageError, match="is no version"):
        lint(CLEAN, "tensorrt", "new")
