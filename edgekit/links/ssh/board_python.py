"""Whether a board has the Python and the numpy that the agent needs, and if not, what to install there, from where."""

from __future__ import annotations

import re
from typing import Protocol

from edgekit.errors import DependencyError, DeviceError

OLDEST = (3, 8)
# By the release of L4T in /etc/nv_tegra_release: https://docs.nvidia.com/jetson/archives/
JETPACKS = {32: 4, 34: 5, 35: 5, 36: 6, 38: 7, 39: 7}
# Written for every Python, also for those too old to be used.
_PROBE = (
    "import sys\ntry:\n import numpy\n version = numpy.__version__\nexcept Exception as error:\n version = 'none'\n"
    "print('edgekit-python %d.%d numpy %s' % (sys.version_info[0], sys.version_info[1], version))"
)
_SCRIPT = 'head -n 1 /etc/nv_tegra_release 2>/dev/null; "$1" -c "$2"'
_NO_COMMAND = (126, 127)


class Runs(Protocol):
    """What is asked of a connection: `ssh.client.Client`, or a test's fake."""

    host: str

    def run(self, script: str, *arguments: str) -> Done: ...


class Done(Protocol):
    returncode: int
    stdout: bytes
    stderr: bytes


def check_python(client: Runs, python: str) -> None:
    """Asks the board.

    Raises:
        DependencyError: no Python, one older than 3.8, or no numpy.
        DeviceError: its answer is not one.
    """
    done = client.run(_SCRIPT, python, _PROBE)
    text = done.stdout.decode(errors="replace")
    jetpack = _jetpack(text)
    if done.returncode in _NO_COMMAND:
        raise DependencyError(
            f"{client.host}: there is no '{python}'.", next=f"on the board: {_install_python(jetpack)}"
        )
    found = re.search(r"edgekit-python (\d+)\.(\d+) numpy (\S+)", text)
    if found is None:
        raise DeviceError(f"{client.host}: '{python}' does not work.", why=done.stderr.decode(errors="replace")[-500:])
    version = (int(found[1]), int(found[2]))
    if version < OLDEST:
        raise DependencyError(
            f"{client.host}: '{python}' is Python {version[0]}.{version[1]}; the agent needs 3.8 or newer.",
            next=f"on the board: {_install_python(jetpack)}",
        )
    if found[3] == "none":
        raise DependencyError(f"{client.host}: {_called(jetpack)}'{python}' has no numpy.", next=_install_numpy(python))


def _jetpack(text: str) -> int | None:
    """`# R36 (release), REVISION: 4.4, ...` is JetPack 6."""
    found = re.search(r"^# R(\d+) ", text, re.MULTILINE)
    return JETPACKS.get(int(found[1])) if found else None


def _called(jetpack: int | None) -> str:
    return f"JetPack {jetpack}, " if jetpack else ""


def _install_python(jetpack: int | None) -> str:
    if jetpack == 4:  # Ubuntu 18.04, whose python3 is 3.6
        return "sudo apt-get install python3.8 python3.8-venv, and write python: python3.8 under link: in its file"
    return "sudo apt-get install python3 python3-numpy, or name another under link: in its file (python: ...)"


def _install_numpy(python: str) -> str:
    if python in ("python3", "/usr/bin/python3"):
        return "on the board: sudo apt-get install python3-numpy"
    return f"on the board: {python} -m pip install numpy"
