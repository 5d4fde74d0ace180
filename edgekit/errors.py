"""The tree of errors. Each class carries the exit code of the command line (a public contract):

EdgekitError                  1   a bug in edgekit
├── UsageError                2   the command line is wrong
├── InputError                3   a file, a weight or a data folder that was given is wrong
│   └── RecipeError           3   the recipe is wrong; holds every problem, each with file:line:column
├── DependencyError           4   a package or a piece of hardware is missing
├── GateError                 5   goal, accuracy or parity gate not met; everything is kept
├── DeviceError               6   a board is unreachable, or what it sent is invalid
├── ResourceError             7   disk or memory ran out
├── NumericsError             8   NaN, infinity or divergence
├── IntegrityError            9   a file is not what its checksum says, or is unsafe to load
├── LockedError              75   another process writes this run folder
└── Interrupted         130/143   Ctrl-C or SIGTERM; the run can be resumed

Every message has one shape: what and where, why, what was kept, what to type next.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, Dict, Iterable, Mapping, Optional, Sequence


class EdgekitError(Exception):
    """What went wrong, and what to do about it.

    what: one line, beginning with the place where there is one (`tiny.yaml:14:5 prune.epoch: unknown field`).
    why:  the cause, when it is not plain from `what`.
    kept: what survived (a run folder, finished steps).
    next: the command or the edit that mends it.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        why: Optional[str] = None,
        kept: Optional[str] = None,
        next: Optional[str] = None,
    ):
        super().__init__(what)
        self.what = what
        self.why = why
        self.kept = kept
        self.next = next

    def lines(self) -> Iterable[str]:
        """The message as it is shown, one part a line."""
        yield self.what
        for label, text in (("why", self.why), ("kept", self.kept), ("next", self.next)):
            if text:
                yield f"  {label}: {text}"

    def as_dict(self) -> Dict[str, object]:
        """The same as one JSON object, for `--json`."""
        return {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "what": self.what,
            "why": self.why,
            "kept": self.kept,
            "next": self.next,
        }

    def __str__(self) -> str:
        return "\n".join(self.lines())


class UsageError(EdgekitError):
    exit_code = 2


class InputError(EdgekitError):
    exit_code = 3


@dataclass(frozen=True)
class Problem:
    """One mistake in a recipe. line and column count from 1; 0 where the mistake has no place in the file."""

    file: str
    line: int
    column: int
    field: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place} {self.field}: {self.message}" if self.field else f"{place}: {self.message}"


class RecipeError(InputError):
    """All problems of a recipe at once."""

    def __init__(self, problems: Sequence[Problem], *, next: Optional[str] = None):
        super().__init__("\n".join(str(problem) for problem in problems), next=next)
        self.problems = tuple(problems)

    def as_dict(self) -> Dict[str, object]:
        return {**super().as_dict(), "problems": [vars(problem) for problem in self.problems]}


class DependencyError(EdgekitError):
    exit_code = 4


class GateError(EdgekitError):
    exit_code = 5


class DeviceError(EdgekitError):
    exit_code = 6


class ResourceError(EdgekitError):
    exit_code = 7


class NumericsError(EdgekitError):
    exit_code = 8


class IntegrityError(EdgekitError):
    exit_code = 9


class LockedError(EdgekitError):
    exit_code = 75


class Interrupted(EdgekitError):
    """Stopped from outside; `signal` is 2 (Ctrl-C) or 15 (SIGTERM)."""

    def __init__(self, what: str, *, signal: int = 2, **parts: Optional[str]):
        super().__init__(what, **parts)
        self.exit_code = 128 + signal


def error_of(record: Mapping[str, Any], who: str) -> EdgekitError:
    """The error that another process sent as `as_dict`, in its class; whom it came from stands first."""
    kind = globals().get(str(record.get("error")))
    if not (isinstance(kind, type) and issubclass(kind, EdgekitError)) or kind is RecipeError:
        kind = DeviceError
    parts = {name: None if record.get(name) is None else str(record[name]) for name in ("why", "next")}
    return kind(f"{who}: {record.get('what')}", **parts)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """` Did you mean 'epochs'?`, or the choices when nothing is near, or nothing when there are none."""
    known = sorted(choices)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f" Did you mean '{near[0]}'?"
    return f" Choose one of: {', '.join(known)}." if known else ""
