"""Holds a board for one user, as `python -m edgekit.bench.hold FOLDER`: its lock, its power mode and its clocks.

The first line of standard input is what is wanted (`{"power_mode": null}`), answered by one line of JSON; every further
line is a sign of life. When the input closes, or no sign has come for a while because the link is gone, everything is
put back, and bench processes that are still there are ended, so that none disturbs the next measurement.
Runs on boards: Python 3.8, standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Optional

from edgekit.bench.clocks import Clocks
from edgekit.errors import DeviceError, EdgekitError

SILENCE_S = 20.0  # the other side gives a sign every 5 s
LOCK_S = 30.0  # longer than SILENCE_S: a holder whose link is gone has let go by then
_KEPT_S = 30 * 24 * 3600.0  # files not used for so long make room


def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # unwinds, so that all is put back
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # sshd's when the link goes; the closed input says so too
    try:
        with held(Path(sys.argv[1]), json.loads(sys.stdin.readline() or "{}"), LOCK_S) as reached:
            _say({"ok": True, **reached})
            wait_for_silence(sys.stdin, SILENCE_S)
    except EdgekitError as error:
        _say({"ok": False, **error.as_dict()})


@contextlib.contextmanager
def held(folder: Path, wanted: Dict[str, Any], patience_s: float, clocks: Optional[Clocks] = None) -> Iterator[Any]:
    """The board is this process's alone inside; yields what was reached of `wanted`.

    Raises:
        DeviceError: somebody else has held it for patience_s, or it does not take the power mode.
        InputError: it has no such power mode.
    """
    clocks = clocks or Clocks(folder)
    with _locked(folder / "lock", patience_s):
        _swept(folder)
        clocks.restore()  # what a holder that was killed left behind
        try:
            yield clocks.lock(wanted.get("power_mode"))
        finally:
            clocks.restore()
            _swept(folder)


def wait_for_silence(signs: IO[str], silence_s: float) -> None:
    """Returns when the input closes, or nothing has come for silence_s."""
    number = signs.fileno()
    while select.select([number], [], [], silence_s)[0] and os.read(number, 4096):
        pass


@contextlib.contextmanager
def _locked(path: Path, patience_s: float) -> Iterator[None]:
    """An flock, which the kernel frees however its holder ends."""
    until = time.monotonic() + patience_s
    with open(path, "w") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > until:
                    raise DeviceError(
                        "another edgekit is measuring on this board.",
                        next="wait until it is done: two at once would disturb each other's times",
                    ) from None
                time.sleep(0.2)
        yield


def _swept(folder: Path) -> None:
    """No bench of an earlier user runs, its scratch is gone, and files that nobody used for a month make room."""
    for number in _benches(folder):
        with contextlib.suppress(OSError):
            os.kill(number, signal.SIGTERM)  # to `timeout`, which passes it on and kills two seconds later
    shutil.rmtree(folder / "tmp", ignore_errors=True)
    (folder / "tmp").mkdir()
    for path in (folder / "files").glob("*"):
        if time.time() - path.stat().st_mtime > _KEPT_S:
            path.unlink()


def _benches(folder: Path) -> List[int]:
    """Process numbers noted in `tmp/`, of those that still are what they were."""
    numbers = [int(path.stem) for path in (folder / "tmp").glob("*.pid") if path.stem.isdigit()]
    return [number for number in numbers if b"edgekit.bench" in _command(number)]


def _command(number: int) -> bytes:
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes()
    except OSError:
        return b""


def _say(answer: Dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
