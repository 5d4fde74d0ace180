"""What a rule is, what it finds, and for which versions of a runtime it holds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgekit.errors import UsageError
from edgekit.lint.graph import Graph

Severity = Literal["error", "warning"]
Version = tuple[int, ...]
NEWEST: Version = (9999,)  # above every release
# A rule yields the node (None for the whole file) and what is wrong there.
Found = Iterable[tuple[Any, str]]
Check = Callable[[Graph], Found]
Runtimes = Mapping[str, str]  # runtime -> versions it holds for: ">=8.5", "<11", ">=8.5,<11"; "" is every version


@dataclass(frozen=True)
class Rule:
    """check: yields (node, what). cost: what the finding costs. remedy: what to do instead."""

    check: Check
    severity: Severity
    runtimes: Runtimes
    cost: str
    remedy: str

    def holds(self, runtime: str, version: Version) -> bool:
        """Whether the rule is meant for a version of a runtime."""
        wanted = self.runtimes.get(runtime)
        return wanted is not None and all(_meets(version, bound) for bound in wanted.split(",") if bound)


def parse_version(text: str) -> Version:
    """`10.3.0` -> (10, 3, 0).

    Raises:
        UsageError: it is no version.
    """
    if not re.fullmatch(r"\d{1,4}(\.\d{1,6})*", text):
        raise UsageError(f"'{text}' is no version", next="write it as 10.3 or 10.3.0.30")
    return tuple(int(part) for part in text.split("."))


def _meets(version: Version, bound: str) -> bool:
    if bound.startswith(">="):
        return version >= parse_version(bound[2:])
    return version < parse_version(bound.removeprefix("<"))
