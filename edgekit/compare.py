"""Compare: the same candidates in two runs or two profile files, for CI. What cannot be compared is refused.

Two runs are not interleaved, so their rounds are paired in order only to weigh their scatter. A candidate regressed if
its p50 is more than `max_regress` above the old one and the 95 % interval of the ratio lies above 1, or if the 95 %
interval of its accuracy lies below the old one's.

What was fastest is held against every other candidate once more, each side in its own interleaved rounds: confirmed,
inside the noise (an interval holds 1), or reversed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from edgekit.errors import GateError, InputError, UsageError
from edgekit.ledger import finite, paired_ratio
from edgekit.report.table import UNKNOWN, Table, ms, times
from edgekit.report.terminal import console_on, rich_table, say
from edgekit.statistics import Interval

# What must be the same; of the device, what it says of itself. None (unknown) on both sides is the same.
LOAD = ("scenario", "scope", "batch", "streams", "threads", "input_kind")
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
class Order:
    """The fastest of the old candidates against another one. before, after: its time over the other's."""

    fastest: str
    other: str
    board: str
    scenario: str
    before: Interval
    after: Interval

    @property
    def state(self) -> Literal["confirmed", "inside the noise", "reversed"]:
        if any(ratio.low <= 1 <= ratio.high for ratio in (self.before, self.after)):
            return "inside the noise"
        return "confirmed" if self.after.high < 1 else "reversed"

    def __str__(self) -> str:
        told = f"time over {self.other}'s on {self.board}: {self.before} before, {self.after} now"
        return f"{self.fastest} was the fastest, {self.state}: {told}"


@dataclass(frozen=True)
class Comparison:
    """changes: by candidate. orders: of those in both files. unmatched: candidates that stand in one file alone."""

    changes: tuple[Change, ...]
    orders: tuple[Order, ...]
    unmatched: tuple[str, ...]

    @property
    def regressions(self) -> tuple[str, ...]:
        return tuple(sentence for change in self.changes for sentence in change.regressions)

    def as_dict(self) -> dict[str, Any]:
        orders = [{**asdict(order), "state": order.state} for order in self.orders]
        record: dict[str, Any] = finite({**asdict(self), "orders": orders, "regressions": self.regressions})
        return record

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
    changes = tuple(_change(one, other, max_regress) for one, other in pairs)
    return Comparison(changes, tuple(_orders(pairs)), tuple(unmatched))


def share(percent: str) -> float:
    """`5%` -> 0.05.

    Raises:
        UsageError: anything else; a bare number would be read as a share by some and as percent by others.
    """
    number = percent.removesuffix("%").strip()
    if not percent.endswith("%") or not number.replace(".", "", 1).isdigit():
        raise UsageError(f"--max-regress: '{percent}' is no percentage.", next="write 5%")
    return float(number) / 100


def show(found: Comparison, stream: TextIO | None = None) -> None:
    """Old and new times on the terminal, whether the fastest is still the fastest, and what regressed."""
    console = console_on(stream)
    headings = ("candidate", "old p50 ms", "new p50 ms", "new / old", "accuracy")
    lines = tuple(
        (change.name, ms(change.before_ms), ms(change.after_ms), times(change.ratio, wide=True), _points(change))
        for change in found.changes
    )
    regressed = tuple(bool(change.regressions) for change in found.changes)
    console.print(rich_table("Old against new; what regressed is bold", Table(headings, lines, regressed)))
    for place in dict.fromkeys((order.fastest, order.board, order.scenario) for order in found.orders):
        here = [order for order in found.orders if (order.fastest, order.board, order.scenario) == place]
        again = sum(order.state == "confirmed" for order in here)
        name, board, scenario = place
        say(
            console,
            "order",
            "dim",
            f"{name} was the fastest, confirmed against {again} of {len(here)} ({scenario}, {board})",
        )
    for order in found.orders:
        if order.state != "confirmed":
            say(console, "order", "yellow", str(order))
    for name in found.unmatched:
        say(console, "note", "yellow", f"{name} stands in one of the two alone")


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
    if schema == "edgekit.profiles/1":
        return [side for row in record["profiles"] for side in _sides_of(row, file)]
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
    cores = {"cores": final["engine"].get("cores")}
    conditions = {"board": final["board"], **{key: final[key] for key in LOAD}, **cores, **device}
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


def _orders(pairs: list[tuple[Side, Side]]) -> Iterator[Order]:
    """For each board and scenario, the fastest old candidate against every other."""
    for place in dict.fromkeys((one.board, str(one.conditions["scenario"])) for one, _ in pairs):
        here = [pair for pair in pairs if (pair[0].board, pair[0].conditions["scenario"]) == place]
        fastest = min(here, key=lambda pair: pair[0].p50_ms or 0.0)
        for other in here:
            before = paired_ratio(fastest[0].rounds_p50_ms, other[0].rounds_p50_ms)
            after = paired_ratio(fastest[1].rounds_p50_ms, other[1].rounds_p50_ms)
            if other is not fastest and before is not None and after is not None:
                yield Order(fastest[1].name, other[1].name, *place, before, after)


def _points(change: Change) -> str:
    return UNKNOWN if change.accuracy is None else f"{change.accuracy:+.2f}"


def _names(found: list[Side]) -> str:
    return ", ".join(sorted({side.name for side in found})) or "none"
