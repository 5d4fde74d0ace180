"""A board over a real sshd: everything goes well, and everything that can go wrong."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.artifact import Candidate, sha256_of
from edgekit.device import Board, Device, load
from edgekit.errors import DependencyError, DeviceError, InputError
from edgekit.links import Link
from edgekit.links.ssh import open_link
from edgekit.links.ssh.client import Client
from edgekit.profile import Inputs, profile
from edgekit.profile.remote import Remote
from edgekit.resources import devices
from tests import tiny_onnx
from tests.links.board import PORT, TestBoard, python_there, run

pytestmark = pytest.mark.slow


def settings(board: TestBoard, python: str | None = None) -> dict[str, Any]:
    return {"host": board.host, "port": PORT, "python": python or str(python_there(board.folder))}


def wait_until(true: Callable[[], object], seconds: float = 15) -> bool:
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.05)
    return bool(true())


def files(board: TestBoard) -> list[str]:
    return sorted(path.name for path in (board.cache / "files").iterdir())


@pytest.fixture
def link(ssh_board: TestBoard) -> Any:
    with open_link(settings(ssh_board)) as opened:
        yield opened


def test_a_file_is_measured_on_the_board_and_nothing_is_left_running_there(
    ssh_board: TestBoard, tmp_path: Path
) -> None:
    board = Board("loopback", load(Device, devices()["x86-cpu"]), "ssh", settings(ssh_board))
    candidates = [
        Candidate(name, tiny_onnx.artifact(tiny_onnx.write(tmp_path / f"{name}.onnx")), "onnxruntime")
        for name in ("a", "b")
    ]
    inputs = Inputs(np.full((3, 1, 4, 4), 2.0, np.float32), np.array([1, 1, 0]))
    rows = profile(candidates, board, inputs, seconds=1.0, rounds=5)
    assert [row.candidate.label for row in rows] == ["a", "b"]
    for row in rows:
        assert row.board == "loopback"
        assert len(row.rounds_ms) == 5
        assert row.p50_ms is not None
        assert row.accuracy is not None
        assert row.accuracy.value == pytest.approx(2 / 3)  # the file says class 1 of every image
        np.testing.assert_allclose(row.outputs["y"], [[4.0, 12.0]] * 3)  # [2 c, 6 c]
    assert wait_until(lambda: not ssh_board.processes())
    assert list((ssh_board.cache / "tmp").iterdir()) == []


def test_an_emulated_arm64_board_gives_outputs_and_no_times(ssh_board: TestBoard, arm64: Path, tmp_path: Path) -> None:
    link = settings(ssh_board, str(arm64))
    board = Board("arm64", load(Device, devices()["raspberry-pi-5"]), "ssh", link)
    candidate = Candidate("tiny", tiny_onnx.artifact(tiny_onnx.write(tmp_path / "tiny.onnx")), "onnxruntime")
    inputs = Inputs(np.full((2, 1, 4, 4), 2.0, np.float32), np.array([1, 1]))
    told: list[str] = []
    row = profile([candidate], board, inputs, seconds=1.0, rounds=2, report=told.append)[0]
    assert row.device["machine"] == "aarch64"
    np.testing.assert_allclose(row.outputs["y"], [[4.0, 12.0]] * 2)  # as on x86
    assert row.accuracy is not None
    assert row.accuracy.value == 1.0
    assert row.state == "invalid"
    assert "emulated" in row.reasons[0]
    shown = row.as_dict()
    assert set(shown["latency_ms"].values()) == {None}
    assert shown["per_s"] is None
    assert row.energy is not None
    assert row.energy.j_per_inference is None
    assert not [line for line in told if "median" in line]


def test_a_file_goes_there_once_by_its_hash(ssh_board: TestBoard, link: Link, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(range(256)) * 1000)
    name = f"{sha256_of(path)}.onnx"
    assert link.put(path, sha256_of(path)) == str(ssh_board.cache / "files" / name)
    there = ssh_board.cache / "files" / name
    assert there.read_bytes() == path.read_bytes()
    arrived = there.stat().st_ino
    link.put(path, sha256_of(path))
    assert there.stat().st_ino == arrived


def test_what_stands_beside_a_file_stands_beside_it_there(ssh_board: TestBoard, link: Link, tmp_path: Path) -> None:
    path, beside = tmp_path / "quantize.onnx", tmp_path / "quantize.trt8.onnx"
    path.write_bytes(b"for TensorRT 10")
    beside.write_bytes(b"for TensorRT 8")
    there = Path(link.put(path, sha256_of(path), [beside]))
    assert there.with_name(there.stem + ".trt8.onnx").read_bytes() == b"for TensorRT 8"
    beside.write_bytes(b"for TensorRT 8, exported again")
    link.put(path, sha256_of(path), [beside])
    assert there.with_name(there.stem + ".trt8.onnx").read_bytes() == b"for TensorRT 8, exported again"


@pytest.mark.parametrize("name", ["other.trt8.onnx", "quantize.o$(x)nx", "quantize; rm.onnx"])
def test_a_companion_with_another_name_is_refused(link: Link, tmp_path: Path, name: str) -> None:
    path, beside = tmp_path / "quantize.onnx", tmp_path / name
    path.write_bytes(b"1")
    beside.write_bytes(b"2")
    with pytest.raises(InputError):
        link.put(path, sha256_of(path), [beside])


def test_a_file_that_is_not_whole_there_is_sent_again(ssh_board: TestBoard, link: Link, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the right bytes")
    there = ssh_board.cache / "files" / f"{sha256_of(path)}.onnx"
    there.write_bytes(b"")  # a power cut after the rename
    link.put(path, sha256_of(path))
    assert there.read_bytes() == b"the right bytes"


@pytest.mark.parametrize("begun", [b"the right", b"the wrong", b"far more than the whole file has"])
def test_a_file_that_arrived_in_part_is_completed_and_a_wrong_part_is_thrown_away(
    ssh_board: TestBoard, link: Link, tmp_path: Path, begun: bytes
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the right bytes")
    there = ssh_board.cache / "files" / f"{sha256_of(path)}.onnx"
    there.with_name(there.name + ".part").write_bytes(begun)
    link.put(path, sha256_of(path))
    assert there.read_bytes() == b"the right bytes"
    assert not there.with_name(there.name + ".part").exists()


def test_a_full_disk_is_an_error_that_says_so_and_leaves_no_part(
    ssh_board: TestBoard, link: Link, tmp_path: Path
) -> None:
    before = files(ssh_board)
    path = tmp_path / "model.onnx"
    with path.open("wb") as stream:
        stream.truncate(300 << 20)  # the board's disk has 256 MiB
    with pytest.raises(DeviceError, match="the board's disk is full") as caught:
        link.put(path, sha256_of(path))
    assert "No space left on device" in str(caught.value)
    assert "free some there" in str(caught.value)
    assert files(ssh_board) == before


def test_a_board_without_room_for_the_agent_is_refused_at_once(ssh_board: TestBoard) -> None:
    fill(ssh_board.home)
    with pytest.raises(DeviceError, match="the board's disk is full"):
        open_link(settings(ssh_board))


def test_another_host_key_than_the_pinned_one_is_refused(ssh_board: TestBoard) -> None:
    ssh_board.kill("sshd")
    ssh_board.new_host_key()
    ssh_board.start_sshd()
    with pytest.raises(DeviceError, match="another than the one that was pinned") as caught:
        open_link(settings(ssh_board))
    assert "edgekit devices add" in str(caught.value)


def test_a_host_key_that_was_never_pinned_is_refused(ssh_board: TestBoard, tmp_path: Path) -> None:
    (tmp_path / "config" / "edgekit" / "known_hosts").unlink()
    with pytest.raises(DeviceError, match="never pinned"):
        open_link(settings(ssh_board))


def test_a_login_that_is_refused_says_how_to_let_the_key_in(ssh_board: TestBoard) -> None:
    (ssh_board.folder / "login_key.pub").write_text("")
    with pytest.raises(DeviceError, match="refuses the login") as caught:
        open_link(settings(ssh_board))
    assert "ssh-copy-id" in str(caught.value)


def test_a_board_that_is_off_is_unreachable_within_seconds(ssh_board: TestBoard) -> None:
    ssh_board.cut()
    began = time.monotonic()
    with pytest.raises(DeviceError, match="cannot be reached"):
        open_link(settings(ssh_board))
    assert time.monotonic() - began < 15


def test_a_link_that_is_cut_in_the_middle_is_an_error_and_the_board_is_free_again(
    ssh_board: TestBoard, link: Link, tmp_path: Path
) -> None:
    remote = started(link, tmp_path)
    threading.Timer(1.0, ssh_board.cut).start()
    began = time.monotonic()
    with pytest.raises(DeviceError, match="the link to the board was lost at 'measure'"):
        remote.ask("measure", 120, seconds=60.0)
    assert time.monotonic() - began < 20  # two signs of life missed, two seconds each, not the minute
    remote.close()
    assert ssh_board.processes()
    ssh_board.mend()
    with open_link(settings(ssh_board)) as again:  # waits until the old holder has given up
        assert Remote(again.bench(), "board").ask("hello", 30)["scratch"]
    assert wait_until(lambda: not ssh_board.processes())


def test_an_edgekit_that_is_killed_leaves_nothing_running(ssh_board: TestBoard, link: Link, tmp_path: Path) -> None:
    remote = started(link, tmp_path)
    assert len(ssh_board.processes()) >= 2  # the bench and the holder
    for process in (remote._process, link._client._shared):  # type: ignore[attr-defined]
        process.kill()  # as the system does with our children's pipes when we die
    link._hold.kill()  # type: ignore[attr-defined]
    assert wait_until(lambda: not ssh_board.processes())


def test_a_bench_that_dies_is_an_error_with_its_exit_code(ssh_board: TestBoard, link: Link, tmp_path: Path) -> None:
    remote = started(link, tmp_path)
    threading.Timer(1.0, ssh_board.kill, ["-m\0edgekit.bench\0"]).start()
    with pytest.raises(DeviceError, match=r"the bench process ended at 'measure' \(exit code 137\)"):
        remote.ask("measure", 120, seconds=60.0)
    remote.close()


def test_a_board_that_reboots_is_an_error_and_can_be_used_again(
    ssh_board: TestBoard, link: Link, tmp_path: Path
) -> None:
    remote = started(link, tmp_path)

    def reboot() -> None:
        ssh_board.kill("")  # everything
        ssh_board.start_sshd()

    rebooting = threading.Timer(1.0, reboot)
    rebooting.start()
    with pytest.raises(DeviceError, match="the link to the board was lost at 'measure'"):
        remote.ask("measure", 120, seconds=60.0)
    remote.close()
    rebooting.join()
    with open_link(settings(ssh_board)) as again:
        assert Remote(again.bench(), "board").ask("hello", 30)["scratch"]


def test_a_disk_that_fills_up_while_measuring_is_an_error(ssh_board: TestBoard, link: Link, tmp_path: Path) -> None:
    remote = started(link, tmp_path)
    fill(ssh_board.home)
    with pytest.raises(DeviceError, match="No space left on device"):
        remote.ask("infer", 60, out=str(ssh_board.cache / "tmp" / "outputs.npz"))
    remote.close()


def test_more_candidates_than_a_connection_has_sessions_are_measured_too(link: Link) -> None:
    # sshd gives ten sessions to a connection, unless told otherwise; ssh opens another connection for the rest.
    remotes = [Remote(link.bench(), f"board {number}") for number in range(12)]
    try:
        assert all(remote.ask("hello", 60)["scratch"] for remote in remotes)
    finally:
        for remote in remotes:
            remote.close()


def test_a_second_edgekit_waits_and_then_is_refused(ssh_board: TestBoard, link: Link) -> None:
    assert ssh_board.processes()
    with pytest.raises(DeviceError, match="another edgekit is measuring on this board"):
        open_link(settings(ssh_board))


def test_what_another_user_of_the_board_left_is_swept(ssh_board: TestBoard, link: Link) -> None:
    left = ssh_board.cache / "tmp" / "edgekit-bench-old"
    link.close()
    left.mkdir()
    with open_link(settings(ssh_board)):
        assert not left.exists()


def test_a_board_that_says_garbage_is_an_error_not_a_crash(ssh_board: TestBoard, link: Link) -> None:
    client: Client = link._client  # type: ignore[attr-defined]
    garbage = client.start("head -c 100000 /dev/urandom; echo; exec cat")
    remote = Remote(garbage, "board")
    with pytest.raises(DeviceError, match="the answer to 'hello' is not one"):
        remote.ask("hello", 30)
    remote.close()


def test_a_board_that_chatters_at_login_is_refused_with_what_it_said(ssh_board: TestBoard) -> None:
    there = ssh_board.folder / "run_there"
    there.write_text("echo 'Welcome to Ubuntu'; " + there.read_text())
    with pytest.raises(DeviceError, match="the agent did not start") as caught:
        open_link(settings(ssh_board))
    assert caught.value.why == "Welcome to Ubuntu"
    assert "only where there is a terminal" in str(caught.value)


def test_a_board_without_python_says_what_to_install(ssh_board: TestBoard) -> None:
    with pytest.raises(DependencyError, match=r"there is no 'python3\.99'") as caught:
        open_link(settings(ssh_board, "python3.99"))
    assert "apt-get install python3" in str(caught.value)


def test_a_board_without_numpy_says_what_to_install(ssh_board: TestBoard) -> None:
    bare = ssh_board.folder / "bare"
    bare.write_text('#!/bin/sh\nexec /usr/bin/python3 -I -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(DependencyError, match="has no numpy") as caught:
        open_link(settings(ssh_board, str(bare)))
    assert f"{bare} -m pip install numpy" in str(caught.value)


def test_a_board_without_the_runtime_says_what_to_install(ssh_board: TestBoard, tmp_path: Path) -> None:
    packages = ssh_board.folder / "packages"
    packages.mkdir()
    for name in ("numpy", "numpy.libs"):
        (packages / name).symlink_to(Path(np.__file__).parents[1] / name)
    bare = ssh_board.folder / "bare"
    bare.write_text(f'#!/bin/sh\nPYTHONPATH="$PYTHONPATH:{packages}" exec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    board = Board("bare", load(Device, devices()["x86-cpu"]), "ssh", settings(ssh_board, str(bare)))
    candidate = Candidate("tiny", tiny_onnx.artifact(tiny_onnx.write(tmp_path / "tiny.onnx")), "onnxruntime")
    with pytest.raises(DependencyError, match="onnxruntime is not installed: pip install onnxruntime"):
        profile([candidate], board, Inputs(np.ones((1, 1, 4, 4), np.float32)), seconds=1.0)


def test_a_command_that_hangs_is_an_error_after_its_time(link: Link) -> None:
    client: Client = link._client  # type: ignore[attr-defined]
    with pytest.raises(DeviceError, match="did not answer within 1 s"):
        client.run("sleep 600", timeout_s=1.0)


def test_whatever_stands_in_an_argument_is_data_on_the_board(ssh_board: TestBoard, link: Link) -> None:
    client: Client = link._client  # type: ignore[attr-defined]
    words = "a b'c\"d $(touch pwned) `touch pwned` ; touch pwned \\ *"
    assert client.run('printf %s "$1"', words).stdout.decode() == words
    assert not (ssh_board.home / "pwned").exists()


def fill(folder: Path) -> None:
    """Leaves no byte on the disk."""
    for size in (1 << 20, 1):
        with contextlib.suppress(OSError), (folder / f"filler{size}").open("wb", buffering=0) as stream:
            while stream.write(bytes(size)):
                pass


def started(link: Link, folder: Path) -> Remote:
    """A bench that is ready to measure."""
    artifact = tiny_onnx.artifact(tiny_onnx.write(folder / "tiny.onnx"))
    values = folder / "values.npy"
    np.save(values, np.ones((4, 1, 4, 4), np.float32))
    remote = Remote(link.bench(), "board")
    remote.ask("hello", 60)
    path, inputs = link.put(artifact.path, artifact.sha256), {"x": link.put(values, sha256_of(values))}
    remote.ask("open", 60, path=path, runtime="onnxruntime", options={"threads": 1}, inputs=inputs)
    return remote


def test_nothing_of_a_test_board_is_left_on_this_machine(ssh_board: TestBoard) -> None:
    ssh_board.stop()
    assert ssh_board.name not in run("ip", "netns", "list")
    assert f"{ssh_board.name}h" not in run("ip", "link", "show")
    agents = subprocess.run(["pgrep", "-fa", str(ssh_board.agent_socket)], capture_output=True, text=True, check=False)
    assert "ssh-agent" not in agents.stdout
