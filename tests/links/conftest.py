"""`ssh_board`: a board over a real sshd whose key is pinned; skipped, with the reason, where none can be made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.links.ssh import host_keys
from tests.links.board import PORT, TestBoard, board, why_not


@pytest.fixture
def ssh_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestBoard]:
    if reason := why_not():
        pytest.skip(reason)
    (tmp_path / "board").mkdir()
    with board(tmp_path / "board") as one:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(one.agent_socket))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        host_keys.pin(host_keys.scan(one.host, PORT))
        yield one
