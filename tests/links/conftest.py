"""`ssh_board`: a board over a real sshd whose key is pinned. `arm64`: the Python of an emulated one.

Skipped, with the reason, where none can be made; EDGEKIT_BOARDS=required fails instead (CI says it).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.links.ssh import host_keys
from tests.links.board import PORT, TestBoard, board, why_not

ARM64 = Path(os.environ.get("EDGEKIT_ARM64", Path.home() / ".cache" / "edgekit-arm64"))


def absent(reason: str) -> None:
    pytest.fail(reason) if os.environ.get("EDGEKIT_BOARDS") == "required" else pytest.skip(reason)


@pytest.fixture
def arm64() -> Path:
    if not (ARM64 / "python3").is_file() or shutil.which("qemu-aarch64-static") is None:
        absent(f"needs qemu-aarch64-static (apt-get install qemu-user-static) and tests/links/arm64_sysroot.sh {ARM64}")
    return ARM64 / "python3"


@pytest.fixture
def ssh_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestBoard]:
    if reason := why_not():
        absent(reason)
    (tmp_path / "board").mkdir()
    with board(tmp_path / "board") as one:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(one.agent_socket))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        host_keys.pin(host_keys.scan(one.host, PORT))
        yield one
