"""`devices add` and `devices test` over a real sshd: nothing is pinned that was not confirmed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from edgekit.cli import app
from edgekit.device import open_board
from edgekit.links.ssh import host_keys
from tests.links.board import PORT, TestBoard, python_there, run

pytestmark = pytest.mark.slow


def add(board: TestBoard, *more: str) -> Result:
    python = ["--python", str(python_there(board.folder))]
    words = ["devices", "add", "mine", "--ssh", board.host, "--port", str(PORT), "--base", "x86-cpu", *python, *more]
    return CliRunner().invoke(app, words)


@pytest.fixture
def unknown(ssh_board: TestBoard) -> TestBoard:
    """A board whose key is not pinned yet."""
    host_keys.known_hosts().unlink()
    return ssh_board


def fingerprint(board: TestBoard) -> str:
    """As the board itself shows it."""
    return run("ssh-keygen", "-lf", str(board.folder / "host_key.pub")).split()[1]


def test_a_board_is_added_by_its_fingerprint_and_then_tested(unknown: TestBoard) -> None:
    added = add(unknown, "--fingerprint", fingerprint(unknown))
    assert added.exit_code == 0, added.output
    assert "edgekit devices test mine" in added.output
    assert open_board("mine").link_settings["host"] == unknown.host
    tested = CliRunner().invoke(app, ["devices", "test", "mine", "--json"])
    assert tested.exit_code == 0, tested.output
    found = json.loads(tested.stdout)
    assert found["runtimes"]["onnxruntime"] == "there"
    assert found["notes"] == ["clocks are not locked: the board has no nvpmodel"]


def test_another_fingerprint_is_refused_and_nothing_is_pinned(unknown: TestBoard) -> None:
    refused = add(unknown, "--fingerprint", "SHA256:" + "A" * 43)
    assert refused.exit_code == 3
    assert fingerprint(unknown) in refused.output
    assert not host_keys.known_hosts().exists()


def test_without_a_terminal_nothing_is_pinned_and_the_fingerprint_is_shown(unknown: TestBoard) -> None:
    refused = add(unknown)
    assert refused.exit_code == 3
    assert fingerprint(unknown) in refused.output
    assert not host_keys.known_hosts().exists()


def test_a_new_key_takes_the_place_of_the_old_one(ssh_board: TestBoard) -> None:
    old = host_keys.known_hosts().read_text()
    ssh_board.kill("sshd")
    ssh_board.new_host_key()
    ssh_board.start_sshd()
    assert add(ssh_board, "--fingerprint", fingerprint(ssh_board)).exit_code == 0
    pinned = host_keys.known_hosts().read_text()
    assert pinned.count("\n") == old.count("\n") == 1
    assert pinned != old


def test_a_board_that_is_off_is_exit_6(ssh_board: TestBoard) -> None:
    assert add(ssh_board, "--fingerprint", fingerprint(ssh_board)).exit_code == 0
    ssh_board.cut()
    tested = CliRunner().invoke(app, ["devices", "test", "mine"])
    assert tested.exit_code == 6
    assert "cannot be reached" in tested.output


def test_another_board_of_the_same_name_is_not_overwritten(ssh_board: TestBoard, tmp_path: Path) -> None:
    path = tmp_path / "config" / "edgekit" / "devices" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("{base: raspberry-pi-5, link: {ssh: pi@elsewhere}}")
    assert add(ssh_board, "--fingerprint", fingerprint(ssh_board)).exit_code == 3
    assert "elsewhere" in path.read_text()
