"""A board behind SSH: the agent and the files go there by hash, the bench runs there, and nothing is left running.

On the board stands one folder, ~/.cache/edgekit: `files/<sha256>` (the agent, models, inputs), `tmp/` for the time of a
measurement, `lock`. One connection carries everything; the board is held by `edgekit.bench.hold`, which puts it in
order when the connection ends, whatever ended it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import select
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.artifact import sha256_of
from edgekit.errors import DeviceError, InputError, error_of
from edgekit.links import Link
from edgekit.links.ssh.agent_zip import agent_zip
from edgekit.links.ssh.board_python import check_python
from edgekit.links.ssh.client import Client, end

BENCH_S = 12 * 3600  # the board itself ends a bench that is forgotten
HOLD_S = 150.0  # another edgekit's lock, then nvpmodel and jetson_clocks
SIGN_S = 5.0  # `hold` lets go after 20 s without a sign
SLOWEST_BYTES_S = 50_000
LARGEST_RESULT_BYTES = 4 * 10**9

# Exit codes of the scripts. Where fewer bytes than the whole came (30), the link broke: the rest may follow.
_DISK, _OTHER_BYTES = 28, 29
_PREPARE = (
    'umask 077; root="${XDG_CACHE_HOME:-$HOME/.cache}/edgekit"; '
    'mkdir -p "$root/files" "$root/tmp" || exit 28; cd "$root" && echo "edgekit-root $(pwd -P)"'
)
# Prints `done` where the file stands and is whole, else the bytes of it that have arrived.
_HAS = (
    'cd "$1/files" || exit 1; if [ -f "$2" ] && [ "$(sha256sum < "$2")" = "$3  -" ]; then touch "$2"; echo done; '
    'elif [ -f "$2.part" ] && [ "$(wc -c < "$2.part")" -le "$4" ]; then wc -c < "$2.part"; '
    'else rm -f "$2.part"; echo 0; fi'
)
# Appends what comes.
_SEND = (
    'cd "$1/files" || exit 1; cat >> "$2.part" || { rm -f "$2.part"; exit 28; }; '
    '[ "$(wc -c < "$2.part")" -ge "$4" ] || exit 30; '
    '[ "$(sha256sum < "$2.part")" = "$3  -" ] || { rm -f "$2.part"; exit 29; }; mv "$2.part" "$2"'
)
_GET = 'head -c "$2" < "$1"'
# exec: no shell stays between the signal and the bench.
_RUN = (
    'cd "$1" || exit 1; root=$1 seconds=$2 agent=$3 python=$4; shift 4; '
    'exec timeout -k 2 "$seconds" env ORT_DISABLE_TELEMETRY=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 '
    'PYTHONUNBUFFERED=1 TMPDIR="$root/tmp" PYTHONPATH="$root/files/$agent" "$python" -m "$@"'
)
# Its process number, by which `hold` ends a bench that a lost link has left there.
_BENCH = 'echo $$ > "$1/tmp/$$.pid" || exit 28; ' + _RUN


def open_link(settings: Mapping[str, Any]) -> Link:
    """The board, connected, held and in its power mode, with the agent on it.

    settings: host, port, python, power_mode (None leaves it), as `device.open_board` gives them.

    Raises:
        DeviceError: unreachable, another host key, held by another edgekit, or its disk is full.
        DependencyError: no Python 3.8 or no numpy there.
    """
    return SshLink(**settings)


class SshLink(Link):
    def __init__(self, host: str, port: int = 22, python: str = "python3", power_mode: str | None = None):
        self.host, self._python = host, python
        self._ends = contextlib.ExitStack()
        try:
            self._client = Client(host, port)
            self._ends.callback(self._client.close)
            self._root = self._prepared()
            check_python(self._client, python)
            self._agent = self._put_agent()
            self._hold = self._start(_RUN, "edgekit.bench.hold", self._root)
            self._ends.callback(end, self._hold, 30.0)  # jetson_clocks and nvpmodel put everything back
            self.notes = self._held(power_mode)
        except BaseException:
            self.close()
            raise

    def put(self, path: Path, sha256: str, companions: Sequence[Path] = ()) -> str:
        for companion in companions:
            self._put(companion, sha256_of(companion), _name(companion, sha256, path.stem))
        return self._put(path, sha256, _name(path, sha256, path.stem))

    def get(self, remote: str, path: Path) -> None:
        with open(path, "wb") as stream:
            done = self._client.run(_GET, remote, str(LARGEST_RESULT_BYTES), stdout=stream, timeout_s=600.0)
        if done.returncode != 0:
            raise DeviceError(f"{self.host}: {Path(remote).name} did not come back.", why=_said(done))
        if path.stat().st_size >= LARGEST_RESULT_BYTES:
            raise DeviceError(f"{self.host}: {Path(remote).name} is larger than {LARGEST_RESULT_BYTES / 1e9:g} GB.")

    def bench(self) -> subprocess.Popen[str]:
        return self._start(_BENCH, "edgekit.bench")

    def close(self) -> None:
        """Puts the board back in order, then ends the connection."""
        self._ends.close()

    def _put(self, path: Path, sha256: str, name: str) -> str:
        size = path.stat().st_size
        sent = self._arrived(name, sha256, size)
        while sent is not None:
            sent = self._send(path, name, sha256, size, sent)
        return f"{self._root}/files/{name}"

    def _start(self, script: str, *module: str) -> subprocess.Popen[str]:
        return self._client.start(script, self._root, str(BENCH_S), self._agent, self._python, *module)

    def _prepared(self) -> str:
        """The absolute path of our folder there."""
        done = self._client.run(_PREPARE)
        found = re.search(rb"edgekit-root (/[^\n]+)\n", done.stdout)
        if done.returncode == _DISK:
            raise _disk_full(self.host, _said(done))
        if done.returncode != 0 or found is None:
            raise DeviceError(f"{self.host}: no folder could be made in the home folder there.", why=_said(done))
        return found[1].decode()

    def _put_agent(self) -> str:
        """The agent's file name in `files/`."""
        content = agent_zip()
        digest = hashlib.sha256(content).hexdigest()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "agent.zip"
            path.write_bytes(content)
            return Path(self.put(path, digest)).name

    def _held(self, power_mode: str | None) -> tuple[str, ...]:
        """The board is ours, in its power mode; what could not be done is said."""
        answer = _asked(self.host, self._hold, {"power_mode": power_mode})
        stopped = threading.Event()
        threading.Thread(target=_give_signs, args=(self._hold, stopped), daemon=True).start()
        self._ends.callback(stopped.set)
        return () if answer.get("locked") else (f"clocks are not locked: {answer.get('why')}",)

    def _arrived(self, name: str, sha256: str, size: int) -> int | None:
        """Bytes of the file that are there; None where all are."""
        done = self._client.run(_HAS, self._root, name, sha256, str(size))
        said = done.stdout.split()[-1:] or [b""]
        if done.returncode != 0 or not re.fullmatch(rb"done|\d+", said[0]):
            raise DeviceError(f"{self.host}: the board does not say what files it has.", why=_said(done))
        return None if said[0] == b"done" else int(said[0])

    def _send(self, path: Path, name: str, sha256: str, size: int, sent: int) -> int | None:
        """Sends the file from byte `sent`; None when it has arrived whole, 0 to begin again (once)."""
        with open(path, "rb", buffering=0) as stream:
            stream.seek(sent)
            done = self._client.run(
                _SEND, self._root, name, sha256, str(size), stdin=stream, timeout_s=60 + size / SLOWEST_BYTES_S
            )
        if done.returncode == _DISK:
            raise _disk_full(self.host, _said(done))
        if done.returncode == _OTHER_BYTES and sent > 0:
            return 0  # what had arrived before was something else
        if done.returncode != 0:
            raise DeviceError(f"{self.host}: {path.name} did not arrive whole.", why=_said(done), next="try again")
        return None


