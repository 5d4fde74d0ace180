"""An open bench process on a board: requests out, answers in, its errors raised here, never a hang."""

from __future__ import annotations

import collections
import contextlib
import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from edgekit.errors import DeviceError, error_of
from edgekit.profile import answers

_END = ""  # what the reader puts when the output closes; every line has at least its line feed
LONGEST = 1 << 26  # characters of one answer: ten times the samples of a minute at 100 microseconds
_WAITING = 16  # answers that nobody has asked for yet; beyond, the board has to wait
_LINK_LOST = 255  # the exit code of ssh when the link is gone, not the command
GRACE_S = 5.0  # between closing its input and killing it
_TAIL = 12  # lines of standard error that are shown


class Remote:
    """Speaks with one `edgekit.bench` process. label: whom errors name (`x86-cpu: prune int8 openvino`)."""

    def __init__(self, process: subprocess.Popen[str], label: str):
        self._process = process
        self._label = label
        self._lines: queue.Queue[str] = queue.Queue(_WAITING)
        self._errors: collections.deque[str] = collections.deque(maxlen=_TAIL)
        self._started(self._read_answers, process.stdout)
        self._error_reader = self._started(self._read_errors, process.stderr)

    def ask(self, request: str, timeout_s: float, **fields: Any) -> dict[str, Any]:
        """One request, one answer.

        Raises:
            EdgekitError: what the board answered, in its own class.
            DeviceError: the process ended, sent something else than an answer, or was silent for timeout_s.
        """
        asked_s = time.monotonic()
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"request": request, **fields}) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError):
            raise self._ended(request) from None
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise self._error(f"no answer to '{request}' within {timeout_s:.0f} s") from None
        if line == _END:
            raise self._ended(request)
        return self._parsed(request, line, time.monotonic() - asked_s)

    def close(self) -> None:
        """Ends the process by closing its input; one that does not end within the grace is killed."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _parsed(self, request: str, line: str, took_s: float) -> dict[str, Any]:
        if len(line) > LONGEST:
            raise self._error(f"the answer to '{request}' is longer than {LONGEST} characters")
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
            raise self._error(f"the answer to '{request}' is not one: {line.strip()[:200]!r}")
        if not answer.pop("ok"):
            raise error_of(answer, self._label)
        if reason := answers.doubt(request, answer, took_s):
            raise self._error(f"the answer to '{request}' cannot be true: {reason}")
        return answer

    def _ended(self, request: str) -> DeviceError:
        self._error_reader.join(GRACE_S)  # its last words may still be on their way
        with contextlib.suppress(subprocess.TimeoutExpired):  # it closed its output, and lives on
            self._process.wait(timeout=GRACE_S)
        if self._process.returncode == _LINK_LOST:
            what = f"the link to the board was lost at '{request}'"
            return self._error(what, next="see that it is on and in the network, then run the same command again")
        return self._error(f"the bench process ended at '{request}' (exit code {self._process.returncode})")

    def _error(self, what: str, next: str | None = None) -> DeviceError:
        return DeviceError(f"{self._label}: {what}.", why="\n".join(self._errors) or None, next=next)

    def _read_answers(self, stream: IO[str]) -> None:
        with contextlib.suppress(ValueError):  # not even text, or closed by us
            while line := stream.readline(LONGEST + 1):
                self._lines.put(line)
        self._lines.put(_END)

    def _read_errors(self, stream: IO[str]) -> None:
        with contextlib.suppress(ValueError):
            while line := stream.readline(LONGEST + 1):
                self._errors.append(line.rstrip()[:500])

    def _started(self, target: Callable[[IO[str]], None], stream: IO[str] | None) -> threading.Thread:
        assert stream is not None, "Link.bench opens all three pipes"
        thread = threading.Thread(target=target, args=(stream,), daemon=True)
        thread.start()
        return thread
