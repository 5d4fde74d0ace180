"""A recipe whose goal is a board behind SSH: everything is measured there, and one that is off is exit 6 at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgekit.cli import app
from tests.links.board import PORT, TestBoard, python_there
from tests.tiny import RECIPE, write_recipe

pytestmark = pytest.mark.slow


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
