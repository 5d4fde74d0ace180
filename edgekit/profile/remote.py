"""An open bench process on a board: requests out, answers in, its errors raised here, never a hang."""

from __future__ import annotations

import collections
import contextlib
import json
import queue
import subprocess
import threading
from collections.abc import Callable
from typing import IO, Any

from edgekit import errors
from edgekit.errors import DeviceError, EdgekitError

_END = ""  # what the reader puts when the output closes; every line has at least its line feed
GRACE_S = 5.0  # between closing its input and killing it
_TAIL = 12  # lines of standard error that are shown


class Remote:
    """Speaks with one `edgekit.bench` process. label: whom errors name (`x86-cpu: prune int8 openvino`)."""

    def __init__(self, process: subprocess.Popen[str], label: str):
        self._process = process
        self._label = label
        self._lines: queue.Queue[str] = queue.Queue()
        self._errors: collections.deque[str] = collections.deque(maxlen=_TAIL)
        self._started(self._read_answers, process.stdout)
        self._error_reader = self._started(self._read_errors, process.stderr)

    def ask(self, request: str, timeout_s: float, **fields: Any) -> dict[str, Any]:
        """One request, one answer.

        Raises:
            EdgekitError: what the board answered, in its own class.
            DeviceError: the process ended, sent something else than an answer, or was silent for timeout_s.
        """
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"request": request, **fields}) + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise self._ended(request) from None
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise self._error(f"no answer to '{request}' within {timeout_s:.0f} s") from None
        if line == _END:
            raise self._ended(request)
        return self._parsed(request, line)

    def close(self) -> None:
        """Ends the process by closing its input; one that does not end within the grace is killed."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _parsed(self, request: str, line: str) -> dict[str, Any]:
        try:
            answer = json.loads(line)
        except json.JSONDecodeError:
            answer = None
        if not isinstance(answer, dict) or "ok" not in answer:
            raise self._error(f"the answer to '{request}' is not one: {line.strip()[:200]!r}")
        if answer.pop("ok"):
            return answer
        kind = getattr(errors, str(answer.get("error")), None)
        if not (isinstance(kind, type) and issubclass(kind, EdgekitError)) or kind is errors.RecipeError:
            kind = DeviceError
        raise kind(f"{self._label}: {answer.get('what')}", why=answer.get("why"), next=answer.get("next"))

    def _ended(self, request: str) -> DeviceError:
        self._error_reader.join(GRACE_S)  # its last words may still be on their way
        code = self._process.wait(timeout=GRACE_S) if self._process.poll() is None else self._process.returncode
        return self._error(f"the bench process ended at '{request}' (exit code {code})")

    def _error(self, what: str) -> DeviceError:
        return DeviceError(f"{self._label}: {what}.", why="\n".join(self._errors) or None)

    def _read_answers(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put(_END)

    def _read_errors(self, stream: IO[str]) -> None:
        self._errors.extend(line.rstrip() for line in stream)

    def _started(self, target: Callable[[IO[str]], None], stream: IO[str] | None) -> threading.Thread:
        assert stream is not None, "Link.bench opens all three pipes"
        thread = threading.Thread(target=target, args=(stream,), daemon=True)
        thread.start()
        return thread
