"""What holds a board back: events it counts (heat, over-current), and what it says of itself right now.

    every Linux     thermal throttle events of the cores
    Jetson          over-current events of the module: sys/class/hwmon/hwmon*/oc*_event_cnt
    Raspberry Pi    `vcgencmd get_throttled`, a word of bits; 0 to 3 hold now, 16 to 19 since the start

Runs on boards: Python 3.8, standard library only. The Jetson's and the Pi's are tested with fakes, not yet on hardware.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Callable, Optional, Tuple

_ROOT = Path("/")
_COUNTERS = (
    "sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/core_throttle_count",
    "sys/class/hwmon/hwmon*/oc*_event_cnt",
)
# https://www.raspberrypi.com/documentation/computers/os.html#get_throttled
PI_BITS = ("under-voltage", "clock capped", "throttled", "soft temperature limit")


def events(root: Path = _ROOT) -> Optional[int]:
    """Events since boot; None where nothing counts them."""
    counts = [_count(path) for pattern in _COUNTERS for path in root.glob(pattern)]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def ask_pi() -> Optional[str]:
    """`throttled=0x50005`; None where there is no vcgencmd, or it may not be asked."""
    command = shutil.which("vcgencmd")
    if command is None:
        return None
    try:
        done = subprocess.run([command, "get_throttled"], stdout=subprocess.PIPE, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def now(ask: Callable[[], Optional[str]] = ask_pi) -> Optional[Tuple[str, ...]]:
    """What limits a Raspberry Pi at this moment; None on what is none."""
    found = re.fullmatch(r"throttled=0x([0-9a-fA-F]{1,8})\s*", ask() or "")
    if found is None:
        return None
    bits = int(found[1], 16)
    return tuple(word for place, word in enumerate(PI_BITS) if bits >> place & 1)


def _count(path: Path) -> Optional[int]:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
