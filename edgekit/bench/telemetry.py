"""What the board says of itself: facts, and the state of its clocks, heat, other load and energy around a window.

Read from Linux's /proc and /sys; what cannot be read is None. Runs on boards: Python 3.8, standard library only.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from edgekit.bench import limits
from edgekit.bench.energy import Joules, Meter

_ROOT = Path("/")


@dataclass(frozen=True)
class Reading:
    """The state at one moment.

    at_s:       monotonic seconds.
    busy_s:     core seconds that all processes have used since boot, the hypervisor's share included.
    own_s:      of these, what this process has used.
    waited_s:   seconds this process stood ready to run and was not, because others held the core.
    throttles:  throttle and over-current events since boot. limits: what holds a Raspberry Pi back now.
    energy_j:   of each counter, since some start.
    """

    at_s: float
    busy_s: Optional[float] = None
    own_s: float = 0.0
    waited_s: Optional[float] = None
    mhz: Optional[float] = None
    temperature_c: Optional[float] = None
    throttles: Optional[int] = None
    limits: Optional[Tuple[str, ...]] = None
    energy_j: Optional[Joules] = None


def read(meter: Meter, root: Path = _ROOT) -> Reading:
    """The state now; `root` is where /proc and /sys hang."""
    ticks = os.times()
    cpus = root / "sys/devices/system/cpu"
    khz = _highest(cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    heat = _highest(root.glob("sys/class/thermal/thermal_zone*/temp"))
    return Reading(
        at_s=time.monotonic(),
        busy_s=_busy_s(root),
        own_s=ticks.user + ticks.system,
        waited_s=_waited_s(root),
        mhz=None if khz is None else khz / 1000,
        temperature_c=None if heat is None else heat / 1000,
        throttles=limits.events(root),
        limits=limits.now(),
        energy_j=meter.read(),
    )


def between(before: Reading, after: Reading, meter: Meter) -> Dict[str, Any]:
    """What happened in the window, as JSON values; unknown is None.

    ended_s: on the board's own clock. other_cores: cores' worth of work by others. waited: share of the window this
    process was kept off a core.
    """
    window_s = max(after.at_s - before.at_s, 1e-9)
    busy_s, own_s = _difference(before.busy_s, after.busy_s), after.own_s - before.own_s
    waited_s = _difference(before.waited_s, after.waited_s)
    return {
        "ended_s": after.at_s,
        "window_s": window_s,
        "other_cores": None if busy_s is None else max(0.0, busy_s - own_s) / window_s,
        "waited": None if waited_s is None else waited_s / window_s,
        "mhz": after.mhz,  # at the end, while the core is still working
        "temperature_c": [before.temperature_c, after.temperature_c],
        "throttles": _difference(before.throttles, after.throttles),
        "limits": None if after.limits is None else sorted({*(before.limits or ()), *after.limits}),
        "energy_j": meter.used_j(before.energy_j, after.energy_j),
    }


def facts(root: Path = _ROOT) -> Dict[str, Any]:
    """The machine: model, cores, clocks' governor, load."""
    governor = root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    return {
        "system": platform.platform(),
        "machine": platform.machine(),
        "emulated": emulated(Path(sys.executable), root / f"proc/{os.getppid()}/exe"),
        "python": platform.python_version(),
        "model": _text(root / "sys/firmware/devicetree/base/model"),
        "cpu": _cpu_name(root),
        "cores": os.cpu_count(),
        "cores_allowed": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "memory_bytes": _kilobytes(root / "proc/meminfo", "MemTotal"),
        "governor": _text(governor),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    }


def emulated(ours: Path, parents: Path) -> Optional[bool]:
    """Whether an emulator runs this Python: its file is of another machine than what really runs around it."""
    machines = [_elf_machine(path) for path in (ours, parents)]
    return None if None in machines else machines[0] != machines[1]


def peak_memory_bytes(root: Path = _ROOT) -> Optional[int]:
    """The most memory this process has held at once: the runtime, Python and the inputs."""
    return _kilobytes(root / "proc/self/status", "VmHWM")


def _busy_s(root: Path) -> Optional[float]:
    """user, nice, system, irq, softirq and steal of /proc/stat's first line, in seconds."""
    text = _text(root / "proc/stat")
    if text is None:
        return None
    ticks = [int(word) for word in text.splitlines()[0].split()[1:9]]
    user, nice, system, _, _, irq, softirq, steal = ticks
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _waited_s(root: Path) -> Optional[float]:
    """The longest run-queue wait of any of this process's threads (second number of schedstat, nanoseconds)."""
    waits = [_text(path) for path in root.glob("proc/self/task/*/schedstat")]
    return max((int(text.split()[1]) / 1e9 for text in waits if text), default=None)


def _cpu_name(root: Path) -> str:
    for line in (_text(root / "proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _elf_machine(path: Path) -> Optional[bytes]:
    """The two bytes e_machine of an ELF file; None where it is none, or cannot be read."""
    try:
        with open(path, "rb") as stream:
            head = stream.read(20)
    except OSError:
        return None
    return head[18:20] if head[:4] == b"\x7fELF" and len(head) == 20 else None


def _kilobytes(path: Path, key: str) -> Optional[int]:
    """A line like `MemTotal:  8042100 kB`, in bytes."""
    for line in (_text(path) or "").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    return None


def _difference(before: Optional[float], after: Optional[float]) -> Optional[float]:
    return None if before is None or after is None else after - before


def _highest(paths: Any) -> Optional[float]:
    return max((value for value in map(_number, paths) if value is not None), default=None)


def _number(path: Path) -> Optional[float]:
    text = _text(path)
    return float(text) if text is not None and text.lstrip("-").isdigit() else None


def _text(path: Path) -> Optional[str]:
    """A file's text without its padding; None where it cannot be read (absent, or root's alone like RAPL's)."""
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return None
