"""The process that holds a board: when it lets go, and what it sweeps away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from edgekit.bench.clocks import Clocks
from edgekit.bench.hold import held, wait_for_silence

DAY_S = 24 * 3600


def no_commands(*words: str) -> tuple[int, str]:
    return 127, ""


def hold(folder: Path) -> None:
    with held(folder, {}, 0, Clocks(folder, no_commands, folder)):
        pass


def test_silence_ends_it_and_signs_of_life_keep_it() -> None:
    reading, writing = os.pipe()
    signs = [threading.Timer(0.2 * number, os.write, (writing, b"\n")) for number in (1, 2, 3)]
    for sign in signs:
        sign.start()
    began = time.monotonic()
    with os.fdopen(reading) as stream:
        wait_for_silence(stream, 0.4)
    assert 0.6 + 0.4 <= time.monotonic() - began < 2.0  # the last sign, and the silence after it
    os.close(writing)


def test_a_closed_input_ends_it_at_once() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    began = time.monotonic()
    with os.fdopen(reading) as stream:
        wait_for_silence(stream, 60)
    assert time.monotonic() - began < 1


def test_a_file_that_nobody_used_for_a_month_makes_room(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    for name, days in (("old", 31), ("young", 29)):
        path = tmp_path / "files" / name
        path.write_text(name)
        os.utime(path, (time.time() - days * DAY_S,) * 2)
    hold(tmp_path)
    assert [path.name for path in (tmp_path / "files").iterdir()] == ["young"]


def test_a_bench_that_was_left_running_is_ended_and_another_process_of_its_number_is_not(tmp_path: Path) -> None:
    sleep = "import time; time.sleep(60)"
    left = subprocess.Popen([sys.executable, "-S", "-c", sleep, "edgekit.bench"])
    other = subprocess.Popen([sys.executable, "-S", "-c", sleep])
    (tmp_path / "tmp").mkdir()
    for process in (left, other):
        (tmp_path / "tmp" / f"{process.pid}.pid").write_text("")
    time.sleep(0.2)  # until both have their own command lines
    hold(tmp_path)
    assert left.wait(timeout=10) == -15
    assert other.poll() is None
    other.kill()
    other.wait()


def test_it_answers_in_one_line_and_ends_with_its_input(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "edgekit.bench.hold", str(tmp_path)],
        input='{"power_mode": null}\n',
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert json.loads(done.stdout)["ok"] is True


def test_a_mode_that_is_not_there_is_answered_as_the_error_it_is(tmp_path: Path) -> None:
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "edgekit.bench.hold", str(tmp_path)],
        input='{"power_mode": "MAXN"}\n',
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    answer = json.loads(done.stdout)
    assert (answer["ok"], answer["error"]) == (False, "InputError")
    assert "no mode 'MAXN'" in answer["what"]
