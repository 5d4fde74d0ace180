"""A Jetson's power mode, chosen by name, and its clocks, locked where that is permitted; both are put back afterwards.

The ids of power modes mean another mode on another board, so the board's own table gives the id of a name.
`jetson_clocks` pins every clock to the highest of the current mode. Needs `sudo` without a password; where that is not
given the board is measured as it stands, and says `clocks: floating`.
Runs on boards: Python 3.8, standard library only. Not yet exercised on a Jetson: its commands are tested with fakes.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from edgekit.errors import DeviceError, InputError, did_you_mean

_ROOT = Path("/")
_SUDO = ("sudo", "-n")  # -n: asks for no password, fails instead
_COMMAND_S = 60.0

Run = Callable[..., Tuple[int, str]]


def run_command(*words: str) -> Tuple[int, str]:
    """Exit code and both outputs; 127 where there is no such command. `no` is the answer to what it asks (a reboot)."""
    try:
        done = subprocess.run(
            words,
            input="no\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_COMMAND_S,
            text=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, done.stdout


def facts(root: Path = _ROOT, run: Run = run_command) -> Dict[str, Any]:
    """power_mode: by name, None where there is none. clocks: `locked` when no clock may move, `floating`, or None."""
    limits = [
        *_limits(root, "devices/system/cpu/cpufreq/policy*", "scaling_"),
        *_limits(root, "class/devfreq/*gpu*", ""),
    ]
    clocks = None if not limits else "locked" if all(low == high for low, high in limits) else "floating"
    return {"power_mode": power_mode(run), "clocks": clocks}


def power_mode(run: Run = run_command) -> Optional[str]:
    """The mode's name as nvpmodel says it; None where there is no nvpmodel."""
    code, text = run("nvpmodel", "-q")
    found = re.search(r"NV Power Mode: *(\S+)", text)
    return found[1] if code == 0 and found else None


class Clocks:
    """What was changed on a board. `state`: a file that outlives a kill and a reboot: the next user puts it back.

    folder: writable; run: executes a command.
    """

    def __init__(self, folder: Path, run: Run = run_command, root: Path = _ROOT):
        self._state, self._stored = folder / "power-before.json", folder / "clocks-before.conf"
        self._run, self._root = run, root

    def lock(self, mode: Optional[str]) -> Dict[str, Any]:
        """Sets the mode, None for the one that stands, and locks the clocks; says what was reached.

        Raises:
            InputError: the board has no mode of that name.
            DeviceError: the board does not take the mode (no permission, or it wants a reboot first).
        """
        before = power_mode(self._run)
        if mode is not None and mode != before:
            self._remember({"power_mode": before})
            self._set_mode(mode)
        if before is None:
            return {"locked": False, "why": "the board has no nvpmodel"}
        why = self._lock_clocks({"power_mode": before if mode is not None and mode != before else None})
        return {"locked": why is None, "why": why}

    def restore(self) -> None:
        """Puts back what lock() changed, or what an earlier user who could not do so left behind."""
        try:
            before = json.loads(self._state.read_text())
        except (OSError, ValueError):
            return
        if self._stored.is_file():
            self._run(*_SUDO, "jetson_clocks", "--restore", str(self._stored))
            self._stored.unlink()
        if before.get("power_mode"):
            self._set_mode(before["power_mode"])
        self._state.unlink()

    def _lock_clocks(self, before: Mapping[str, Any]) -> Optional[str]:
        """Why the clocks could not be locked; None where they are."""
        self._remember(before)
        code, text = self._run(*_SUDO, "jetson_clocks", "--store", str(self._stored))
        if code == 0:
            code, text = self._run(*_SUDO, "jetson_clocks")
        return None if code == 0 else f"jetson_clocks: {_last_line(text)}"

    def _set_mode(self, mode: str) -> None:
        ids = mode_ids(self._root)
        if mode not in ids:
            raise InputError(f"power_mode: the board has no mode '{mode}'." + did_you_mean(mode, ids))
        _, text = self._run(*_SUDO, "nvpmodel", "-m", str(ids[mode]))
        if power_mode(self._run) != mode:
            raise DeviceError(
                f"power_mode: the board does not take '{mode}'.",
                why=_last_line(text),
                next=f"set it there yourself: sudo nvpmodel -m {ids[mode]}, and reboot if it asks",
            )

    def _remember(self, before: Mapping[str, Any]) -> None:
        self._state.write_text(json.dumps(before))


def mode_ids(root: Path = _ROOT) -> Dict[str, int]:
    """Power modes by name, from the board's table: `< POWER_MODEL ID=2 NAME=MAXN_SUPER >`."""
    try:
        text = (root / "etc/nvpmodel.conf").read_text(errors="replace")
    except OSError:
        return {}
    return {name: int(number) for number, name in re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", text)}


def _limits(root: Path, parts: str, prefix: str) -> List[Tuple[str, str]]:
    """Lowest and highest clock that each part may take, where both can be read."""
    found = []
    for part in (root / "sys").glob(parts):
        try:
            low, high = ((part / f"{prefix}{end}_freq").read_text().strip() for end in ("min", "max"))
        except OSError:
            continue
        found.append((low, high))
    return found


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]
