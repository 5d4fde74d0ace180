"""Compare: the same candidates in two runs or two profile files, for CI. What cannot be compared is refused.

Two runs are not interleaved, so their rounds are paired in order only to weigh their scatter. A candidate regressed if
its p50 is more than `max_regress` above the old one and the 95 % interval of the ratio lies above 1, or if the 95 %
interval of its accuracy lies below the old one's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import GateError, InputError
from edgekit.ledger import paired_ratio
from edgekit.statistics import Interval

# What must be the same; of the device, what it says of itself. None (unknown) on both sides is the same.
LOAD = ("scenario", "scope", "batch", "threads", "input_kind")
DEVICE = ("model", "cpu", "machine", "cores_allowed", "power_mode", "clocks", "governor")


@dataclass(frozen=True)
class Side:
    """One candidate of one file. conditions: what must be the same for a comparison to mean anything."""

    name: str
    board: str
    state: str
    p50_ms: float | None
    rounds_p50_ms: tuple[float, ...]
    accuracy: Mapping[str, Any] | None
    conditions: Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """Old against new. ratio: new p50 over old, above 1 is slower. accuracy: change in points, below 0 is worse."""

    name: str
    board: str
    before_ms: float
    after_ms: float
    ratio: Interval | None
    accuracy: float | None
    regressions: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """changes: by candidate. unmatched: candidates that stand in one file alone."""

    changes: tuple[Change, ...]
    unmatched: tuple[str, ...]

    @property
    def regressions(self) -> tuple[str, ...]:
        return tuple(sentence for change in self.changes for sentence in change.regressions)

    def check(self) -> None:
        """Raises: GateError: something regressed."""
        if self.regressions:
            raise GateError(
                "\n".join(self.regressions), next="profile both again, interleaved, if the machine was busy"
            )


def compare(a: Path, b: Path, max_regress: float) -> Comparison:
    """The candidates of `b` (new) against those of `a` (old): run folders, report.json, ledger.json or profile files.

    max_regress: share (0.05 for 5 %) that a p50 may grow by.

    Raises:
        InputError: a file is none of ours, nothing is in both, or the conditions differ; says which.
    """
    old, new = sides(a), sides(b)
    pairs = _pairs(old, new)
    if not pairs:
        raise InputError(f"{a} and {b} have no candidate in common", why=f"{_names(old)} against {_names(new)}")
    different = [sentence for one, other in pairs for sentence in _differences(one, other)]
    if different:
        why = "\n       ".join(different)
        raise InputError(f"{a} and {b} cannot be compared", why=why, next="measure both under the same conditions")
    unmatched = [s.name for side in (old, new) for s in side if not any(s in pair for pair in pairs)]
    return Comparison(tuple(_change(one, other, max_regress) for one, other in pairs), tuple(unmatched))


def sides(path: Path) -> list[Side]:
    """The candidates in a run folder or a file."""
    file = path / "report.json" if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
        return [side for record in _objects(text) for side in _sides_of(record, file)]
    except OSError as error:
        raise InputError(f"{file}: cannot be read", why=str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file}: this is neither a report nor a profile of edgekit", why=repr(error)) from error


def _objects(text: str) -> list[Any]:
    """One JSON value, or one a line."""
    try:
        value = json.loads(text)
    except ValueError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    return value if isinstance(value, list) else [value]


def _sides_of(record: Mapping[str, Any], file: Path) -> list[Side]:
    schema = record.get("schema")
    if schema == "edgekit.report/1":
        return [_side(final, final["p50"]["value"]) for final in record["ledger"]["finals"]]
    if schema == "edgekit.ledger/1":
        return [_side(final, final["p50"]["value"]) for final in record["finals"]]
    if schema == "edgekit.profile/1":
        return [_side(_flat(record), record["latency_ms"]["p50"])]
    raise InputError(f"{file}: schema {schema!r} cannot be compared; give a run folder, a report.json or a profile")


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A profile's record with the keys of a ledger's final."""
    load = {**record["load"], "input_kind": record["load"]["input"], "state": record["validity"]["state"]}
    rounds = record["window"].get("rounds_p50_ms", ())
    return {**record, **load, "name": record["candidate"]["name"], "rounds_p50_ms": rounds}


def _side(final: Mapping[str, Any], p50_ms: float | None) -> Side:
    device = {f"device {key}": final["device"].get(key) for key in DEVICE}
    conditions = {"board": final["board"], **{key: final[key] for key in LOAD}, **device}
    rounds = tuple(final["rounds_p50_ms"])
    return Side(final["name"], final["board"], final["state"], p50_ms, rounds, final["accuracy"], conditions)


def _pairs(old: list[Side], new: list[Side]) -> list[tuple[Side, Side]]:
    """By name, board and scenario; a file with a single candidate is held against the other's single one."""
    if len(old) == len(new) == 1:
        return [(old[0], new[0])]
    return [(one, other) for one in old for other in new if _key(one) == _key(other)]


def _key(side: Side) -> tuple[str, str, str]:
    return side.name, side.board, side.conditions["scenario"]


def _differences(one: Side, other: Side) -> list[str]:
    """Why the two cannot be compared: one sentence for each condition that differs."""
    found = [
        f"{one.name}: {key} was {before!r}, is {other.conditions[key]!r}"
        for key, before in one.conditions.items()
        if before != other.conditions[key]
    ]
    for side, which in ((one, "old"), (other, "new")):
        if side.state == "invalid" or side.p50_ms is None:
            found.append(f"{side.name}: the {which} measurement is invalid or has no median")
    return found


def _change(one: Side, other: Side, max_regress: float) -> Change:
    before, after = one.p50_ms or 0.0, other.p50_ms or 0.0  # both known: _differences refused the others
    ratio = paired_ratio(other.rounds_p50_ms, one.rounds_p50_ms)
    where, sentences, points = f"{other.name} on {other.board}", [], None
    if after > before * (1 + max_regress) and (ratio is None or ratio.low > 1):
        grown = f"p50 {before:.4g} ms to {after:.4g} ms, {100 * (after / before - 1):+.1f} %"
        sentences.append(f"{where} became slower: {grown}, allowed {100 * max_regress:g} %.")
    if one.accuracy is not None and other.accuracy is not None:
        points = round(100 * (other.accuracy["value"] - one.accuracy["value"]), 9)
        if other.accuracy["ci95"][1] < one.accuracy["ci95"][0]:
            sentences.append(f"{where} became less accurate: {points:+.2f} points, beyond the noise.")
    return Change(other.name, other.board, before, after, ratio, points, tuple(sentences))


def _names(found: list[Side]) -> str:
    return ", ".join(sorted({side.name for side in found})) or "none"
