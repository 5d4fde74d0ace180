"""TensorRT as the code calls it, against the recorded names of four versions. No test here has seen a GPU."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.engine.key import EngineKey, seal, sidecar, unseal
from edgekit.errors import DependencyError, InputError, IntegrityError, ResourceError
from edgekit.runtimes import tensorrt
from edgekit.runtimes.tensorrt import TensorRtSession
from edgekit.trtexec import Layer, read_layers
from tests.fake_tensorrt import VERSIONS, FakeCuda, FakeTensorRT

X = np.array([[1, 3]], np.float32)
EXPLICIT_BATCH, STRONGLY_TYPED = "EXPLICIT_BATCH", "STRONGLY_TYPED"
KEY = EngineKey("a" * 64, "10.3.0", "8.7", "Orin", "MAXN", "level=3 typed")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An int8 model as the exporter leaves it: one file for 10 and later, one for 8."""
    for name in ("model.onnx", "model.trt8.onnx"):
        (tmp_path / name).write_bytes(b"onnx QuantizeLinear " + name.encode())
    return tmp_path / "model.onnx"


def fake(version: str, **options: Any) -> FakeTensorRT:
    return FakeTensorRT(version, FakeCuda(), **options)


def opened(path: Path, trt: FakeTensorRT) -> TensorRtSession:
    return TensorRtSession(path, trt, trt._cuda)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_is_built_loaded_and_run_with_the_names_of_every_version(version: str, model: Path) -> None:
    trt = fake(version)
    session = opened(model, trt)
    assert session.infer({"x": X})["y"].tolist() == [[2, 6]]
    assert len(session.time_ms({"x": X}, 3)) == 3
    assert (session.inputs[0].name, session.inputs[0].shape, session.outputs[0].dtype) == ("x", (1, 2), "float32")
    assert session.engine["tensorrt"] == version
    assert session.engine["compute_capability"] == "8.7"
    assert read_layers(session.inspect()) == (Layer("double", None),)
    session.close()
    assert trt._cuda.held == {}


@pytest.mark.parametrize(
    ("version", "batch", "typed", "flags"),
    [
        ("8.6.1", True, False, ["FP16", "INT8"]),
        ("10.3.0", True, True, []),
        ("10.16.1.11", True, True, []),
        ("11.4.0.106", False, True, []),
    ],
)
def test_precision_comes_from_flags_in_8_and_from_the_file_later(
    version: str, batch: bool, typed: bool, flags: list[str], model: Path
) -> None:
    trt = fake(version)
    opened(model, trt)
    kinds = trt.NetworkDefinitionCreationFlag
    expected = (1 << kinds.EXPLICIT_BATCH if batch else 0) | (1 << kinds.STRONGLY_TYPED if typed else 0)
    assert ("network", expected) in trt.calls
    assert [call[1] for call in trt.calls if call[0] == "flag"] == flags


def test_a_float_model_asks_8_for_no_int8(tmp_path: Path) -> None:
    (tmp_path / "model.trt8.onnx").write_bytes(b"onnx")
    trt = fake("8.6.1")
    opened(tmp_path / "model.onnx", trt)
    assert [call for call in trt.calls if call[0] == "flag"] == [("flag", "FP16")]


def test_the_fake_lacks_what_the_versions_lack() -> None:
    with pytest.raises(AttributeError):
        _ = fake("11.4.0.106").NetworkDefinitionCreationFlag.EXPLICIT_BATCH
    with pytest.raises(AttributeError):
        _ = fake("10.3.0").Builder.build_engine
    with pytest.raises(AttributeError):
        fake("11.4.0.106").IBuilderConfig().int8_calibrator = None
    with pytest.raises(AttributeError):
        _ = fake("8.6.1").NotATensorRTName


def test_the_file_for_8_must_be_there_for_8(model: Path) -> None:
    model.with_name("model.trt8.onnx").unlink()
    opened(model, fake("10.3.0"))
    with pytest.raises(InputError, match=r"model\.trt8\.onnx"):
        opened(model, fake("8.6.1"))


def test_a_second_session_loads_the_engine_that_stands_there(model: Path) -> None:
    opened(model, fake("10.3.0"))
    again = fake("10.3.0")
    opened(model, again)
    assert [call[0] for call in again.calls] == ["runtime"]


def test_another_version_builds_again_with_a_timing_cache_of_its_own(model: Path) -> None:
    opened(model, fake("10.3.0"))
    newer = fake("11.4.0.106")
    opened(model, newer)
    assert [call[0] for call in newer.calls] == ["network", "build", "runtime"]
    assert newer.calls[1][2] == b""


