"""The real OpenVINO, on a network whose outputs are worked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import DependencyError, InputError
from edgekit.runtimes import openvino
from tests import tiny_onnx

pytestmark = pytest.mark.skipif(openvino.missing() is not None, reason=str(openvino.missing()))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tiny_onnx.write(tmp_path / "tiny.onnx"))


def test_it_computes_what_the_file_says(path: str) -> None:
    session = openvino.open_session(path, {})
    first = session.infer({"x": tiny_onnx.images(0.5, 2)})["y"]
    session.infer({"x": tiny_onnx.images(7, 7)})
    assert first == pytest.approx(np.array([[1, 3], [4, 12]]))  # not overwritten by the inference after it
    assert [(spec.name, spec.dtype, spec.shape[1:]) for spec in session.inputs + session.outputs] == [
        ("x", "float32", (1, 4, 4)),
        ("y", "float32", (2,)),
    ]


def test_a_candidate_runs_in_float32_unless_it_asks_for_less(path: str) -> None:
    engine = openvino.open_session(path, {"threads": 2}).engine
    assert (engine["precision"], engine["threads"], engine["streams"], engine["devices"]) == ("float32", 2, 1, ["CPU"])
    assert engine["convolutions_int8"] + engine["convolutions_float"] == 2
    assert engine["convolutions"].get("f32", 0) == engine["convolutions_float"]


def test_bfloat16_is_executed_where_it_is_offered_and_refused_where_not(path: str) -> None:
    if "bf16" in openvino.offers():
        engine = openvino.open_session(path, {"precision": "bf16"}).engine
        assert engine["precision"] == "bf16"
        assert "f32" not in engine["convolutions"]
    else:
        with pytest.raises(DependencyError, match="precision bf16 is not offered by this runtime"):
            openvino.open_session(path, {"precision": "bf16"})


def test_a_precision_the_processor_does_not_execute_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino, "offers", lambda: ("float32",))
    with pytest.raises(DependencyError, match="precision bf16 is not offered by this runtime") as caught:
        openvino.open_session(path, {"precision": "bf16"})
    assert "choose one of: float32" in str(caught.value)


def test_every_inference_has_its_own_time(path: str) -> None:
    samples_ms = openvino.open_session(path, {}).time_ms({"x": tiny_onnx.images(1)}, 20)
    assert len(samples_ms) == 20
    assert all(0 < sample < 1000 for sample in samples_ms)


def test_layers_name_what_ran(path: str) -> None:
    layers = openvino.open_session(path, {}).layers()
    assert sum(layer["type"].startswith("Convolution") for layer in layers) == 2
    assert all(layer["ms"] >= 0 for layer in layers)


def test_unknown_options_and_files_are_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown option 'streams'"):
        openvino.open_session(path, {"streams": 1})
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(InputError, match="does not take this file"):
        openvino.open_session(str(broken), {})
