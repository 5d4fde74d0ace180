"""Ledger: accuracy and speed after every step, and of every file that is a candidate for shipping.

The baseline of every drop and ratio is the model entering the first distill, prune or quantize stage.
Drops are points: 100 * (accuracy of the baseline - accuracy). Ratios pair interleaved rounds (statistics.ratio).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from edgekit.errors import InputError
from edgekit.profile import Accuracy, Energy, Profile
from edgekit.statistics import Interval, Percentile, ratio

SCHEMA = "edgekit.ledger/1"
COMPRESSING = ("distill", "prune", "quantize")
FLOAT = ("float32", "float16", "bf16")


@dataclass(frozen=True)
class Row:
    """One step. Its model was exported plainly and measured briefly on the goal's board; n: samples of that.

    kind: the stage (`finetune`, `distill`, ...), or `original` for the model as it was given.
    seconds: the work of the step, when it was done. cached: it was taken from an earlier run.
    metrics, notes: what the stage said (Outcome).
    """

    step: str
    kind: str
    accuracy: Accuracy | None
    parameters: int
    macs: int
    bytes: int
    p50_ms: float | None
    p99: Percentile | None
    n: int
    cached: bool
    seconds: float
    metrics: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Final:
    """One candidate on one board in one scenario: what the file itself did, and against what it is held.

    rounds_p50_ms: medians of the interleaved rounds, in the order they ran: all that a later ratio needs.
    accuracy_drop: points below the baseline; speedup: over the baseline in the same runtime.
    speedup_over_float: over `float_reference`, the smallest float candidate in the same runtime.
    """

    name: str
    step: str
    runtime: str
    precision: str
    board: str
    file: str
    sha256: str
    bytes: int
    parameters: int | None
    macs: int | None
    accuracy: Accuracy | None
    accuracy_drop: float | None
    p50: Percentile
    p99: Percentile
    rounds_p50_ms: tuple[float, ...]
    speedup: Interval | None
    speedup_over_float: Interval | None
    float_reference: str | None
    scenario: str = "single-stream"
    scope: str = "host"
    batch: int = 1
    streams: int = 1
    threads: int = 1
    input_kind: str = "test set"
    steady: bool = True
    energy: Energy | None = None
    device: Mapping[str, Any] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)
    deadline: Mapping[str, Any] | None = None
    thermal: Mapping[str, Any] | None = None
    state: Literal["valid", "degraded", "invalid"] = "valid"
    reasons: tuple[str, ...] = ()

    @property
    def is_float(self) -> bool:
        return self.precision in FLOAT

    @property
    def size_kb(self) -> float:
        return self.bytes / 1000

    def time_over(self, other: Final) -> Interval | None:
        """Its time over the other's, below 1 where this one is faster; None where the rounds cannot be paired."""
        return paired_ratio(self.rounds_p50_ms, other.rounds_p50_ms)


