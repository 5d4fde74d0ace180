"""Energy of a Jetson's rails and what holds a board back, on fake files, commands and a stepped clock."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from edgekit.bench import limits
from edgekit.bench.rails import Integral, monitors, rail_meter, watts

LINES = (Path(__file__).parent / "data" / "tegrastats_lines.txt").read_text().splitlines()


def jetson(root: Path, **rails: tuple[int, int]) -> Path:
    """A fake INA3221: millivolts and milliamperes by rail."""
    folder = root / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1"
    folder.mkdir(parents=True)
    for number, (label, (millivolts, milliamperes)) in enumerate(rails.items(), start=1):
        (folder / f"in{number}_label").write_text(f"{label}\n")
        (folder / f"in{number}_input").write_text(f"{millivolts}\n")
        (folder / f"curr{number}_input").write_text(f"{milliamperes}\n")
    (folder / "in7_label").write_text("Sum of shunt voltages\n")
    return folder


def nowhere(name: str) -> None:
    return None


class Steps:
    """A clock that is told the time."""

    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


def test_energy_is_the_trapezoids_under_the_readings() -> None:
    clock = Steps()
    integral = Integral(clock)
    for clock.s, power in ((0.0, 4.0), (0.1, 6.0), (0.3, 6.0)):
        integral.add(power)
    clock.s = 0.4
    # 0.1 s * 5 W + 0.2 s * 6 W + 0.1 s at the last reading, 6 W
    assert integral.read() == pytest.approx((0.5 + 1.2 + 0.6,))


def test_a_gap_is_not_integrated_over() -> None:
    clock = Steps()
    integral = Integral(clock)
    for clock.s in (0.0, 0.1, 0.7, 0.8):
        integral.add(5.0)
    assert integral.read() is None
    integral.begin()
    integral.add(5.0)
    assert integral.read() == (0.0,)


def test_a_reading_that_failed_makes_the_window_unknown_not_smaller() -> None:
    clock = Steps()
    integral = Integral(clock)
    for clock.s, power in ((0.0, 5.0), (0.1, None), (0.2, 5.0)):
        integral.add(power)
    assert integral.read() is None


def test_the_module_is_vdd_in_alone_where_the_board_has_it(tmp_path: Path) -> None:
    jetson(tmp_path, VDD_IN=(5000, 1200), VDD_CPU_GPU_CV=(5000, 400), VDD_SOC=(5000, 300))
    meter = rail_meter(tmp_path, nowhere)
    assert meter is not None
    assert meter.rail == "VDD_IN"
    with meter.window():
        before = meter.read()
        time.sleep(0.35)
        after = meter.read()
    assert before is not None
    assert after is not None
    joules = meter.used_j(before, after)
    assert joules is not None
    assert 0.35 * 6 <= joules < 0.35 * 6 * 1.5  # 5 V * 1.2 A for 0.35 s, and what the sleep took longer


def test_the_module_of_an_agx_orin_is_a_sum_and_a_part_of_it_is_nothing(tmp_path: Path) -> None:
    folder = jetson(tmp_path, VDD_GPU_SOC=(20000, 100), VDD_CPU_CV=(20000, 50), VIN_SYS_5V0=(5000, 800))
    meter = rail_meter(tmp_path, nowhere)
    assert meter is not None
    assert meter.rail == "VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"
    assert watts(monitors(tmp_path)) == pytest.approx(2.0 + 1.0 + 4.0)
    (folder / "curr2_input").unlink()
    partial = rail_meter(tmp_path, nowhere)
    assert partial is not None
    assert partial.rail is None
    assert "do not add up to the whole module" in str(partial.reason)


def test_a_rail_that_stops_answering_makes_the_energy_unknown(tmp_path: Path) -> None:
    folder = jetson(tmp_path, VDD_IN=(5000, 1200))
    meter = rail_meter(tmp_path, nowhere)
    assert meter is not None
    with meter.window():
        (folder / "curr1_input").write_text("")
        time.sleep(0.25)
        assert meter.read() is None


def test_tegrastats_is_read_where_there_are_no_monitors(tmp_path: Path) -> None:
    command = tmp_path / "tegrastats"
    command.write_text(f"#!/bin/sh\nwhile :; do echo '{LINES[6]}'; sleep 0.05; done\n")
    command.chmod(0o755)
    meter = rail_meter(tmp_path, lambda name: str(command))
    assert meter is not None
    with meter.window():
        before = meter.read()
        time.sleep(0.3)
        joules = meter.used_j(before, meter.read())
    assert joules is not None
    assert 0.3 * 12.479 <= joules < 0.3 * 12.479 * 1.5  # VDD_IN 12479 mW
    assert threading.active_count() < 20


def test_a_machine_without_rails_has_no_such_meter(tmp_path: Path) -> None:
    assert rail_meter(tmp_path, nowhere) is None


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("throttled=0x0\n", ()),
        ("throttled=0x50005\n", ("under-voltage", "throttled")),
        ("throttled=0xf0000\n", ()),  # since the start, but not now
        ("throttled=0x8\n", ("soft temperature limit",)),
        ('error=1 error_msg="Command not registered"\n', None),
        (None, None),
    ],
)
def test_a_raspberry_pi_says_what_limits_it_now(said: str | None, words: tuple[str, ...] | None) -> None:
    assert limits.now(lambda: said) == words


def test_over_current_events_of_a_jetson_count_and_none_is_unknown(tmp_path: Path) -> None:
    assert limits.events(tmp_path) is None
    folder = tmp_path / "sys/class/hwmon/hwmon3"
    folder.mkdir(parents=True)
    (folder / "oc1_event_cnt").write_text("2\n")
    (folder / "oc3_event_cnt").write_text("5\n")
    assert limits.events(tmp_path) == 2 + 5
