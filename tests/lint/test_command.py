"""`edgekit lint`: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner, Result

from edgekit.cli import app
from tests.lint.graphs import conv, graph, pair

LAYERS = Path(__file__).parent.parent / "data" / "exportlayerinfo_trt8_mobilenet_qat_first4.json"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Clean for onnxruntime; TensorRT takes no zero point 128."""
    path = tmp_path / "model.onnx"
    onnx.save(graph(pair("x", "a", zero="u128") + conv("a", "c") + pair("c", "y", zero="u128")), path)
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["lint", *map(str, words)])


def test_a_clean_model_exits_0_and_says_so(model: Path) -> None:
    done = run(model, "--for", "onnxruntime")
    assert (done.exit_code, done.stdout) == (0, f"{model}: nothing to mend for onnxruntime\n")


def test_an_error_exits_5_and_names_cost_and_remedy(model: Path) -> None:
    done = run(model, "--for", "tensorrt", "--at", "8.6")
    assert done.exit_code == 5
    assert "error zero-point: " in done.stdout
    assert "  cost: the parser refuses the file\n  next: quantize with the tensorrt scheme" in done.stdout


def test_warnings_alone_exit_0(tmp_path: Path) -> None:
    onnx.save(graph("y = Det(x)"), tmp_path / "det.onnx")
    done = run(tmp_path / "det.onnx", "--for", "tensorrt", "--at", "10.3")
    assert done.exit_code == 0
    assert done.stdout.startswith("warning operator-newer: Det -> y: Det is not in the parser's table")


def test_json_is_one_object(model: Path) -> None:
    done = run(model, "--for", "tensorrt", "--json")
    findings = json.loads(done.stdout)["findings"]
    assert done.exit_code == 5
    assert {finding["rule"] for finding in findings} == {"zero-point", "unsigned", "float32-remainder"}
    assert set(findings[0]) == {"rule", "severity", "node", "what", "cost", "remedy"}


def test_layer_information_is_counted() -> None:
    done = run(LAYERS, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["reformats"] == ["QuantizeLinear_2"]


def test_without_a_runtime_it_asks_for_one(model: Path) -> None:
    assert run(model).exit_code == 2


def test_a_file_that_is_no_model_exits_3(tmp_path: Path) -> None:
    assert run(tmp_path / "absent.onnx", "--for", "tensorrt").exit_code == 3
