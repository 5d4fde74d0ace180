"""Energy of a Jetson: the power of the whole module, read ten times a second while a window is open, and integrated.

From the INA3221 monitors in sysfs (millivolts times milliamperes of each rail), else from tegrastats; only the
instantaneous values, since tegrastats averages over its whole life. Which rails are the whole: bench/tegrastats.py.
Runs on boards: Python 3.8, standard library only. Tested with fakes; not yet exercised on a Jetson.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import Callable, ContextManager, Dict, Iterator, Mapping, Optional, Tuple

from edgekit.bench import tegrastats
from edgekit.bench.energy import Joules, Meter
from edgekit.errors import DeviceError

_ROOT = Path("/")
PERIOD_S = 0.1
_KINDS = ("in", "curr")  # millivolts, milliamperes
LONGEST_GAP_S = 0.5  # a longer one is not integrated over: the energy of that window is unknown
Files = Mapping[str, Tuple[Path, Path]]  # rail -> its millivolts and milliamperes


def rail_meter(root: Path = _ROOT, which: Callable[[str], Optional[str]] = shutil.which) -> Optional[Meter]:
    """The meter of a Jetson's module; None where the machine has neither monitors nor tegrastats."""
    files = monitors(root)
    rails = tegrastats.total_rails(files)
    if rails:
        return RailMeter(" + ".join(rails), lambda integral: _polled(integral, {name: files[name] for name in rails}))
    command = which("tegrastats")
    if command is not None:
        return RailMeter("module (tegrastats)", lambda integral: _streamed(integral, command))
    if files:
        return Meter(reason=f"its rails {', '.join(sorted(files))} do not add up to the whole module")
    return None


class RailMeter(Meter):
    """source: keeps an Integral fed while it is entered."""

    def __init__(self, rail: str, source: Callable[[Integral], ContextManager[None]]):
        self._integral = Integral()
        super().__init__(rail, self._integral.read)
        self._source = source

    @contextlib.contextmanager
    def window(self) -> Iterator[None]:
        self._integral.begin()
        with self._source(self._integral):
            yield


class Integral:
    """Joules by trapezoids over (seconds, watts); None after a gap or a reading that failed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._lock = clock, threading.Lock()
        self.begin()

    def begin(self) -> None:
        with self._lock:
            self._joules: Optional[float] = 0.0
            self._last: Optional[Tuple[float, float]] = None

    def add(self, watts: Optional[float]) -> None:
        """The power now."""
        with self._lock:
            now_s = self._clock()
            if watts is None:
                self._joules = None
                return
            if self._last is not None and self._joules is not None:
                seconds = now_s - self._last[0]
                gone = seconds > LONGEST_GAP_S
                self._joules = None if gone else self._joules + seconds * (watts + self._last[1]) / 2
            self._last = (now_s, watts)

    def read(self) -> Optional[Joules]:
        """Joules until now, the last power holding since it was read."""
        with self._lock:
            if self._joules is None or self._last is None:
                return None
            seconds = self._clock() - self._last[0]
            return None if seconds > LONGEST_GAP_S else (self._joules + seconds * self._last[1],)


def monitors(root: Path = _ROOT) -> Dict[str, Tuple[Path, Path]]:
    """Every rail of the INA3221 monitors by its label, with the files of its millivolts and milliamperes."""
    found = {}
    for label in root.glob("sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in*_label"):
        volts, amperes = (
            label.with_name(label.name.replace("in", kind).replace("_label", "_input")) for kind in _KINDS
        )
        if amperes.is_file():  # the monitor also labels sums, which have no current of their own
            found[label.read_text().strip()] = (volts, amperes)
    return found


def watts(files: Files) -> Optional[float]:
    """The sum of the rails now; None where one cannot be read: a sum of some would be a wrong number."""
    total = 0.0
    for volts, amperes in files.values():
        try:
            total += int(volts.read_text()) * int(amperes.read_text()) / 1e6
        except (OSError, ValueError):
            return None
    return total


@contextlib.contextmanager
def _polled(integral: Integral, files: Files) -> Iterator[None]:
    stopped = threading.Event()
    integral.add(watts(files))

    def poll() -> None:
        while not stopped.wait(PERIOD_S):
            integral.add(watts(files))

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


@contextlib.contextmanager
def _streamed(integral: Integral, command: str) -> Iterator[None]:
    words = [command, "--interval", str(round(1000 * PERIOD_S))]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace")
    first = threading.Event()

    def follow() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            integral.add(_module_watts(line))
            first.set()
        first.set()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    first.wait(2.0)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
        thread.join()


def _module_watts(line: str) -> Optional[float]:
    try:
        milliwatts = tegrastats.parse(line).total_mw
    except DeviceError:
        return None
    return None if milliwatts is None else milliwatts / 1000
