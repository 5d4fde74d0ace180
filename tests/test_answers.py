"""What a bench may answer, and what is refused before a number is made of it."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgekit.bench.telemetry import emulated
from edgekit.errors import DeviceError
from edgekit.profile import remote
from edgekit.profile.answers import doubt
from edgekit.profile.remote import Remote

QUIET = {"window_s": 2.0, "other_cores": 0.0, "waited": 0.0, "mhz": None, "throttles": None, "energy_j": None}
WINDOW = {**QUIET, "temperature_c": [None, None]}
HONEST: dict[str, Any] = {"samples_ms": [1.0, 2.0], "batch": 1, "streams": 1, "window": WINDOW}


def test_an_honest_answer_is_taken() -> None:
    assert doubt("measure", HONEST, took_s=2.0) is None


@pytest.mark.parametrize(
    ("lie", "word"),
    [
        ({"samples_ms": []}, "samples_ms"),
        ({"samples_ms": [1.0, -2.0]}, "samples_ms.1"),
        ({"samples_ms": [0.0]}, "samples_ms.0"),
        ({"samples_ms": [math.nan]}, "samples_ms.0"),
        ({"samples_ms": ["1.0"]}, "samples_ms.0"),
        ({"samples_ms": "fast"}, "samples_ms"),
        ({"batch": 0}, "batch"),
        ({"window": {**WINDOW, "energy_j": -1.0}}, "window.energy_j"),
        ({"window": {**WINDOW, "temperature_c": []}}, "window.temperature_c"),
        ({"window": None}, "window"),
    ],
)
def test_what_no_measurement_gives_is_refused_with_its_place(lie: dict[str, Any], word: str) -> None:
    assert str(doubt("measure", {**HONEST, **lie}, took_s=2.0)).startswith(f"{word}:")


def test_samples_that_took_longer_than_we_waited_are_refused() -> None:
    hour = {**HONEST, "samples_ms": [1000.0] * 3600}
    assert doubt("measure", hour, took_s=30.0) == "its samples add up to 3600 s, and it was asked 30 s ago"
    assert doubt("measure", {**hour, "streams": 200}, took_s=30.0) is None  # 3600 s / 200 at once = 18 s


def test_a_scratch_folder_must_be_a_whole_path() -> None:
    assert doubt("hello", {"device": {}, "scratch": "../../etc"}, took_s=0.1) is not None


def bench(code: str) -> Remote:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words = [sys.executable, "-S", "-c", f"import os, sys, time\nsys.stdin.readline()\n{code}"]
    return Remote(subprocess.Popen(words, text=True, encoding="utf-8", **pipes), "board")  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("os.write(1, bytes([255, 254, 10]) * 3)", "the bench process ended"),  # not text: nothing of it is taken
        ("print('[' * 100000)", "is not one"),
        ("print('{\"ok\": 1}')", "is not one"),
        ("print('x' * 3000)", "is longer than 1000 characters"),
        ("os.close(1); time.sleep(60)", "the bench process ended"),
        ("os._exit(255)", "the link to the board was lost"),
    ],
)
def test_garbage_is_an_error_and_never_a_hang(code: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "LONGEST", 1000 if "3000" in code else remote.LONGEST)
    monkeypatch.setattr(remote, "GRACE_S", 0.5)
    one = bench(code)
    with pytest.raises(DeviceError, match=said):
        one.ask("hello", 20)
    one.close()


def test_an_emulator_is_known_by_the_machine_of_what_runs_around_it(tmp_path: Path) -> None:
    def elf(name: str, machine: int) -> Path:
        path = tmp_path / name
        path.write_bytes(b"\x7fELF" + bytes(14) + machine.to_bytes(2, "little"))
        return path

    arm64, x86 = elf("python3", 183), elf("timeout", 62)
    assert emulated(arm64, x86) is True
    assert emulated(x86, x86) is False
    assert emulated(arm64, tmp_path / "absent") is None
