"""A board for tests: a real sshd in a network namespace of its own, with a home folder and a link that can be cut.

Needs root, sshd and iproute2. The home is a small tmpfs, so that its disk can be filled; the Python there is this one.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PORT = 2222
TOOLS = ("sshd", "ssh", "ssh-agent", "ssh-add", "ssh-keygen", "ip", "mount")


def why_not() -> str | None:
    """Why no board can be made here; None where it can."""
    if os.geteuid() != 0:
        return "needs root, to make a network namespace"
    absent = [tool for tool in TOOLS if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    return f"needs {', '.join(absent)}: apt-get install openssh-server iproute2" if absent else None


class TestBoard:
    """host: what a board file says under `ssh`. home: the folder that is HOME there, seen from here."""

    __test__ = False

    def __init__(self, folder: Path, home: Path, number: int):
        self.folder, self.home = folder, home
        self.name = f"ek{os.getpid() % 100000}-{number}"
        self.address, self._here = f"10.231.{number}.2", f"10.231.{number}.1"
        self.host = f"root@{self.address}"
        self.agent_socket = folder / "agent"

    @property
    def cache(self) -> Path:
        return self.home / ".cache" / "edgekit"

    def cut(self) -> None:
        run("ip", "link", "set", f"{self.name}h", "down")

    def mend(self) -> None:
        run("ip", "link", "set", f"{self.name}h", "up")

    def processes(self) -> list[str]:
        """What runs there of edgekit."""
        numbers = run("ip", "netns", "pids", self.name).split()
        commands = [Path(f"/proc/{number}/cmdline") for number in numbers]
        words = [path.read_bytes().replace(b"\0", b" ").decode() for path in commands if path.exists()]
        return [one for one in words if "-m edgekit.bench" in one]

    def kill(self, word: str) -> None:
        """Ends, as a crash would, every process there whose command line has the word."""
        for number in run("ip", "netns", "pids", self.name).split():
            with contextlib.suppress(OSError):
                if word.encode() in Path(f"/proc/{number}/cmdline").read_bytes():
                    os.kill(int(number), signal.SIGKILL)

    def new_host_key(self) -> None:
        """As if somebody else answered at its address."""
        (self.folder / "host_key").unlink()
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "host_key"))

    def start(self) -> None:
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", f"{self.name}h", "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "addr", "add", f"{self._here}/30", "dev", f"{self.name}h")
        run("ip", "link", "set", f"{self.name}h", "up")
        for words in ("link set lo up", f"addr add {self.address}/30 dev eth0", "link set eth0 up"):
            run("ip", "-n", self.name, *words.split())
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "host_key"))
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "login_key"))
        run("ssh-agent", "-a", str(self.agent_socket))
        run("ssh-add", "-q", str(self.folder / "login_key"), SSH_AUTH_SOCK=str(self.agent_socket))
        (self.folder / "sshd_config").write_text(self._config())
        Path("/run/sshd").mkdir(exist_ok=True)
        self.start_sshd()

    def start_sshd(self) -> None:
        run("ip", "netns", "exec", self.name, str(shutil.which("sshd", path="/usr/sbin:/usr/bin")), *self._sshd())
        self._wait_for_sshd()

    def stop(self) -> None:
        """Leaves nothing: processes, namespace (with its end of the link), agent."""
        for number in run("ip", "netns", "pids", self.name, check=False).split():
            with contextlib.suppress(OSError):
                os.kill(int(number), signal.SIGKILL)
        run("ip", "link", "del", f"{self.name}h", check=False)
        run("ip", "netns", "del", self.name, check=False)
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if f"ssh-agent\0-a\0{self.agent_socket}\0".encode() == process.read_bytes():
                    os.kill(int(process.parent.name), signal.SIGKILL)

    def _sshd(self) -> list[str]:
        return ["-f", str(self.folder / "sshd_config"), "-E", str(self.folder / "sshd.log")]

    def _config(self) -> str:
        """ForceCommand gives the sessions another home than root's own, and otherwise runs what was asked."""
        run_there = self.folder / "run_there"
        run_there.write_text(f'export HOME={shlex.quote(str(self.home))}; cd; exec sh -c "$SSH_ORIGINAL_COMMAND"\n')
        lines = {
            "Port": PORT,
            "ListenAddress": self.address,
            "HostKey": self.folder / "host_key",
            "AuthorizedKeysFile": self.folder / "login_key.pub",
            "StrictModes": "no",  # the keys stand in a test's folder
            "PidFile": "none",
            "PasswordAuthentication": "no",
            "UsePAM": "no",
            "PermitRootLogin": "prohibit-password",
            "ForceCommand": f"unset XDG_CACHE_HOME; . {run_there}",
        }
        return "".join(f"{key} {value}\n" for key, value in lines.items())

    def _wait_for_sshd(self) -> None:
        words = ["ssh-keyscan", "-T", "1", "-p", str(PORT), self.address]
        until = time.monotonic() + 20
        while not subprocess.run(words, capture_output=True, check=False).stdout:
            assert time.monotonic() < until, (self.folder / "sshd.log").read_text()
            time.sleep(0.1)


@contextlib.contextmanager
def board(folder: Path, number: int = 1, disk: str = "256m") -> Iterator[TestBoard]:
    """A board that is gone afterwards, whatever happens. disk: the size of its home."""
    home = folder / "home"
    home.mkdir()
    one = TestBoard(folder, home, number)
    run("mount", "-t", "tmpfs", "-o", f"size={disk},mode=0700", "tmpfs", str(home))
    try:
        one.start()
        yield one
    finally:
        one.stop()
        run("umount", "-l", str(home))


def python_there(folder: Path) -> Path:
    """An interpreter by a short name, as a board file would say it."""
    path = folder / "python3"
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    path.chmod(0o755)
    return path


def run(*words: str, check: bool = True, **environment: str) -> str:
    path = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **path, **environment},
    )
    assert done.returncode == 0 or not check, f"{words}: {done.stderr}"
    return done.stdout
