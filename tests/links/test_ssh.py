"""A board over a real sshd: everything goes well, and everything that can go wrong."""

from __future__ import annotations

import time
from typing import Any

import pytest

from edgekit.links import Link
from edgekit.links.ssh import open_link
from edgekit.profile.remote import Remote
from tests.links.board import PORT, TestBoard, python_there

pytestmark = pytest.mark.slow


def opened(board: TestBoard, **settings: Any) -> Link:
    return open_link({"host": board.host, "port": PORT, "python": str(python_there(board.folder)), **settings})


def test_the_agent_says_hello_from_the_board_and_nothing_is_left_there(ssh_board: TestBoard) -> None:
    with opened(ssh_board) as link:
        remote = Remote(link.bench(), "board")
        hello = remote.ask("hello", 30)
        assert hello["device"]["versions"]["numpy"]
        assert hello["scratch"].startswith(str(ssh_board.cache / "tmp"))
        remote.close()
    assert wait_until(lambda: not ssh_board.processes())
    assert list((ssh_board.cache / "tmp").iterdir()) == []


def wait_until(true: Any, seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.05)
    return bool(true())
