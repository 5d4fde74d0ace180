"""Files that are broken, hostile or odd: a finding or an error of ours, never a crash and never a hang."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import InputError
from edgekit.lint import RUNTIMES, lint
from tests.lint.graphs import conv, graph, pair

MODEL = graph(pair("x", "a") + conv("a", "c") + "r = Relu(c) p = GlobalAveragePool(r)\n" + pair("p", "y"))
BYTES = MODEL.SerializeToString()


def changed(**inputs: list[str]) -> Any:
    """The model with other inputs of some operators, by type."""
    model = onnx.ModelProto.FromString(BYTES)
    for node in model.graph.node:
        if node.op_type in inputs:
            node.input[:] = inputs[node.op_type]
    return model


@pytest.mark.parametrize(
    "model",
    [
        changed(Relu=["r"]),  # reads what it makes: a cycle
        changed(Relu=["y"]),  # reads what comes later
        changed(Conv=[]),
        changed(QuantizeLinear=["x"]),
        changed(Relu=["nobody makes this"]),
        onnx.ModelProto(),
    ],
)
def test_a_graph_that_does_not_hold_together_is_refused(model: Any) -> None:
    with pytest.raises(InputError, match="is not an ONNX model"):
        lint(model, "tensorrt")


@given(st.integers(0, len(BYTES) - 1), st.binary(min_size=1, max_size=4))
def test_a_file_with_changed_bytes_is_judged_or_refused(at: int, noise: bytes) -> None:
    content = BYTES[:at] + noise + BYTES[at + len(noise) :]
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception:  # protobuf refuses it already
        return
    for runtime in RUNTIMES:
        try:
            lint(model, runtime)
        except InputError:
            continue


def test_weights_in_a_file_beside_the_model_are_not_loaded(tmp_path: Path) -> None:
    model = graph(pair("x", "a") + conv("a", "y"), w=np.ones((16, 16, 8, 8), np.int8))
    onnx.save(model, tmp_path / "big.onnx", save_as_external_data=True, location="big.bin", size_threshold=1024)
    assert (tmp_path / "big.bin").stat().st_size == 16 * 16 * 8 * 8
    assert [finding.rule for finding in lint(tmp_path / "big.onnx", "tensorrt", "8.6")] == []


def test_weights_outside_the_models_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(16 * 16 * 8 * 8))
    (tmp_path / "inner").mkdir()
    model = graph(pair("x", "a") + conv("a", "y"), w=np.ones((16, 16, 8, 8), np.int8))
    onnx.save(model, tmp_path / "inner" / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=1024)
    hostile = (tmp_path / "inner" / "m.onnx").read_bytes().replace(b"w.bin", b"../s.")
    (tmp_path / "inner" / "m.onnx").write_bytes(hostile)
    with pytest.raises(InputError, match="is not an ONNX model"):
        lint(tmp_path / "inner" / "m.onnx", "tensorrt")
