"""The boards' host keys that the user has confirmed, in a known_hosts file of edgekit's own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.device import config_folder
from edgekit.errors import DeviceError, InputError

SCAN_S = 10


@dataclass(frozen=True)
class HostKey:
    """line: as known_hosts has it. fingerprint: `SHA256:...`, what the board's own screen shows."""

    line: str
    kind: str
    fingerprint: str


def known_hosts() -> Path:
    """The file of pinned keys, beside the user's boards."""
    return config_folder().parent / "known_hosts"


def scan(host: str, port: int) -> list[HostKey]:
    """The keys that the host shows now. They prove nothing until the user has compared a fingerprint.

    Raises:
        DeviceError: it cannot be reached, or shows no key.
    """
    name, resolved_port = _resolved(host, port)
    words = ["ssh-keyscan", "-T", str(SCAN_S // 2), "-p", resolved_port, "-t", "ed25519,ecdsa,rsa", "--", name]
    try:
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=4 * SCAN_S, check=False)
    except subprocess.TimeoutExpired:
        done = subprocess.CompletedProcess(words, 1, "", "it did not answer in time")
    keys = [_key(line) for line in done.stdout.splitlines() if line and not line.startswith("#")]
    if not keys:
        raise DeviceError(
            f"{host}: the board shows no host key on port {resolved_port}.",
            why=done.stderr.strip() or None,
            next=f"see that it is on: ssh -p {resolved_port} {host}; behind a jump host write its line into "
            f"{known_hosts()} yourself",
        )
    return sorted(keys, key=lambda key: key.kind != "ssh-ed25519")


def pin(keys: Sequence[HostKey]) -> None:
    """Puts the keys into the file, in place of any that it had for the host."""
    host = keys[0].line.split()[0]
    path = known_hosts()
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.read_text().splitlines() if path.is_file() else []
    kept = [line for line in old if line.split()[:1] != [host]]
    work = path.with_name(f"{path.name}.{os.getpid()}")
    work.write_text("".join(f"{line}\n" for line in [*kept, *(key.line for key in keys)]))
    work.replace(path)  # whole or not at all


def matching(keys: Sequence[HostKey], fingerprint: str) -> list[HostKey]:
    """The key with the fingerprint that the user says the board has.

    Raises:
        InputError: none has it: it may not be that board.
    """
    found = [key for key in keys if key.fingerprint == fingerprint]
    if not found:
        shown = ", ".join(f"{key.fingerprint} ({key.kind})" for key in keys)
        raise InputError(
            f"--fingerprint {fingerprint}: the board shows another key: {shown}.",
            next="read it on the board itself: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
        )
    return found


def _key(line: str) -> HostKey:
    """ssh-keygen -lf prints `256 SHA256:... host (ED25519)`."""
    command = ["ssh-keygen", "-lf", "-"]
    done = subprocess.run(command, input=line, capture_output=True, text=True, timeout=SCAN_S, check=False)
    words = done.stdout.split()
    if done.returncode != 0 or len(words) < 2 or len(line.split()) < 3:
        raise DeviceError(f"ssh-keyscan: not a host key: {line[:100]!r}")
    return HostKey(line, line.split()[1], words[1])


def _resolved(host: str, port: int) -> tuple[str, str]:
    """Host name and port as the user's ssh_config has them for this host (`ssh -G`)."""
    command = ["ssh", "-G", "-p", str(port), "--", host]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SCAN_S, check=False)
    facts = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    return facts.get("hostname", host.rpartition("@")[2]), facts.get("port", str(port))
