"""The system's OpenSSH client, by argument list: strict host keys, nothing asked, one connection that is shared.

What the user's ssh_config says of the host holds (aliases, ProxyJump, keys, agent); the host's key must be the one that
`edgekit devices add` pinned. Commands are scripts of ours; what they work on comes as arguments, quoted.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

from edgekit.errors import DependencyError, DeviceError
from edgekit.links.ssh.host_keys import known_hosts

CONNECT_S = 5
READY_S = 30.0  # connecting, key exchange and login together
COMMAND_S = 60.0
_LOST = 255  # ssh's own exit code: the connection, not the command
_READY = b"edgekit-ready"
_OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "GlobalKnownHostsFile": "/dev/null",
    "UpdateHostKeys": "no",
    "ConnectTimeout": str(CONNECT_S),
    "ServerAliveInterval": "2",
    "ServerAliveCountMax": "2",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "EscapeChar": "none",
    "RemoteCommand": "none",
    "RequestTTY": "no",
}


class Client:
    """One shared connection to a host, open until close().

    Raises:
        DeviceError: unreachable, another host key, or the login is refused.
    """

    def __init__(self, host: str, port: int):
        if shutil.which("ssh") is None:
            raise DependencyError("no ssh client is installed.", next="apt-get install openssh-client")
        self.host, self._port = host, port
        self._folder = Path(tempfile.mkdtemp(prefix="edgekit-"))  # 0700: whoever reaches the socket is logged in
        self._words = ["ssh", *_options(known_hosts()), "-p", str(port), "-S", str(self._folder / "socket")]
        try:
            self._shared = self._connected()
        except BaseException:
            self.close()
            raise

    def run(
        self,
        script: str,
        *arguments: str,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        timeout_s: float = COMMAND_S,
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a script of ours on the board; its arguments are $1, $2, ...

        Raises:
            DeviceError: the connection is gone, or the command took longer than timeout_s.
        """
        try:
            done = subprocess.run(
                [*self._words, "-o", "ControlMaster=no", "--", self.host, _command(script, arguments)],
                stdin=stdin or subprocess.DEVNULL,
                stdout=stdout or subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=timeout_s,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{self.host}: the board did not answer within {timeout_s:.0f} s.") from None
        if done.returncode == _LOST:
            raise self.error(done.stderr.decode(errors="replace"))
        return done

    def start(self, script: str, *arguments: str) -> subprocess.Popen[str]:
        """Starts a script of ours with all three pipes; it ends when its standard input closes."""
        return subprocess.Popen(
            [*self._words, "-o", "ControlMaster=no", "--", self.host, _command(script, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",  # whatever a board sends is text that can be refused
            start_new_session=True,  # Ctrl-C is ours alone: the board is put in order before the link closes
        )

    def close(self) -> None:
        """Ends the connection and everything on it."""
        shared = getattr(self, "_shared", None)
        if shared is not None:
            end(shared)
        shutil.rmtree(self._folder, ignore_errors=True)

    def error(self, said: str) -> DeviceError:
        """What ssh's words mean, and what to do about it."""
        return _error(self.host, self._port, said)

    def _connected(self) -> subprocess.Popen[bytes]:
        """The shared connection. Its command only waits for its input to close: it cannot outlive us."""
        with open(self._folder / "said", "wb") as said:
            shared = subprocess.Popen(
                [
                    *self._words,
                    "-o",
                    "ControlMaster=yes",
                    "--",
                    self.host,
                    _command("echo edgekit-ready; exec cat", ()),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,
            )
        if not _says(shared, _READY, READY_S):
            end(shared)
            raise self.error((self._folder / "said").read_text(errors="replace"))
        return shared


def end(process: subprocess.Popen[bytes] | subprocess.Popen[str], grace_s: float = 5.0) -> None:
    """Closes a process's input, which ends it; one that does not end within the grace is killed."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(timeout=grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _options(hosts: Path) -> list[str]:
    named = {**_OPTIONS, "UserKnownHostsFile": f'"{hosts}"'}
    return ["-T", *(word for name, value in named.items() for word in ("-o", f"{name}={value}"))]


def _command(script: str, arguments: tuple[str, ...]) -> str:
    """One string, which is all that ssh sends; every word is quoted for whatever shell the user has there."""
    return shlex.join(["sh", "-c", script, "edgekit", *arguments])


def _says(process: subprocess.Popen[bytes], word: bytes, timeout_s: float) -> bool:
    """Whether the process prints the word in time (a login may print more before it)."""
    assert process.stdout is not None
    until, text = time.monotonic() + timeout_s, b""
    while word not in text and len(text) < 1 << 16:
        if not select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
            return False
        read = os.read(process.stdout.fileno(), 4096)
        if not read:
            return False
        text += read
    return word in text


def _error(host: str, port: int, said: str) -> DeviceError:
    why = "\n".join(line for line in said.splitlines() if line.strip(" @\r")) or None
    add = f"edgekit devices add NAME --ssh {host} --port {port} --base DEVICE"
    if "HOST IDENTIFICATION HAS CHANGED" in said:
        next_ = f"if you set it up anew: {add}; if not, somebody stands between: ask who, before you go on"
        return DeviceError(f"{host}: the host key is another than the one that was pinned.", why=why, next=next_)
    if re.search(r"host key is known for|Host key verification failed", said):
        return DeviceError(f"{host}: its host key was never pinned.", why=why, next=add)
    if "Permission denied" in said:
        login = f"let your key in: ssh-copy-id -p {port} {host}, and load it into your ssh-agent"
        return DeviceError(f"{host}: the board refuses the login.", why=why, next=login)
    return DeviceError(
        f"{host}: the board cannot be reached, or the link to it was lost.",
        why=why,
        next=f"see that it is on and in the network: ssh -p {port} {host}",
    )
