"""What a person follows on stderr: stage k of n, epoch, loss, accuracy, time left.

On a terminal one line is rewritten in place; elsewhere (a log, a pipe, CI) every fact is a plain line. Nothing runs in
the background: a refreshing thread would disturb what is being measured.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

BOLD, DIM, GREEN, YELLOW = "1", "2", "32", "33"


class Progress:
    """Writes progress to `stream` (stderr).

    quiet: only warnings are shown. clock: seconds, monotonic.
    """

    def __init__(
        self, stream: TextIO | None = None, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
    ):
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._clock = clock
        self._live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._colour = self._live and not os.environ.get("NO_COLOR")
        self._prefix = ""
        self._started = clock()
        self._open_line = False

    def stage(self, k: int, n: int, name: str) -> None:
        """Stage k of n begins (k counts from 1)."""
        self._prefix = f"[{k}/{n}] {name}"
        self._started = self._clock()
        self._transient(f"{self._paint(f'[{k}/{n}]', DIM)} {self._paint(name, BOLD)} ...")

    def epoch(self, i: int, n: int, *, loss: float | None = None, accuracy: float | None = None) -> None:
        """Epoch i of n has ended (i counts from 1). accuracy: share, 0 to 1."""
        self._transient("  ".join([self._prefix, *self._epoch_facts(i, n, loss, accuracy)]))

    def update(self, i: int, n: int, what: str) -> None:
        """Part i of n of some other long work (calibration, profiling) has ended; shown on a terminal only."""
        if self._live:
            self._transient(f"{self._prefix}  {what} {i}/{n}")

    def note(self, text: str) -> None:
        """A fact worth a line of its own."""
        self._permanent(f"      {text}")

    def warn(self, text: str) -> None:
        """A doubt; shown even when quiet."""
        self._permanent(f"      {self._paint('warning:', YELLOW)} {text}", always=True)

    def done(self, seconds: float, cached: bool = False) -> None:
        """The stage has ended. cached: its result was taken from an earlier run."""
        ending = "reused from an earlier run" if cached else f"done in {duration(seconds)}"
        self._permanent(f"{self._prefix}  {self._paint(ending, GREEN)}")

    def _epoch_facts(self, i: int, n: int, loss: float | None, accuracy: float | None) -> list[str]:
        facts = [f"epoch {i}/{n}"]
        if loss is not None:
            facts.append(f"loss {loss:.3f}")
        if accuracy is not None:
            facts.append(f"accuracy {100 * accuracy:.1f} %")
        if 0 < i < n:
            left_s = (self._clock() - self._started) / i * (n - i)
            facts.append(f"{duration(left_s)} left")
        return facts

    def _transient(self, line: str) -> None:
        """A line that the next one replaces where that is possible."""
        if self._quiet:
            return
        if not self._live:
            self._permanent(line)
            return
        self._stream.write("\r\x1b[2K" + self._fit(line))
        self._stream.flush()
        self._open_line = True

    def _permanent(self, line: str, *, always: bool = False) -> None:
        if self._quiet and not always:
            return
        self._stream.write(("\r\x1b[2K" if self._open_line else "") + line + "\n")
        self._stream.flush()
        self._open_line = False

    def _fit(self, line: str) -> str:
        """Cut to the terminal's width, since a wrapped line cannot be rewritten; coloured lines are short."""
        width = shutil.get_terminal_size().columns - 1
        return line if "\x1b" in line else line[:width]

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


def silent() -> Progress:
    """Progress that shows nothing but warnings: for tests and for use as a library."""
    return Progress(quiet=True)


def duration(seconds: float) -> str:
    """`4.2 s`, `1 min 05 s`, `2 h 03 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
