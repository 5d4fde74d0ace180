"""Energy counters: of the processor's packages (RAPL), or of an NVIDIA GPU's board (NVML).

A counter's difference over a window is the energy of exactly that window. What cannot be read is None with the reason,
never 0. NVML is asked through the driver's own library, by ctypes: nvmlDeviceGetTotalEnergyConsumption gives
millijoules since the driver was loaded (Volta and newer). Runs on boards: Python 3.8, standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from typing import Any, Callable, ContextManager, Mapping, Optional, Sequence, Tuple

_ROOT = Path("/")
Joules = Tuple[float, ...]  # one counter each


class Meter:
    """A rail that can be read, or the reason why there is none.

    rail: what the numbers cover. read() -> joules of each counter since some start; wraps_j: where each starts again.
    """

    def __init__(
        self,
        rail: Optional[str] = None,
        read: Callable[[], Optional[Joules]] = lambda: None,
        wraps_j: Sequence[Optional[float]] = (),
        reason: Optional[str] = None,
    ):
        self.rail, self.read, self.reason = rail, read, reason
        self._wraps_j = wraps_j

    def window(self) -> ContextManager[None]:
        """Entered around two readings whose difference is wanted, by a meter that has to watch meanwhile."""
        return contextlib.nullcontext()

    def used_j(self, before: Optional[Joules], after: Optional[Joules]) -> Optional[float]:
        """Joules between two readings; a counter that went backwards has wrapped, once at most in a window."""
        if before is None or after is None:
            return None
        total = 0.0
        for number, (start, end) in enumerate(zip(before, after)):
            wrap_j = self._wraps_j[number] if number < len(self._wraps_j) else None
            if end < start and wrap_j is None:
                return None
            total += end - start + ((wrap_j or 0.0) if end < start else 0.0)
        return total


def meter(engine: Mapping[str, Any], root: Path = _ROOT) -> Meter:
    """The rail that a session's work shows on: its GPU where the engine names one (`gpu`: its index), else RAPL."""
    return nvml(int(engine["gpu"])) if engine.get("gpu") is not None else rapl(root)


def rapl(root: Path = _ROOT) -> Meter:
    """The processor's whole packages (`intel-rapl:0`), not their parts (`intel-rapl:0:0`)."""
    folders = sorted(root.glob("sys/class/powercap/intel-rapl:*"))
    packages = [folder for folder in folders if folder.name.count(":") == 1]
    if not packages:
        return Meter(reason="this machine shows no energy counter (no RAPL under /sys/class/powercap)")

    def read() -> Optional[Joules]:
        found = [_microjoules(folder / "energy_uj") for folder in packages]
        # All or nothing: a sum over some packages would be a wrong number.
        return None if None in found else tuple(joules for joules in found if joules is not None)

    if read() is None:
        return Meter(reason="the energy counter is readable by root alone: chmod a+r /sys/class/powercap/*/energy_uj")
    return Meter("RAPL package", read, [_microjoules(folder / "max_energy_range_uj") for folder in packages])


def nvml(gpu: int, load: Callable[[str], Any] = ctypes.CDLL) -> Meter:
    """The board of one NVIDIA GPU, by NVML's index. load: opens a shared library; a test gives a false one."""
    try:
        library = load("libnvidia-ml.so.1")
    except OSError:
        return Meter(reason="NVIDIA's management library is not installed (libnvidia-ml.so.1)")
    device, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()

    def read() -> Optional[Joules]:
        failed = library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(millijoules))
        return None if failed else (millijoules.value / 1e3,)

    if library.nvmlInit_v2() or library.nvmlDeviceGetHandleByIndex_v2(gpu, ctypes.byref(device)):
        return Meter(reason=f"NVML gives no GPU {gpu}")
    if read() is None:
        return Meter(reason=f"GPU {gpu} has no energy counter (it is older than Volta)")
    return Meter("GPU board (NVML)", read)


def _microjoules(path: Path) -> Optional[float]:
    """A counter of microjoules, in joules."""
    try:
        return int(path.read_text()) / 1e6
    except (OSError, ValueError):
        return None
