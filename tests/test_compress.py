"""The main job, for real, on a recipe of seconds: the result, reuse, resume, and what a mistake does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

from edgekit.cli import app
from edgekit.compress import compress
from edgekit.errors import GateError
from edgekit.progress import Progress
from edgekit.recipe import load_recipe
from edgekit.report.record import Report
from tests.tiny import RECIPE, write_recipe

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """The folder of the recipe, after one run of it."""
    folder = tmp_path_factory.mktemp("compress")
    return folder, _run(folder, write_recipe(folder))


def test_every_step_has_a_row_with_accuracy_size_and_latency_of_its_file(done: tuple[Path, Report]) -> None:
    rows = done[1].ledger.rows
    assert [row.step for row in rows] == ["teacher", "student", "prune", "quantize"]
    for row in rows:
        assert row.accuracy is not None
        assert row.accuracy.n == 540
        assert row.bytes == (_folder(done[0]) / "artifacts" / f"{row.step}.onnx").stat().st_size
        assert row.n >= 100


def test_pruning_removed_half_of_the_channels(done: tuple[Path, Report]) -> None:
    rows = {row.step: row for row in done[1].ledger.rows}
    assert rows["prune"].metrics["kept"] == {"stem.0": [4, 8], "conv1": [8, 16]}
    # conv1: 8*8 pixels * 8 filters * 4 channels * 3*3; conv2 the other way round; stem 1 -> 4; classifier 4 -> 10
    assert rows["prune"].macs == 64 * 8 * 4 * 9 + 64 * 4 * 8 * 9 + 64 * 4 * 1 * 9 + 4 * 10


def test_the_int8_file_loads_in_plain_onnx_runtime_and_is_standard(done: tuple[Path, Report]) -> None:
    path = _folder(done[0]) / "artifacts" / "quantize.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    assert {node.domain for node in onnx.load(path).graph.node} <= {"", "ai.onnx"}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.run(None, {"input": np.zeros((1, 1, 8, 8), np.float32)})[0].shape == (1, 10)


def test_the_run_folder_holds_ledger_reports_samples_and_bundle(done: tuple[Path, Report]) -> None:
    folder = _folder(done[0])
    names = {path.name for path in folder.iterdir()}
    assert names >= {"recipe.yaml", "resolved.yaml", "ledger.json", "report.html", "report.md", "report.json", "bundle"}
    assert (folder / "recipe.yaml").read_text() == RECIPE
    ledger = json.loads((folder / "ledger.json").read_text())
    samples = sorted((folder / "samples").iterdir())
    assert len(samples) == len(ledger["finals"])
    assert len(json.loads(samples[0].read_text().splitlines()[0])["latency_ms"]) > 10


def test_the_bundle_verifies_and_a_changed_byte_does_not(done: tuple[Path, Report], tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(_folder(done[0]) / "bundle", bundle)
    good = CliRunner().invoke(app, ["verify", str(bundle), "--json"])
    assert good.exit_code == 0, good.output
    assert json.loads(good.stdout)["images"] == 8
    model = bundle / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    assert CliRunner().invoke(app, ["verify", str(bundle)]).exit_code == 9


def test_a_bundle_whose_outputs_differ_does_not_verify(done: tuple[Path, Report], tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(_folder(done[0]) / "bundle", bundle)
    path = bundle / "golden" / "outputs.npy"
    np.save(path, -np.load(path))
    manifest = json.loads((bundle / "manifest.json").read_text())
    from edgekit.artifact import sha256_of

    manifest["files"]["golden/outputs.npy"]["sha256"] = sha256_of(path)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert CliRunner().invoke(app, ["verify", str(bundle)]).exit_code == 5


def test_the_same_command_again_reuses_every_step(done: tuple[Path, Report]) -> None:
    report = _run(done[0], done[0] / "tiny.yaml")
    assert [row.cached for row in report.ledger.rows] == [True] * 4
    first = {row.step: row.accuracy for row in done[1].ledger.rows}
    assert {row.step: row.accuracy for row in report.ledger.rows} == first


@pytest.mark.slow
def test_a_changed_setting_redoes_its_stage_and_those_after_it(done: tuple[Path, Report], tmp_path: Path) -> None:
    shutil.copytree(done[0], tmp_path / "copy")
    path = write_recipe(tmp_path / "copy", RECIPE.replace("ratio: 0.5", "ratio: 0.4"))
    report = _run(tmp_path / "copy", path)
    assert [row.cached for row in report.ledger.rows] == [True, True, False, False]


@pytest.mark.slow
def test_a_step_whose_files_were_damaged_is_made_again(done: tuple[Path, Report], tmp_path: Path) -> None:
    shutil.copytree(done[0], tmp_path / "copy")
    for weights in (tmp_path / "copy" / "runs").glob("*/steps/*/weights.safetensors"):
        if json.loads((weights.parent / "stage.json").read_text())["step"] == "student":
            weights.write_bytes(weights.read_bytes()[:100])
    report = _run(tmp_path / "copy", tmp_path / "copy" / "tiny.yaml")
    assert [row.cached for row in report.ledger.rows] == [True, False, True, True]


@pytest.mark.slow
def test_a_corrupted_export_ends_the_run_with_exit_code_5(
    done: tuple[Path, Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit.exporters import onnx as exporter

    def corrupt(proto: object) -> None:
        first = next(i for i in proto.graph.initializer if len(i.dims) == 4)  # type: ignore[attr-defined]
        values = onnx.numpy_helper.to_array(first)
        first.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values[::-1]), first.name))

    shutil.copytree(done[0], tmp_path / "copy")
    monkeypatch.setattr(exporter, "_pool_globally", corrupt)
    with pytest.raises(GateError, match="the exported file is not its network") as error:
        _run(tmp_path / "copy", tmp_path / "copy" / "tiny.yaml")
    assert error.value.exit_code == 5
    assert "every finished step" in str(error.value.kept)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_a_run_stopped_in_the_middle_goes_on_without_redoing_finished_steps(tmp_path: Path, name: str) -> None:
    path = write_recipe(tmp_path, RECIPE.replace("epochs: 6", "epochs: 7"))
    process = _start(tmp_path, path)
    _wait_for(tmp_path, steps=1)
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == {"SIGINT": 130, "SIGTERM": 143, "SIGKILL": -9}[name], errors
    if name != "SIGKILL":
        assert "run the same command again" in errors
    finished = len(list((tmp_path / "runs").glob("*/steps/*/stage.json")))
    assert 1 <= finished < 4
    report = _run(tmp_path, path)
    assert [row.cached for row in report.ledger.rows] == [True] * finished + [False] * (4 - finished)
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.slow
def test_two_processes_on_one_run_folder_do_not_mix(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    process = _start(tmp_path, path)
    _wait_for(tmp_path, steps=1)
    second = CliRunner().invoke(app, ["compress", str(path), "--runs", str(tmp_path / "runs")])
    process.kill()
    process.communicate()
    assert second.exit_code == 75
    assert "another process is at work here" in second.output


def test_a_goal_that_is_not_met_is_exit_code_5_and_everything_is_kept(
    done: tuple[Path, Report], tmp_path: Path
) -> None:
    shutil.copytree(done[0], tmp_path / "copy")
    path = write_recipe(tmp_path / "copy", RECIPE.replace("accuracy_drop: 100", "accuracy_drop: 100, size_kb: 0.001"))
    result = CliRunner().invoke(app, ["compress", str(path), "--runs", str(tmp_path / "copy" / "runs"), "--json"])
    assert result.exit_code == 5
    report = json.loads(result.stdout)
    assert report["verdict"]["goal_met"] is False
    assert "kB" in " ".join(report["verdict"]["misses"])


def _run(folder: Path, recipe: Path) -> Report:
    return compress(load_recipe(recipe), runs=folder / "runs", progress=Progress(quiet=True))


def _folder(folder: Path) -> Path:
    return sorted((folder / "runs").iterdir())[0]


def _start(folder: Path, recipe: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgekit.cli", "compress", str(recipe), "--runs", str(folder / "runs")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, stdout=-1, stderr=-1)


def _wait_for(folder: Path, steps: int) -> None:
    end = time.monotonic() + 120
    while len(list((folder / "runs").glob("*/steps/*/stage.json"))) < steps:
        assert time.monotonic() < end, "the run made no step in two minutes"
        time.sleep(0.05)
