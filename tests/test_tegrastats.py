"""tegrastats: every sample line, field by field as it is printed; garbage; the whole module's power."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgekit.bench.tegrastats import TOTAL_RAILS, Line, Load, parse, total_rails
from edgekit.device import Device, load
from edgekit.errors import DeviceError
from edgekit.resources import devices
from tests.tegrastats_lines import EXPECTED

LINES = (Path(__file__).parent / "data" / "tegrastats_lines.txt").read_text().splitlines()


@pytest.mark.parametrize(("text", "expected"), zip(LINES, EXPECTED, strict=True), ids=range(1, len(LINES) + 1))
def test_a_real_line_is_read_field_by_field(text: str, expected: tuple[Line, int | None, float]) -> None:
    line, total_mw, hottest_c = expected
    assert parse(text) == line
    assert parse(text).total_mw == total_mw
    assert parse(text).hottest_c == hottest_c


def test_a_core_that_is_off_is_none() -> None:
    assert parse("RAM 1/2MB CPU [off,3%@345]").cpus == (None, Load(3, (345,)))


def test_what_a_line_does_not_say_is_none() -> None:
    line = parse("RAM 1/2MB CPU [3%@345]")
    assert (line.date, line.swap_mb, line.gpu, line.memory, line.hottest_c, line.total_mw) == (None,) * 6


def test_a_board_whose_sensors_are_all_off_has_no_temperature() -> None:
    assert parse("RAM 1/2MB CPU [3%@345] gpu@-256C PMIC@100C").hottest_c is None


@pytest.mark.parametrize("text", ["", "Segmentation fault", LINES[0][20:], "RAM 1/2MB", "RAM 1/2MB CPU [x]"])
def test_what_is_no_line_of_tegrastats_is_refused(text: str) -> None:
    with pytest.raises(DeviceError, match="tegrastats: not a line of it"):
        parse(text)


@st.composite
def spoiled_lines(draw: st.DrawFn) -> str:
    """A real line with a few characters overwritten."""
    text = list(draw(st.sampled_from(LINES)))
    for _ in range(draw(st.integers(1, 6))):
        text[draw(st.integers(0, len(text) - 1))] = draw(st.characters())
    return "".join(text)


@given(st.text() | spoiled_lines())
@example("RAM " + "9" * 5000 + "/1MB CPU [1%@1]")  # more digits than int() takes
@example("RAM 1/2MB CPU [١%@١]")  # digits, but not ASCII's
def test_garbage_is_read_or_refused_and_nothing_else(text: str) -> None:
    try:
        line = parse(text)
    except DeviceError:
        return
    assert line.cpus
    assert line.total_mw is None or line.total_mw >= 0


@pytest.mark.parametrize("name", [name for name in devices() if name.startswith("jetson")])
def test_a_device_file_states_the_rails_that_the_rule_finds(name: str) -> None:
    rails = tuple(load(Device, devices()[name]).power.total_rail)
    assert rails in TOTAL_RAILS
    assert total_rails([*rails, "VDD_SOC"]) == rails


def test_part_of_a_sum_is_not_the_whole() -> None:
    assert total_rails(["VDD_GPU_SOC", "VDD_CPU_CV"]) == ()
