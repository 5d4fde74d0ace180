"""The user's boards: one is added when its host key has been confirmed, and tested by sending the agent there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgekit import lookup, resources
from edgekit.device import Board, config_folder
from edgekit.errors import InputError, did_you_mean
from edgekit.links.ssh import host_keys
from edgekit.profile.remote import Remote

HELLO_S = 60.0
THERE = "there"


def add(
    name: str,
    host: str,
    *,
    port: int,
    base: str,
    python: str,
    fingerprint: str | None,
    confirm: Callable[[str], bool],
) -> Path:
    """Pins the host key of a board and writes its file; returns the file.

    fingerprint: `SHA256:...` as the board itself shows it; None asks confirm() about the keys that the network shows.

    Raises:
        InputError: a name or a base that cannot be, another board of that name, or a key that was not confirmed.
        DeviceError: the board cannot be reached.
    """
    path = config_folder() / f"{name}.yaml"
    text = f"base: {base}\nlink: {{ssh: {json.dumps(host)}, port: {port}, python: {json.dumps(python)}}}\n"
    _check(name, host, base)
    if path.is_file() and path.read_text() != text:
        raise InputError(f"{path} is there already, for another board.", next="choose another name, or remove it")
    keys = host_keys.scan(host, port)
    if fingerprint is not None:
        keys = host_keys.matching(keys, fingerprint)
    elif not confirm(shown := ", ".join(f"{key.fingerprint} ({key.kind})" for key in keys)):
        raise InputError(
            f"{name}: its host key was not confirmed; nothing is pinned.",
            why=f"the network shows {shown}",
            next="read it on the board (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub) and give --fingerprint",
        )
    host_keys.pin(keys)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def missing(board: Board, runtime: str) -> str | None:
    """Why a runtime cannot run on a board; None where it can. A board behind a link is asked.

    Raises:
        DeviceError, DependencyError: it cannot be reached, or lacks what every runtime needs.
    """
    if board.link == "local":
        reason: str | None = lookup.find("runtimes", runtime).missing()
        return reason
    found = probe(board)
    if found["emulated"]:
        return f"on {board.name}: its processor is emulated, nothing can be timed there"
    said = found["runtimes"][runtime]
    return None if said == THERE else f"on {board.name}: {said}"


def probe(board: Board) -> dict[str, Any]:
    """What a board says of itself, once the agent is there: machine, runtimes or what to install, clocks.

    Raises:
        DeviceError, DependencyError: what is missing, and what to do about it.
    """
    with lookup.find("links", board.link).open_link(board.link_settings) as link:
        remote = Remote(link.bench(), board.name)
        try:
            device = remote.ask("hello", HELLO_S)["device"]
        finally:
            remote.close()
        notes = list(link.notes)
    known = {
        key: device.get(key)
        for key in ("model", "cpu", "system", "emulated", "python", "cores_allowed", "memory_bytes")
    }
    runtimes = {runtime: reason or THERE for runtime, reason in device.get("missing", {}).items()}
    used = {runtime: runtimes.get(runtime) for runtime in board.device.runtimes}
    state = {"power_mode": device.get("power_mode"), "clocks": device.get("clocks")}
    return {"board": board.name, "base": board.device.name, **known, "runtimes": used, **state, "notes": notes}


def _check(name: str, host: str, base: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise InputError(f"'{name}' cannot be a board's name: letters, digits, - and _.")
    if base not in resources.devices():
        raise InputError(f"--base: no device is called '{base}'." + did_you_mean(base, resources.devices()))
    if not re.fullmatch(r"[^-\s]\S*", host):
        raise InputError(f"--ssh: '{host}' is no host.", next="write user@host, or a name of your ssh_config")