class Ledger:
    """Grows step by step; `finals` are worked out from the profiles once all of them are known."""

    def __init__(self, rows: tuple[Row, ...] = (), finals: tuple[Final, ...] = ()):
        self.rows = rows
        self.finals = finals

    def add(self, row: Row) -> None:
        self.rows = (*self.rows, row)

    def add_finals(self, profiles: list[Profile]) -> None:
        """All profiles at once, since each is held against others of them."""
        self.finals = tuple(self._final(profile, profiles) for profile in profiles)

    @property
    def baseline(self) -> Row | None:
        """The step whose model enters the first distill, prune or quantize stage; the last one if there is none."""
        before = [row.kind in COMPRESSING for row in self.rows]
        first = before.index(True) if True in before else len(self.rows)
        return self.rows[first - 1] if first else None

    def row(self, step: str) -> Row | None:
        return next((row for row in self.rows if row.step == step), None)

    def drop(self, accuracy: Accuracy | None, baseline: Accuracy | None) -> float | None:
        """Points below the baseline; negative where it is better. Rounded, so that 0.980 - 0.965 is 1.5 points."""
        return None if accuracy is None or baseline is None else round(100 * (baseline.value - accuracy.value), 9)

    def as_dict(self) -> dict[str, Any]:
        baseline = self.baseline
        return {
            "schema": SCHEMA,
            "baseline": baseline.step if baseline else None,
            "rows": [finite(asdict(row)) for row in self.rows],
            "finals": [finite(asdict(final)) for final in self.finals],
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Ledger:
        """Raises: InputError: the record is no ledger of this schema."""
        if record.get("schema") != SCHEMA:
            raise InputError(f"expected a ledger of schema {SCHEMA}, found {record.get('schema')!r}")
        rows = tuple(Row(**_records(row)) for row in record["rows"])
        return cls(rows, tuple(Final(**_records(final)) for final in record["finals"]))

    def _final(self, profile: Profile, others: list[Profile]) -> Final:
        peers = [p for p in others if _comparable(p, profile)]
        base_step = self.baseline.step if self.baseline else None
        base = _first([p for p in peers if p.candidate.label == base_step and p.candidate.precision == "float32"])
        floats = [p for p in peers if p.candidate.precision in FLOAT]
        small = min(
            floats, key=lambda p: (p.candidate.artifact.bytes, p.candidate.precision != "float32"), default=None
        )
        row = self.row(profile.candidate.label)
        return Final(
            **_measured(profile),
            parameters=row.parameters if row else None,
            macs=row.macs if row else None,
            accuracy_drop=self.drop(profile.accuracy, self._baseline_accuracy(base)),
            speedup=_speedup(profile, base),
            speedup_over_float=_speedup(profile, small),
            float_reference=small.candidate.name if small else None,
        )

    def _baseline_accuracy(self, base: Profile | None) -> Accuracy | None:
        """Of the baseline's file in the same runtime; where that was not profiled, of the step as it was measured."""
        if base is not None and base.accuracy is not None:
            return base.accuracy
        return self.baseline.accuracy if self.baseline else None


def paired_ratio(a_ms: tuple[float, ...], b_ms: tuple[float, ...]) -> Interval | None:
    """a over b from medians of rounds; None where there are no rounds, or not as many of one as of the other."""
    if not a_ms or len(a_ms) != len(b_ms):
        return None
    return ratio([np.array([ms]) for ms in a_ms], [np.array([ms]) for ms in b_ms])


def _comparable(a: Profile, b: Profile) -> bool:
    keys = ("board", "scenario", "scope", "batch", "streams", "threads")
    return a.candidate.runtime == b.candidate.runtime and all(getattr(a, key) == getattr(b, key) for key in keys)


def _first(profiles: list[Profile]) -> Profile | None:
    return profiles[0] if profiles else None


def _medians(profile: Profile) -> tuple[float, ...]:
    return tuple(float(np.median(samples)) for samples in profile.rounds_ms if len(samples))


def _speedup(profile: Profile, other: Profile | None) -> Interval | None:
    """How many times faster than `other`; None for itself."""
    if other is None or other is profile:
        return None
    return paired_ratio(_medians(other), _medians(profile))


def _measured(profile: Profile) -> dict[str, Any]:
    """What a Final takes from the profile as it is."""
    candidate = profile.candidate
    same = "board accuracy scenario scope batch streams threads input_kind steady energy device engine deadline thermal"
    return {
        "name": candidate.name,
        "step": candidate.label,
        "runtime": candidate.runtime,
        "precision": candidate.precision,
        "file": candidate.artifact.path.name,
        "sha256": candidate.artifact.sha256,
        "bytes": candidate.artifact.bytes,
        "p50": profile.percentile(50),
        "p99": profile.percentile(99),
        "rounds_p50_ms": _medians(profile),
        **{key: getattr(profile, key) for key in (*same.split(), "state", "reasons")},
    }


def finite(value: Any) -> Any:
    """As JSON values: tuples as lists, an infinite bound as null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, np.generic):
        return finite(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _records(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Row or Final with their records made again."""
    kinds: dict[str, Any] = {"accuracy": _accuracy, "energy": lambda e: Energy(**e)}
    kinds |= {"p50": lambda p: Percentile(**p), "p99": lambda p: Percentile(**p)}
    kinds |= {"speedup": _interval, "speedup_over_float": _interval}
    kinds |= {"notes": tuple, "reasons": tuple, "rounds_p50_ms": tuple}
    return {key: kinds[key](value) if key in kinds and value is not None else value for key, value in record.items()}


def _accuracy(record: Mapping[str, Any]) -> Accuracy:
    low, high = record["ci95"]
    return Accuracy(record["value"], record["n"], (low, high), record["metric"])


def _interval(record: Mapping[str, Any]) -> Interval:
    return Interval(record["value"], record["low"], math.inf if record["high"] is None else record["high"])
