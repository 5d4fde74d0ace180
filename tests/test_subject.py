"""What `edgekit profile` measures: any ONNX file, a bundle, a run; what it feeds; what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from edgekit.artifact import Candidate, sha256_of
from edgekit.bundle import write_bundle
from edgekit.cli import app
from edgekit.errors import DependencyError, InputError, IntegrityError, UsageError
from edgekit.ledger import Ledger
from edgekit.profile import Profile
from edgekit.report import write
from edgekit.settings import GoalSettings
from edgekit.subject import Load, Subject, as_dict, measure, open_subject
from edgekit.verdict import verdict
from tests import records, tiny_onnx

# Runs a command line, then tells on stderr whether torch was imported.
COMMAND = """
import sys
sys.argv = ["edgekit", *sys.argv[1:]]
from edgekit.cli import main
try:
    main()
finally:
    print("torch was imported:", "torch" in sys.modules, file=sys.stderr)
"""
PREPROCESS = {"size": [4, 4], "mean": [0.0], "std": [1.0], "colour": "gray"}


def network(path: Path, dtype: int, shape: list[int | str]) -> Path:
    """`y = x` for an input of any type and shape."""
    node = helper.make_node("Identity", ["x"], ["y"])
    x, y = (helper.make_tensor_value_info(name, dtype, shape) for name in "xy")
    graph = helper.make_graph([node], "same", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def fed(subject: Subject) -> Any:
    """The only array that is fed."""
    (array,) = subject.inputs.by_name().values()
    return array


def run_folder(folder: Path) -> Path:
    """A finished run of one int8 file whose recipe takes the digits."""
    (folder / "artifacts").mkdir(parents=True)
    path = tiny_onnx.write(folder / "artifacts" / "quantize.onnx")
    final = records.final("quantize int8 onnxruntime", file=path.name, sha256=sha256_of(path))
    goal = GoalSettings.model_validate({"device": "x86-cpu", "runtime": "onnxruntime"})
    write(folder, Ledger((), (final,)), verdict([final], goal), {"goal": goal.model_dump()})
    (folder / "resolved.yaml").write_text("{seed: 0, data: {source: digits}}")
    return folder


def bundle(folder: Path) -> Path:
    path = tiny_onnx.write(folder.parent / "tiny.onnx")
    candidate = Candidate("quantize", tiny_onnx.artifact(path, preprocess=PREPROCESS), "onnxruntime")
    shipped = Profile(candidate, "x86-cpu", {}, {}, (np.ones(3),), outputs={"y": np.ones((2, 2))})
    return write_bundle(folder, shipped, np.zeros((2, 4, 4, 1), np.uint8), ["a", "b"])


def test_a_bare_file_is_fed_random_values_in_every_runtime_that_reads_it(tmp_path: Path) -> None:
    subject = open_subject(tiny_onnx.write(tmp_path / "tiny.onnx"))
    assert [one.name for one in subject.candidates] == ["tiny int8 onnxruntime", "tiny int8 openvino"]
    assert (subject.board.name, subject.inputs.kind) == ("x86-cpu", "random")
    assert fed(subject).shape == (16, 1, 4, 4)  # the file leaves its batch free: 16 samples of batch 1


def test_only_the_runtimes_asked_for_are_measured(tmp_path: Path) -> None:
    path = tiny_onnx.write(tmp_path / "tiny.onnx")
    assert [one.runtime for one in open_subject(path, runtimes=["openvino"]).candidates] == ["openvino"]
    with pytest.raises(InputError, match=r"no runtime is called 'openvin'\. Did you mean 'openvino'"):
        open_subject(path, runtimes=["openvin"])
    with pytest.raises(InputError, match="x86-cpu has no runtime 'tensorrt'"):
        open_subject(path, runtimes=["tensorrt"])


def test_a_runtime_that_is_missing_is_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_onnx.write(tmp_path / "tiny.onnx")
    monkeypatch.setattr("edgekit.runtimes.openvino.missing", lambda: "openvino is not installed")
    subject = open_subject(path)
    assert [one.runtime for one in subject.candidates] == ["onnxruntime"]
    assert subject.notes == ("not measured in openvino: openvino is not installed",)
    monkeypatch.setattr("edgekit.runtimes.onnxruntime.missing", lambda: "onnxruntime is not installed")
    with pytest.raises(DependencyError, match="has no runtime that reads ONNX"):
        open_subject(path)


def test_a_size_left_open_is_refused_with_the_flag_to_give(tmp_path: Path) -> None:
    path = network(tmp_path / "any.onnx", TensorProto.FLOAT, ["batch", 3, "height", "width"])
    with pytest.raises(InputError, match="sizes that the file leaves open: height, width") as caught:
        open_subject(path)
    assert "--shape x=N,3,N,N" in str(caught.value)
    assert fed(open_subject(path, shapes={"x": [1, 3, 8, 6]})).shape == (16, 3, 8, 6)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ({"x": [1, 4, 8, 8]}, "does not fit the file's"),
        ({"x": [1, 3, 8]}, "does not fit the file's"),
        ({"x": [8, 3, 8, 8]}, "a free batch is 1 here"),
        ({"xs": [1, 3, 8, 8]}, r"no input 'xs'\. Did you mean 'x'"),
    ],
)
def test_a_shape_that_the_file_does_not_have_is_refused(tmp_path: Path, shape: dict[str, list[int]], said: str) -> None:
    path = network(tmp_path / "any.onnx", TensorProto.FLOAT, ["batch", 3, "height", "width"])
    with pytest.raises(InputError, match=said):
        open_subject(path, shapes=shape)


@pytest.mark.parametrize(
    ("dtype", "name", "most"),
    [(TensorProto.INT64, "int64", 1), (TensorProto.UINT8, "uint8", 255), (TensorProto.BOOL, "bool", 1)],
)
def test_integers_are_made_up_so_that_every_vocabulary_holds_them(
    tmp_path: Path, dtype: int, name: str, most: int
) -> None:
    values = fed(open_subject(network(tmp_path / "any.onnx", dtype, [2, 100])))
    assert (str(values.dtype), values.shape) == (name, (32, 100))  # 16 inferences of batch 2
    assert 0 <= values.min() <= values.max() <= most


def test_what_cannot_be_made_up_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be made up") as caught:
        open_subject(network(tmp_path / "text.onnx", TensorProto.STRING, [1]))
    assert "--data FILE.npz" in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"PK\x03\x04 a zip of weights", "cut"])
def test_what_is_no_onnx_model_is_one_clear_error(tmp_path: Path, content: bytes | str | None) -> None:
    path = tmp_path / "model.onnx"
    if content == "cut":
        path.write_bytes(tiny_onnx.write(path).read_bytes()[:200])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(InputError, match="no such file" if content is None else "is no ONNX model") as caught:
        open_subject(path)
    assert caught.value.exit_code == 3
    assert str(path) in caught.value.what


def test_a_folder_that_is_neither_bundle_nor_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither a bundle \(manifest.json\) nor a finished run \(report.json\)"):
        open_subject(tmp_path)


def test_given_data_bring_names_labels_and_their_files_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "real.npz", pictures=tiny_onnx.images(1, 2, 3), labels=np.array([1, 1, 0]))
    path = tiny_onnx.write(tmp_path / "tiny.onnx")
    inputs = open_subject(path, data=tmp_path / "real.npz").inputs
    assert inputs.kind == "real.npz"
    assert inputs.labels is not None
    assert inputs.labels.tolist() == [1, 1, 0]
    with pytest.raises(UsageError, match="--shape is for random values"):
        open_subject(path, data=tmp_path / "real.npz", shapes={"x": [1]})


@pytest.mark.parametrize("content", [None, b"not arrays"])
def test_data_that_cannot_be_read_are_an_input_error(tmp_path: Path, content: bytes | None) -> None:
    data = tmp_path / "data.npz"
    if content is not None:
        data.write_bytes(content)
    with pytest.raises(InputError, match=r"data\.npz: is no \.npz of plain arrays"):
        open_subject(tiny_onnx.write(tmp_path / "tiny.onnx"), data=data)


def test_a_bundle_is_fed_the_images_of_its_golden_vectors(tmp_path: Path) -> None:
    subject = open_subject(bundle(tmp_path / "bundle"))
    assert (subject.candidates[0].name, subject.inputs.kind) == ("bundle int8 onnxruntime", "golden vectors")
    assert (fed(subject).shape, fed(subject).dtype) == ((2, 4, 4, 1), np.uint8)
    assert subject.inputs.preprocess == PREPROCESS
    (tmp_path / "bundle" / "model.onnx").write_bytes(b"other")
    with pytest.raises(IntegrityError, match="not the file that was bundled"):
        open_subject(tmp_path / "bundle")


def test_a_runs_candidates_are_fed_the_test_set_of_its_recipe(tmp_path: Path) -> None:
    subject = open_subject(run_folder(tmp_path / "run"))
    assert [one.name for one in subject.candidates] == ["quantize int8 onnxruntime"]
    assert subject.inputs.kind == "test set"
    assert subject.inputs.labels is not None
    assert len(subject.inputs.labels) == len(fed(subject)) > 100
    with pytest.raises(InputError, match="nothing was measured there") as caught:
        open_subject(tmp_path / "run", runtimes=["openvino"])
    assert "x86-cpu in onnxruntime" in str(caught.value)


def test_a_file_that_changed_after_its_run_is_refused(tmp_path: Path) -> None:
    tiny_onnx.write(run_folder(tmp_path / "run") / "artifacts" / "quantize.onnx", batch=1)
    with pytest.raises(IntegrityError, match="is not the file that the run measured"):
        open_subject(tmp_path / "run")


def test_rows_and_samples_are_kept_and_the_camera_counts_in_real_time(tmp_path: Path) -> None:
    subject = open_subject(tiny_onnx.write(tmp_path / "tiny.onnx"), runtimes=["onnxruntime"])
    (row,) = measure(subject, Load(scenario="camera@100", seconds=0.5), out=tmp_path / "rows.json")
    kept = json.loads((tmp_path / "rows.json").read_text())
    assert kept == json.loads(json.dumps(as_dict([row])))
    assert kept["profiles"][0]["load"]["input"] == "random"
    assert kept["profiles"][0]["deadline"]["frames"] == 5 * 10  # five rounds of 0.1 s
    lines = [json.loads(line) for line in (tmp_path / "rows.samples.jsonl").read_text().splitlines()]
    assert [one["round"] for one in lines] == [0, 1, 2, 3, 4]
    assert sum(len(one["latency_ms"]) for one in lines) == len(row.samples_ms)
    assert row.per_s is not None
    assert row.per_s <= 110  # no more frames than the camera gives


def test_end_to_end_adds_the_preprocessing_of_a_bundles_images(tmp_path: Path) -> None:
    subject = open_subject(bundle(tmp_path / "bundle"))
    (row,) = measure(subject, Load(scope="e2e", seconds=0.2))
    (inner,) = measure(subject, Load(seconds=0.2))
    assert (row.scope, inner.scope) == ("e2e", "host")
    assert row.p50_ms is not None
    assert inner.p50_ms is not None
    assert row.p50_ms > inner.p50_ms


def test_a_place_that_cannot_be_written_is_refused_before_time_is_spent(tmp_path: Path) -> None:
    subject = open_subject(tiny_onnx.write(tmp_path / "tiny.onnx"))
    with pytest.raises(InputError, match="cannot be written"):
        measure(subject, Load(seconds=3600), out=tmp_path / "no" / "rows.json")


def test_profiling_writes_nothing_at_home_and_needs_no_torch(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    path = tiny_onnx.write(tmp_path / "tiny.onnx")
    usual = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "profile", str(path), "--seconds", "0.3", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=120,
        env={**usual, "HOME": str(home), "PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["profiles"]
    assert [row["engine"]["runtime"] for row in rows] == ["onnxruntime", "openvino"]
    assert "torch was imported: False" in done.stderr
    assert list(home.rglob("*")) == []  # no telemetry, no identifier, no cache
    assert {one.name for one in tmp_path.iterdir()} == {"home", "tiny.onnx"}


def test_the_table_says_what_is_measured_what_is_doubted_and_what_is_unknown(tmp_path: Path) -> None:
    path = tiny_onnx.write(tmp_path / "tiny.onnx")
    words = ["--runtime", "onnxruntime", "--seconds", "0.2", "--scenario", "camera@50", "-q"]
    done = CliRunner().invoke(app, ["profile", str(path), *words])
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= 100
    told = " ".join(done.stdout.split())
    assert "inputs: random" in told
    assert "convolutions: 1 int8, 1 float" in told
    assert "p99 of tiny int8 onnxruntime: n/a (n = 10, needs 662)" in told
    assert "note no energy: " in told


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--quick", "--soak"], 2, "give one of them"),
        (["--cores", "a"], 2, "no list of whole numbers"),
        (["--cores", "99999"], 3, "cannot be had"),
        (["--scenario", "camera"], 3, "write single-stream, camera@30"),
        (["--scope", "device"], 3, "scope 'device': unknown"),
        (["--device", "nowhere"], 3, "no board is called 'nowhere'"),
    ],
)
def test_a_wrong_argument_ends_with_its_code_and_what_to_write(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    path = str(tiny_onnx.write(tmp_path / "tiny.onnx"))
    done = CliRunner().invoke(app, ["profile", path, "--runtime", "onnxruntime", *arguments])
    assert (done.exit_code, said in done.stderr) == (code, True), done.output
