"""A recipe whose goal is a board behind SSH: everything is measured there, and one that is off is exit 6 at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgekit.cli import app
from tests import tiny_onnx
from tests.links.board import PORT, TestBoard, python_there
from tests.tiny import RECIPE, write_recipe

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def recipe(folder: Path, board: TestBoard) -> Path:
    link = f"{{ssh: {board.host}, port: {PORT}, python: {python_there(board.folder)}}}"
    (folder / "devices").mkdir()
    (folder / "devices" / "loopback.yaml").write_text(f"base: x86-cpu\nlink: {link}\n")
    return write_recipe(folder, RECIPE.replace("device: x86-cpu", "device: loopback"))


def test_a_recipe_is_measured_on_the_goals_board_throughout(ssh_board: TestBoard, tmp_path: Path) -> None:
    path = recipe(tmp_path, ssh_board)
    done = CliRunner().invoke(app, ["compress", str(path), "--runs", str(tmp_path / "runs"), "--quiet", "--json"])
    assert done.exit_code == 0, done.output
    finals = json.loads(done.stdout)["ledger"]["finals"]
    assert {final["board"] for final in finals} == {"loopback"}
    assert ssh_board.processes() == []
    arrived = [path.name for path in (ssh_board.cache / "files").glob("*.onnx")]
    assert len(arrived) >= 4  # teacher, student, prune, quantize


def test_a_goals_board_that_is_off_is_exit_6_before_anything_is_trained(ssh_board: TestBoard, tmp_path: Path) -> None:
    path = recipe(tmp_path, ssh_board)
    ssh_board.cut()
    done = CliRunner().invoke(app, ["compress", str(path), "--runs", str(tmp_path / "runs"), "--quiet"])
    assert done.exit_code == 6
    assert "cannot be reached" in done.output
    assert not (tmp_path / "runs").exists()


def test_another_board_that_is_off_does_not_stop_the_goals_and_is_exit_6_in_the_end(
    ssh_board: TestBoard, tmp_path: Path
) -> None:
    path = recipe(tmp_path, ssh_board)
    stages = RECIPE.index("  - distill")
    short = RECIPE[:stages] + RECIPE[RECIPE.index("export:") :]
    path.write_text(short.replace("profile: {", "profile: {devices: [x86-cpu, loopback], "))
    ssh_board.cut()
    done = CliRunner().invoke(app, ["compress", str(path), "--runs", str(tmp_path / "runs"), "--quiet"])
    assert done.exit_code == 6, done.output
    assert "loopback was not measured" in done.output
    report = json.loads(next((tmp_path / "runs").glob("*/report.json")).read_text())
    assert {final["board"] for final in report["ledger"]["finals"]} == {"x86-cpu"}


def test_ctrl_c_amid_a_measurement_is_130_and_leaves_the_board_free(ssh_board: TestBoard, tmp_path: Path) -> None:
    recipe(tmp_path, ssh_board)
    file = tiny_onnx.write(tmp_path / "tiny.onnx", batch=1)
    words = ["profile", str(file), "--device", "loopback", "--seconds", "60", "--runtime", "onnxruntime"]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgekit.cli", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert "after" in process.stderr.readline()  # steady after ... s: it measures
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    assert ssh_board.processes() == []


def test_a_file_is_profiled_on_a_board_from_the_command_line(
    ssh_board: TestBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe(tmp_path, ssh_board)
    monkeypatch.chdir(tmp_path)
    file = tiny_onnx.write(tmp_path / "tiny.onnx", batch=1)
    words = ["profile", str(file), "--device", "loopback", "--seconds", "1", "--runtime", "onnxruntime", "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert [row["board"] for row in json.loads(done.stdout)["profiles"]] == ["loopback"]
