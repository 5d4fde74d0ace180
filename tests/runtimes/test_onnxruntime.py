"""The real ONNX Runtime, on a network whose outputs are worked by hand."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import DependencyError, InputError
from edgekit.runtimes import onnxruntime
from tests import tiny_onnx


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tiny_onnx.write(tmp_path / "tiny.onnx"))


def test_it_computes_what_the_file_says(path: str) -> None:
    session = onnxruntime.open_session(path, {})
    assert session.infer({"x": tiny_onnx.images(0.5, 2)})["y"] == pytest.approx(np.array([[1, 3], [4, 12]]))
    assert [(spec.name, spec.dtype, spec.shape) for spec in session.inputs + session.outputs] == [
        ("x", "float32", ("batch", 1, 4, 4)),
        ("y", "float32", ("batch", 2)),
    ]


def test_what_really_runs_is_read_back(path: str) -> None:
    engine = onnxruntime.open_session(path, {"threads": 2}).engine
    assert engine["providers"] == ["CPUExecutionProvider"]
    assert (engine["threads"], engine["optimization"]) == (2, "ORT_ENABLE_ALL")
    assert (engine["convolutions_int8"], engine["convolutions_float"]) == (1, 1)


def test_without_optimization_no_convolution_runs_in_int8(path: str) -> None:
    engine = onnxruntime.open_session(path, {"optimization": "none"}).engine
    assert (engine["convolutions_int8"], engine["convolutions_float"]) == (0, 2)


def test_every_inference_has_its_own_time(path: str) -> None:
    samples_ms = onnxruntime.open_session(path, {}).time_ms({"x": tiny_onnx.images(1)}, 20)
    assert len(samples_ms) == 20
    assert all(0 < sample < 1000 for sample in samples_ms)


def test_layers_name_what_ran(path: str) -> None:
    layers = onnxruntime.open_session(path, {}).layers()
    assert {"QLinearConv", "Conv"} <= {layer["type"] for layer in layers}
    assert all(layer["ms"] >= 0 for layer in layers)


def test_opening_leaves_no_file_behind(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    monkeypatch.chdir(tmp_path)
    session = onnxruntime.open_session(path, {})
    session.layers()
    session.close()
    assert [one.name for one in sorted(tmp_path.iterdir())] == ["scratch", "tiny.onnx"]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_telemetry_is_off_before_the_library_loads(path: str) -> None:
    onnxruntime.open_session(path, {})
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_a_precision_it_does_not_execute_is_refused(path: str) -> None:
    assert onnxruntime.open_session(path, {"precision": "float32"}).engine["precision"] == "float32"
    with pytest.raises(DependencyError, match="precision bf16 is not offered by this runtime"):
        onnxruntime.open_session(path, {"precision": "bf16"})


def test_unknown_options_and_files_are_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'threads'"):
        onnxruntime.open_session(path, {"thread": 1})
    with pytest.raises(InputError, match=r"unknown optimization 'al'\. Did you mean 'all'"):
        onnxruntime.open_session(path, {"optimization": "al"})
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(InputError, match="does not take this file"):
        onnxruntime.open_session(str(broken), {})
