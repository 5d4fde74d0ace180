"""Engines of TensorRT-RTX: who may load them. No test here has seen a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.engine.key import EngineKey, seal
from edgekit.errors import DependencyError, DeviceError, InputError, IntegrityError
from edgekit.runtimes import tensorrt_rtx
from edgekit.runtimes.tensorrt_rtx import TensorRtRtxSession
from tests.fake_tensorrt import FakeCuda, FakeTensorRT

VERSION = "11.4.0.106"  # the recorded version whose names are nearest
KEY = EngineKey("a" * 64, VERSION, "8.6+8.9", None, None, "typed")


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "model.engine"
    path.write_bytes(b"plan")
    seal(path, KEY, {})
    return path


def opened(engine: Path, capability: str = "8.9", version: str = VERSION) -> TensorRtRtxSession:
    cuda = FakeCuda(capability=capability)
    return TensorRtRtxSession(engine, FakeTensorRT(version, cuda), cuda)


def test_an_engine_runs_on_a_gpu_it_was_built_for(engine: Path) -> None:
    session = opened(engine)
    assert session.infer({"x": np.array([[1, 3]], np.float32)})["y"].tolist() == [[2, 6]]
    assert (session.engine["compute_capability"], session.engine["running_on"]) == ("8.6+8.9", "8.9")
    session.close()


def test_another_gpu_is_refused_with_those_it_was_built_for(engine: Path) -> None:
    with pytest.raises(DeviceError, match=r"capability 8\.6, 8\.9, this GPU has 12\.0"):
        opened(engine, capability="12.0")


def test_another_version_is_refused(engine: Path) -> None:
    with pytest.raises(IntegrityError, match="another tensorrt"):
        opened(engine, version="10.3.0")


def test_a_changed_or_foreign_engine_is_refused(engine: Path) -> None:
    engine.write_bytes(b"pl4n")
    with pytest.raises(IntegrityError, match="sha256"):
        opened(engine)
    (engine.parent / "model.engine.json").unlink()
    with pytest.raises(IntegrityError, match="only engines that edgekit built"):
        opened(engine)


def test_options_are_obeyed_or_refused() -> None:
    with pytest.raises(InputError, match="unknown option"):
        tensorrt_rtx.open_session("model.engine", {"precision": "f16"})
    with pytest.raises(InputError, match="one thread"):
        tensorrt_rtx.open_session("model.engine", {"threads": 2})


def test_without_a_gpu_or_the_package_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.engine.cuda.missing", lambda: "there is no CUDA device")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(DependencyError, match="no CUDA device"):
        tensorrt_rtx.open_session("model.engine", {})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="tensorrt-rtx"):
        tensorrt_rtx.open_session("model.engine", {})


def test_the_installed_package_has_every_name_that_running_an_engine_calls() -> None:
    trt = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is not installed")
    names = {
        "Runtime": ["deserialize_cuda_engine"],
        "ICudaEngine": [
            "num_io_tensors",
            "get_tensor_name",
            "get_tensor_shape",
            "get_tensor_dtype",
            "get_tensor_mode",
            "create_execution_context",
        ],
        "IExecutionContext": ["set_tensor_address", "execute_async_v3"],
        "TensorIOMode": ["INPUT", "OUTPUT"],
        "ILogger": ["WARNING", "ERROR", "INTERNAL_ERROR"],
    }
    assert [
        f"{kind}.{name}" for kind, used in names.items() for name in used if not hasattr(getattr(trt, kind), name)
    ] == []
    assert trt.nptype(trt.DataType.FLOAT) is np.float32
