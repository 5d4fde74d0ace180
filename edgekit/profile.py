"""One candidate on one board: agrees with the model? accuracy, speed, energy, doubts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from edgekit.artifact import Candidate
from edgekit.statistics import Interval, Percentile, percentile


@dataclass(frozen=True)
class Accuracy:
    """Top-1 accuracy of the file itself, in its runtime. value: share, 0 to 1. ci95: Wilson interval."""

    value: float
    n: int
    ci95: tuple[float, float]
    metric: str = "top1"


@dataclass(frozen=True)
class Energy:
    """Joules per inference over the exact window of the load. A value that could not be read is None; `reason` says why."""

    j_per_inference: float | None
    j_per_inference_net: float | None
    watts_mean: float | None
    watts_idle: float | None
    rail: str | None
    samples: int
    reason: str | None = None


@dataclass(frozen=True)
class Profile:
    """What one candidate did on one board.

    rounds_ms: milliseconds of every inference, one array a round (rounds of several candidates are interleaved).
    scope:     what a sample spans: `host` is submit to result, without preprocessing.
    engine:    what really ran, read back from the runtime.
    state:     valid, degraded or invalid; reasons say why.
    outputs:   what the file gave for the inputs, by output name, first axis the image; not written to JSON.
    """

    candidate: Candidate
    board: str
    device: Mapping[str, Any]
    engine: Mapping[str, Any]
    rounds_ms: tuple[np.ndarray, ...]
    scenario: str = "single-stream"
    scope: str = "host"
    batch: int = 1
    threads: int = 1
    input_kind: str = "test set"
    warmup_s: float = 0.0
    steady: bool = True
    accuracy: Accuracy | None = None
    energy: Energy | None = None
    deadline: Mapping[str, Any] | None = None
    thermal: Mapping[str, Any] | None = None
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

    def speedup_over(self, other: Profile) -> Interval:
        """How many times faster than `other`, with its 95 % interval (rounds paired in the order they ran)."""
        raise NotImplementedError
