"""Reads one line of NVIDIA's tegrastats, JetPack 4 to 7.

The format changed with every JetPack and is documented for none: the rules stand here as the real lines in
tests/data/tegrastats_lines.txt show them. What a line does not say is None, never 0.
Runs on boards: Python 3.8, standard library only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Container, Dict, Mapping, Optional, Tuple

from edgekit.errors import DeviceError

# The rails whose sum is the whole module, first match: a partial sum under-reports by up to 40 %.
TOTAL_RAILS = (
    ("VDD_IN",),  # TX2, Xavier NX, Orin Nano, Orin NX
    ("POM_5V_IN",),  # Nano
    ("VIN",),  # AGX Thor
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),  # AGX Xavier
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),  # AGX Orin
)
_OFF_C = -256.0  # what a sensor that is switched off says
_NOT_CONNECTED = "NC"
# In every known line the PMIC says exactly 50 or 100 degrees: a constant, not a measurement.
_CONSTANT = ("pmic",)


@dataclass(frozen=True)
class Load:
    """How busy a part is, in percent, and its clocks in MHz, one for each of its units."""

    percent: Optional[int] = None
    mhz: Tuple[int, ...] = ()


@dataclass(frozen=True)
class Rail:
    """Milliwatts now, on average since tegrastats was started, and at most (JetPack 7.2)."""

    now_mw: int
    average_mw: int
    highest_mw: Optional[int] = None


@dataclass(frozen=True)
class Line:
    """One line.

    date:           as printed, `05-15-2025 18:30:28`.
    ram_mb, swap_mb: used and total.
    cpus:           one for each core; None for a core that is off.
    gpu, memory:    GR3D_FREQ and EMC_FREQ; None where the line has no such field.
    temperature_c:  by sensor, in lower case; None for a sensor that is off.
    rails:          by name as printed, without those that are not connected.
    """

    ram_mb: Tuple[int, int]
    cpus: Tuple[Optional[Load], ...]
    date: Optional[str] = None
    swap_mb: Optional[Tuple[int, int]] = None
    gpu: Optional[Load] = None
    memory: Optional[Load] = None
    temperature_c: Mapping[str, Optional[float]] = field(default_factory=dict)
    rails: Mapping[str, Rail] = field(default_factory=dict)

    @property
    def hottest_c(self) -> Optional[float]:
        """The highest temperature that is measured."""
        known = [c for name, c in self.temperature_c.items() if c is not None and name not in _CONSTANT]
        return max(known, default=None)

    @property
    def total_mw(self) -> Optional[int]:
        """What the whole module takes now, by the board's own rule; None where the rails do not tell."""
        names = total_rails(self.rails)
        return sum(self.rails[name].now_mw for name in names) if names else None


def parse(line: str) -> Line:
    """One line of tegrastats.

    Raises:
        DeviceError: the text is not one.
    """
    ram, cpus = _RAM.search(line), _CPUS.search(line)
    if ram is None or cpus is None:
        raise DeviceError(f"tegrastats: not a line of it: {line.strip()[:100]!r}")
    date, swap = _DATE.match(line), _SWAP.search(line)
    return Line(
        ram_mb=(int(ram[1]), int(ram[2])),
        cpus=tuple(_cpu(core) for core in cpus[1].split(",")),
        date=date[1] if date else None,
        swap_mb=(int(swap[1]), int(swap[2])) if swap else None,
        gpu=_load(_GPU.search(line)),
        memory=_load(_MEMORY.search(line)),
        temperature_c={name.lower(): _degrees(value) for name, value in _TEMPERATURE.findall(line)},
        rails=_rails(line),
    )


def total_rails(names: Container[str]) -> Tuple[str, ...]:
    """Of the rails that a board has, those whose sum is the whole module; none where no rule fits."""
    return next((rails for rails in TOTAL_RAILS if all(rail in names for rail in rails)), ())


_N = r"(\d{1,9})"
_DATE = re.compile(r"\s*(\d\d-\d\d-\d{4} \d\d:\d\d:\d\d) ", re.ASCII)
_RAM = re.compile(rf"(?<!\S)RAM {_N}/{_N}MB(?!\S)", re.ASCII)
_SWAP = re.compile(rf"(?<!\S)SWAP {_N}/{_N}MB(?!\S)", re.ASCII)
_CORE = r"(?:off|\d{1,3}%(?:@\d{1,9})?)"
_CPUS = re.compile(rf"(?<!\S)CPU \[({_CORE}(?:,{_CORE})*)\](?!\S)", re.ASCII)
# 0% · 0%@140 · 0%@[114] · 0%@[0,0] · @[0,0,0]
_LOAD = r"(?:(\d{1,3})%)?(?:@\[?(\d{1,9}(?:,\d{1,9})*)\]?)?(?!\S)"
_GPU = re.compile(rf"(?<!\S)GR3D_FREQ (?!\s){_LOAD}", re.ASCII)
_MEMORY = re.compile(rf"(?<!\S)EMC_FREQ (?!\s){_LOAD}", re.ASCII)
_DEGREES = r"-?\d{1,4}(?:\.\d{1,4})?"
# A second value is the highest (JetPack 7.2).
_TEMPERATURE = re.compile(rf"(?<!\S)([A-Za-z]\w*)@({_DEGREES})C(?:/{_DEGREES}C)?(?!\S)", re.ASCII)
# Milliwatts, with the unit from JetPack 5 on; AGX Xavier's rails are called GPU and CPU like its sensors.
_RAIL = re.compile(rf"(?<!\S)([A-Z]\w*) {_N}(?:mW)?/{_N}(?:mW)?(?:/{_N}(?:mW)?)?(?!\S)", re.ASCII)


def _cpu(core: str) -> Optional[Load]:
    if core == "off":
        return None
    percent, _, mhz = core.partition("%@")
    return Load(int(percent.rstrip("%")), (int(mhz),) if mhz else ())


def _load(found: Optional[re.Match[str]]) -> Optional[Load]:
    if found is None:
        return None
    return Load(int(found[1]) if found[1] else None, tuple(map(int, found[2].split(","))) if found[2] else ())


def _degrees(text: str) -> Optional[float]:
    return None if float(text) == _OFF_C else float(text)


def _rails(line: str) -> Dict[str, Rail]:
    found = {}
    for name, now, average, highest in _RAIL.findall(line):
        if name != _NOT_CONNECTED:
            found[name] = Rail(int(now), int(average), int(highest) if highest else None)
    return found