def _asked(host: str, hold: subprocess.Popen[str], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of `hold` to its one request, or the error that it is."""
    assert hold.stdin is not None
    assert hold.stdout is not None
    with contextlib.suppress(OSError):
        hold.stdin.write(json.dumps(wanted) + "\n")
        hold.stdin.flush()
    line = hold.stdout.readline(1 << 16) if select.select([hold.stdout], [], [], HOLD_S)[0] else ""
    try:
        answer = json.loads(line)
        ok = answer.pop("ok")
    except (ValueError, AttributeError, KeyError, TypeError):
        raise _no_agent(host, hold, line) from None
    if ok:
        return dict(answer)
    raise error_of(answer, host)


def _no_agent(host: str, hold: subprocess.Popen[str], line: str) -> DeviceError:
    """What it wrote in place of an answer: a traceback, or what the login there prints."""
    said = ""
    with contextlib.suppress(subprocess.TimeoutExpired):
        said = hold.communicate(timeout=5.0)[1]
    next_ = "if that is what a login there prints, print it only where there is a terminal ([ -t 1 ] && ...)"
    return DeviceError(
        f"{host}: the agent did not start.",
        why=(line.strip()[:500] or said.strip()[-500:]) or None,
        next=next_ if line.strip() else None,
    )


def _give_signs(hold: subprocess.Popen[str], stopped: threading.Event) -> None:
    """Tells `hold` that we live: when the link is cut, it frees the board by itself."""
    assert hold.stdin is not None
    with contextlib.suppress(OSError, ValueError):
        while not stopped.wait(SIGN_S):
            hold.stdin.write("\n")
            hold.stdin.flush()


def _name(path: Path, sha256: str, stem: str) -> str:
    """What a file is called on the board: a hash in place of its stem, and the suffixes by which runtimes know it.

    Raises:
        InputError: a companion of another stem, or a suffix that no file of ours has.
    """
    suffixes = path.name[len(stem) :]
    if not re.fullmatch(r"[0-9a-f]{64}", sha256) or not path.name.startswith(stem):
        raise InputError(f"{path}: is not '{stem}' with a suffix, or its hash is none: {sha256!r}")
    if not re.fullmatch(r"(\.[A-Za-z0-9]{1,16}){0,3}", suffixes):
        raise InputError(f"{path}: '{suffixes}' is no suffix of a model's file.")
    return sha256 + suffixes


def _disk_full(host: str, why: str | None) -> DeviceError:
    return DeviceError(
        f"{host}: a file could not be written; the board's disk is full, or cannot be written to.",
        why=why,
        next="free some there (df -h ~; edgekit's own files stand in ~/.cache/edgekit/files)",
    )


def _said(done: subprocess.CompletedProcess[bytes]) -> str | None:
    return (done.stderr or b"").decode(errors="replace").strip()[-500:] or None