def test_the_timing_cache_is_read_again(model: Path) -> None:
    opened(model, fake("10.3.0"))
    model.write_bytes(b"another onnx")
    again = fake("10.3.0")
    opened(model, again)
    assert again.calls[1][2] == b"+"


def test_the_workspace_is_half_of_the_free_memory_and_halved_when_a_build_fails(model: Path) -> None:
    trt = fake("10.3.0", failing=2)
    opened(model, trt)
    gib = 2**30
    assert [call[1] for call in trt.calls if call[0] == "build"] == [2 * gib, gib, gib // 2]
    facts = json.loads(sidecar(model.with_suffix(".engine")).read_text())["facts"]
    assert (facts["workspace_bytes"], facts["retries"]) == (gib // 2, 2)


def test_a_build_that_fails_three_times_says_what_tensorrt_said(model: Path) -> None:
    with pytest.raises(ResourceError, match="out of memory"):
        opened(model, fake("10.3.0", failing=3))
    assert not model.with_suffix(".engine").exists()


def test_a_file_that_the_parser_refuses_is_named_with_its_words(model: Path) -> None:
    with pytest.raises(InputError, match="Non-zero zero point"):
        opened(model, fake("10.3.0", refuses="Non-zero zero point is not supported"))


def test_a_builder_without_a_driver_is_put_into_plain_words(model: Path) -> None:
    with pytest.raises(DependencyError, match="no GPU with a driver"):
        opened(model, fake("10.3.0", driver=False))


def test_an_input_of_another_shape_or_type_is_refused(model: Path) -> None:
    session = opened(model, fake("10.3.0"))
    for wrong in (X.astype(np.float64), np.zeros((2, 2), np.float32)):
        with pytest.raises(InputError, match="the engine takes float32"):
            session.infer({"x": wrong})


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(EngineKey)])
def test_an_engine_with_another_key_is_refused_by_the_field_that_differs(field: str, tmp_path: Path) -> None:
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"plan")
    seal(engine, KEY, {})
    assert unseal(engine, KEY) == b"plan"
    with pytest.raises(IntegrityError, match=field.replace("_", " ")) as caught:
        unseal(engine, dataclasses.replace(KEY, **{field: "other"}))
    assert "here it is other" in str(caught.value)


def test_a_foreign_engine_is_refused_before_tensorrt_sees_it(model: Path) -> None:
    engine = model.with_suffix(".engine")
    engine.write_bytes(b"plan")
    trt = fake("10.3.0")
    with pytest.raises(IntegrityError, match="only engines that edgekit built"):
        opened(engine, trt)
    assert trt.calls == []


def test_an_engine_built_for_another_gpu_is_refused_before_tensorrt_sees_it(model: Path) -> None:
    opened(model, fake("10.3.0"))
    other = FakeTensorRT("10.3.0", FakeCuda(capability="8.6"))
    with pytest.raises(IntegrityError, match="another compute capability"):
        opened(model.with_suffix(".engine"), other)
    assert other.calls == []


def test_a_changed_engine_is_refused(model: Path) -> None:
    opened(model, fake("10.3.0"))
    engine = model.with_suffix(".engine")
    engine.write_bytes(b"pl4n")
    with pytest.raises(IntegrityError, match="sha256"):
        opened(engine, fake("10.3.0"))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "other/1"}', '{"schema": "edgekit.engine/1", "key": 3}'])
def test_a_broken_sidecar_is_refused(text: str, tmp_path: Path) -> None:
    engine = tmp_path / "model.engine"
    engine.write_bytes(b"plan")
    sidecar(engine).write_text(text)
    with pytest.raises(IntegrityError):
        unseal(engine, KEY)


def test_options_are_obeyed_or_refused() -> None:
    with pytest.raises(InputError, match="Did you mean 'threads'"):
        tensorrt.open_session("model.onnx", {"thread": 1})
    with pytest.raises(InputError, match="one thread"):
        tensorrt.open_session("model.onnx", {"threads": 2})
    assert tensorrt.offers() == ()


def test_without_the_package_it_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "JetPack" in str(tensorrt.missing())
    with pytest.raises(DependencyError, match="JetPack"):
        tensorrt.open_session("model.onnx", {})


def test_without_a_gpu_tensorrt_is_not_even_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("edgekit.engine.cuda.missing", lambda: "CUDA finds no device")
    assert tensorrt.missing() == "CUDA finds no device"
