"""What was measured, as records: one row per candidate, board and scenario, with its raw samples."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgekit import __version__
from edgekit.artifact import Candidate
from edgekit.statistics import Interval, Percentile, drift, percentile, ratio, variation

SCHEMA = "edgekit.profile/1"
QUANTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p99_9": 99.9}


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy of the file itself, in its runtime. value: share, 0 to 1. ci95: Wilson interval."""

    value: float
    n: int
    ci95: tuple[float, float]
    metric: str = "top1"


@dataclass(frozen=True)
class Energy:
    """Joules per inference over the exact window of the load. What cannot be read is None; `reason` says why."""

    j_per_inference: float | None = None
    j_per_inference_net: float | None = None
    watts_mean: float | None = None
    watts_idle: float | None = None
    rail: str | None = None
    samples: int = 0
    reason: str | None = None


@dataclass(frozen=True)
class Profile:
    """What one candidate did on one board.

    started:   when the measurement began, UTC.
    rounds_ms: milliseconds of every inference, one array a round (rounds of several candidates are interleaved).
    scope:     what a sample spans: `host` is submit to result with the runtime's copies, `e2e` an image in memory to
               the result.
    streams:   sessions that ran at once (offline). load_s: how long the load ran, all rounds together.
    engine:    what really ran, read back from the runtime.
    state:     valid, degraded or invalid; reasons say why.
    outputs:   what the file gave for the inputs, by output name, first axis the image; not written to JSON.
    """

    candidate: Candidate
    board: str
    device: Mapping[str, Any]
    engine: Mapping[str, Any]
    rounds_ms: tuple[np.ndarray, ...]
    started: str | None = None
    scenario: str = "single-stream"
    scope: str = "host"
    batch: int = 1
    streams: int = 1
    threads: int = 1
    input_kind: str = "test set"
    load_s: float | None = None
    warmup_s: float = 0.0
    steady: bool = True
    accuracy: Accuracy | None = None
    energy: Energy | None = None
    deadline: Mapping[str, Any] | None = None
    thermal: Mapping[str, Any] | None = None
    peak_memory_bytes: int | None = None
    layers: tuple[Mapping[str, Any], ...] = ()
    state: Literal["valid", "degraded", "invalid"] = "valid"
    reasons: tuple[str, ...] = ()
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @property
    def samples_ms(self) -> np.ndarray:
        """All rounds in one array."""
        return np.concatenate(self.rounds_ms) if self.rounds_ms else np.empty(0)

    def percentile(self, q: float) -> Percentile:
        """Percentile q (0 to 100) with the sample count it needs and its upper bound."""
        return percentile(self.samples_ms, q)

    @property
    def p50_ms(self) -> float | None:
        return self.percentile(50).value

    @property
    def p99_ms(self) -> float | None:
        return self.percentile(99).value

    @property
    def per_s(self) -> float | None:
        """Samples a second while the load ran; of a camera, the frames that were not dropped."""
        return self.batch * len(self.samples_ms) / self.load_s if self.load_s else None

    @property
    def last_over_first(self) -> float | None:
        """Median of the last round over that of the first; above 1 the board became slower."""
        return drift(self.rounds_ms) if self.rounds_ms else None

    def speedup_over(self, other: Profile) -> Interval:
        """How many times faster than `other`, with its 95 % interval (rounds paired in the order they ran)."""
        return ratio(other.rounds_ms, self.rounds_ms)

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON values (schema edgekit.profile/1); samples and outputs are left out, unknown is None."""
        return {
            "schema": SCHEMA,
            "run": {"started": self.started, "edgekit": __version__},
            "candidate": {
                "name": self.candidate.name,
                "label": self.candidate.label,
                "runtime": self.candidate.runtime,
                "precision": self.candidate.precision,
                "options": dict(self.candidate.options),
                "artifact": self.candidate.artifact.as_dict(),
            },
            "board": self.board,
            "device": dict(self.device),
            "engine": dict(self.engine),
            "load": {
                "scenario": self.scenario,
                "scope": self.scope,
                "batch": self.batch,
                "streams": self.streams,
                "threads": self.threads,
                "input": self.input_kind,
            },
            "window": {
                "warmup_s": self.warmup_s,
                "steady": self.steady,
                "load_s": self.load_s,
                "rounds": len(self.rounds_ms),
                "rounds_p50_ms": [float(np.median(samples)) for samples in self.rounds_ms],
                "last_over_first": self.last_over_first,
                "n": len(self.samples_ms),
            },
            "latency_ms": self._latency(),
            "per_s": self.per_s,
            "accuracy": None if self.accuracy is None else asdict(self.accuracy),
            "deadline": None if self.deadline is None else dict(self.deadline),
            "energy": None if self.energy is None else asdict(self.energy),
            "thermal": None if self.thermal is None else dict(self.thermal),
            "peak_memory_bytes": self.peak_memory_bytes,
            "layers": [dict(layer) for layer in self.layers],
            "validity": {"state": self.state, "reasons": list(self.reasons)},
        }

    def write_samples(self, path: Path) -> None:
        """All samples as JSON lines, one object a round."""
        path.write_text("".join(line + "\n" for line in self.sample_lines()), encoding="utf-8")

    def sample_lines(self) -> Iterator[str]:
        row = {"candidate": self.candidate.name, "board": self.board, "scenario": self.scenario}
        for number, samples in enumerate(self.rounds_ms):
            yield json.dumps({**row, "round": number, "latency_ms": samples.tolist()})

    def _latency(self) -> dict[str, float | None]:
        """`_upper99`: the one-sided 99 % bound of the percentile beside it."""
        samples = self.samples_ms
        found = {name: self.percentile(q) for name, q in QUANTILES.items()}
        return {
            **{name: one.value for name, one in found.items()},
            **{f"{name}_upper99": one.upper for name, one in found.items()},
            "max": float(samples.max()) if len(samples) else None,
            "mean": float(samples.mean()) if len(samples) else None,
            "cv": variation(samples.tolist()) if len(samples) > 1 else None,
        }
