"""OpenVINO's own format: two files that hold the network, in its numbers, and run alone."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgekit.artifact import Artifact
from edgekit.errors import DependencyError, GateError, ResourceError
from edgekit.exporters import onnx as plain
from edgekit.exporters import openvino as exporter
from edgekit.job import format_for
from edgekit.model import Model
from edgekit.runtimes import openvino
from tests import exports
from tests.networks import Grouped, Residual, realistic

pytestmark = pytest.mark.skipif(openvino.missing() is not None, reason=str(openvino.missing()))
IMAGES = exports.images()


@pytest.fixture(scope="module")
def int8() -> Model:
    return exports.quantized(realistic(Residual()), IMAGES, "openvino")


def test_an_int8_file_gives_what_the_onnx_file_gives(int8: Model, tmp_path: Path) -> None:
    ours = exporter.export(int8, tmp_path / "model.openvino.onnx")
    onnx_file = plain.export(int8, tmp_path / "model.onnx")
    np.testing.assert_allclose(_outputs(ours), _outputs(onnx_file), rtol=1e-4, atol=1e-4)


def test_a_float_file_gives_what_the_network_gives(tmp_path: Path) -> None:
    """A depthwise convolution and one in groups too."""
    model = exports.model(realistic(Grouped()), IMAGES[:1])
    artifact = exporter.export(model, tmp_path / "model.onnx")
    np.testing.assert_allclose(_outputs(artifact), model.net(IMAGES).detach().numpy(), rtol=1e-4, atol=1e-4)
    assert artifact.precision == "float32"


def test_the_artifact_is_two_files_and_says_so(int8: Model, tmp_path: Path) -> None:
    artifact = exporter.export(int8, tmp_path / "model.openvino.onnx", preprocess={"size": [8, 8]}, parent="ab")
    assert artifact.path == tmp_path / "model.openvino.xml"
    assert artifact.companions == (tmp_path / "model.openvino.bin",)
    assert sorted(tmp_path.iterdir()) == [*artifact.companions, artifact.path]
    assert (artifact.format, artifact.precision, artifact.parent) == ("openvino", "int8", "ab")
    assert artifact.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    assert [(one.name, one.shape) for one in artifact.inputs] == [("input", (1, 1, 8, 8))]


def test_weights_are_int8_in_the_file(int8: Model, tmp_path: Path) -> None:
    artifact = exporter.export(int8, tmp_path / "model.onnx")
    weights = 8 * 9 + 16 * 8 * 9 + 8 * 16 * 9 + 10 * 8  # a byte each; the rest is scales, ranges and biases in float
    assert artifact.companions[0].stat().st_size < 1.5 * weights


def test_networks_that_differ_in_their_weights_alone_differ_in_both_files(tmp_path: Path) -> None:
    digests = [
        exporter.export(exports.model(realistic(Residual(), seed), IMAGES[:1]), tmp_path / f"{seed}.onnx").sha256
        for seed in (0, 1)
    ]
    assert digests[0] != digests[1]


def test_no_path_of_this_machine_is_in_the_file(int8: Model, tmp_path: Path) -> None:
    text = exporter.export(int8, tmp_path / "model.onnx").path.read_text()
    assert str(tmp_path) not in text
    assert "/tmp" not in text
    assert str(Path(__file__).parents[2]) not in text


def test_a_lost_quantizer_is_noticed(int8: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "_census_of_onnx", lambda path: {"quantizers": 7})
    with pytest.raises(GateError, match="the exported file is not the model") as error:
        exporter.export(int8, tmp_path / "model.onnx")
    assert error.value.why == "6 quantizers, the model has 7"


def test_a_full_disk_leaves_no_half_file(int8: Model, tmp_path: Path) -> None:
    (tmp_path / "model.bin").symlink_to("/dev/full")
    with pytest.raises(ResourceError, match="cannot be written"):
        exporter.export(int8, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_openvino_the_error_says_what_to_install(
    int8: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(DependencyError, match="openvino is not installed") as error:
        exporter.export(int8, tmp_path / "model.onnx")
    assert error.value.next == "pip install 'edgekit[openvino]'"


def test_a_runtime_gets_one_file_of_a_recipe_its_own_format_first() -> None:
    job: Any = SimpleNamespace(recipe=SimpleNamespace(export=["onnx", "openvino"]))
    assert format_for(job, "openvino") == "openvino"
    assert format_for(job, "onnxruntime") == "onnx"


def _outputs(artifact: Artifact) -> np.ndarray:
    session = openvino.open_session(str(artifact.path), {})
    name = session.outputs[0].name
    return np.concatenate([session.infer({"input": image[None].numpy()})[name] for image in IMAGES])
