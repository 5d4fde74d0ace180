"""One candidate on one board: accuracy, speed, energy, doubts; several are measured round by round in turn."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgekit import lookup
from edgekit.artifact import Candidate
from edgekit.errors import InputError
from edgekit.profile import doubts
from edgekit.profile.rounds import STEADY_S, Measured, Plan, measure
from edgekit.statistics import Interval, Percentile, percentile, ratio, variation, wilson

if TYPE_CHECKING:
    from edgekit.device import Board

SCHEMA = "edgekit.profile/1"
SHORTEST_ENERGY_S = 5.0


def profile(
    candidates: Sequence[Candidate],
    board: Board,
    inputs: Inputs,
    *,
    seconds: float,
    scenario: str = "single-stream",
    threads: int = 1,
    rounds: int = 5,
    accuracy: bool = True,
    warmup_s: float = STEADY_S,
    report: Callable[[str], None] | None = None,
) -> list[Profile]:
    """Measures every candidate for `seconds` on the board, in rounds that take turns (A B C A B C ...).

    accuracy: also runs all inputs through the opened files, for `outputs`, and for top-1 where there are labels.
    warmup_s: a shorter warm-up gives times that are only roughly right, and are never said to be steady.
    report:   takes a line of progress at a time.

    Raises:
        DependencyError: a runtime is missing on the board, or does not offer the precision asked for.
        DeviceError: a bench process ended, sent something else than an answer, or fell silent.
    """
    plan = Plan(seconds, scenario, threads, rounds, inputs.by_name(), inputs.preprocess, accuracy, warmup_s)
    with lookup.find("links", board.link).open_link(board.link_settings) as link:
        measured = measure(candidates, board.name, link, plan, report or (lambda line: None))
    return [_profile(one, board.name, inputs, plan) for one in measured]


@dataclass(frozen=True)
class Inputs:
    """What is fed to the files.

    arrays: values by input name, first axis the sample; or one array for the only input, such as uint8 images
            [n, h, w, c] with the `preprocess` (Preprocess.as_dict) that makes network inputs of them.
    labels: int64 [n], None where nothing is known. kind: said in every row, `random` where the values mean nothing.
    """

    arrays: Mapping[str, np.ndarray] | np.ndarray
    labels: np.ndarray | None = None
    preprocess: Mapping[str, Any] | None = None
    kind: str = "test set"

    def __post_init__(self) -> None:
        lengths = {name: len(array) for name, array in self.by_name().items()}
        if not lengths or 0 in lengths.values():
            raise InputError("inputs: there are no samples to feed.")
        if self.labels is not None and len(self.labels) != next(iter(lengths.values())):
            raise InputError(f"inputs: {len(self.labels)} labels for {next(iter(lengths.values()))} samples.")

    def by_name(self) -> dict[str, np.ndarray]:
        """One array alone goes by the empty name: it is the only input's, whatever a file calls it."""
        return {"": self.arrays} if isinstance(self.arrays, np.ndarray) else dict(self.arrays)


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

    @property
    def per_s(self) -> float | None:
        """Samples a second while the load ran."""
        return self.batch * len(self.samples_ms) / float(self.samples_ms.sum()) * 1e3 if len(self.samples_ms) else None

    def speedup_over(self, other: Profile) -> Interval:
        """How many times faster than `other`, with its 95 % interval (rounds paired in the order they ran)."""
        return ratio(other.rounds_ms, self.rounds_ms)

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON values (schema edgekit.profile/1); samples and outputs are left out, unknown is None."""
        return {
            "schema": SCHEMA,
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
                "threads": self.threads,
                "input": self.input_kind,
            },
            "window": {
                "warmup_s": self.warmup_s,
                "steady": self.steady,
                "rounds": len(self.rounds_ms),
                "n": len(self.samples_ms),
            },
            "latency_ms": self._latency(),
            "per_s": self.per_s,
            "accuracy": None if self.accuracy is None else asdict(self.accuracy),
            "deadline": None if self.deadline is None else dict(self.deadline),
            "energy": None if self.energy is None else asdict(self.energy),
            "thermal": None if self.thermal is None else dict(self.thermal),
            "layers": [dict(layer) for layer in self.layers],
            "validity": {"state": self.state, "reasons": list(self.reasons)},
        }

    def write_samples(self, path: Path) -> None:
        """All samples as JSON lines, one object a round."""
        with path.open("w", encoding="utf-8") as stream:
            for number, samples in enumerate(self.rounds_ms):
                row = {"candidate": self.candidate.name, "board": self.board, "scenario": self.scenario}
                stream.write(json.dumps({**row, "round": number, "latency_ms": samples.tolist()}) + "\n")

    def _latency(self) -> dict[str, float | None]:
        samples = self.samples_ms
        p99 = self.percentile(99)
        return {
            "p50": self.p50_ms,
            "p90": self.percentile(90).value,
            "p95": self.percentile(95).value,
            "p99": p99.value,
            "p99_upper99": p99.upper,
            "p99_9": self.percentile(99.9).value,
            "max": float(samples.max()) if len(samples) else None,
            "mean": float(samples.mean()) if len(samples) else None,
            "cv": variation(samples.tolist()) if len(samples) > 1 else None,
        }


def _profile(one: Measured, board: str, inputs: Inputs, plan: Plan) -> Profile:
    broken = [name for name, values in one.outputs.items() if not np.isfinite(values).all()]
    wrong = [f"output '{name}' holds NaN or infinity" for name in broken]
    doubtful = list(doubts.of_rounds(one.rounds_ms, one.windows, one.warmup["steady"]))
    return Profile(
        candidate=one.candidate,
        board=board,
        device=one.device,
        engine=one.engine,
        rounds_ms=one.rounds_ms,
        scenario=plan.scenario,
        batch=one.rounds[-1]["batch"],
        threads=int(one.options["threads"]),
        input_kind=inputs.kind,
        warmup_s=one.warmup["warmup_s"],
        steady=one.warmup["steady"],
        accuracy=_accuracy(one.outputs, inputs.labels),
        energy=_energy(one),
        deadline=_deadline([answer["deadline"] for answer in one.rounds if "deadline" in answer]),
        thermal=_thermal(one.windows),
        layers=one.layers,
        state="invalid" if wrong else "degraded" if doubtful else "valid",
        reasons=tuple(wrong + doubtful),
        outputs=one.outputs,
    )


def _accuracy(outputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> Accuracy | None:
    """Top-1 over the first output, shape [n, classes]."""
    if labels is None or not outputs:
        return None
    scores = next(iter(outputs.values()))
    if len(scores) != len(labels):
        raise InputError(f"accuracy: the first output has {len(scores)} rows for {len(labels)} labels.")
    correct = int((scores.reshape(len(labels), -1).argmax(axis=1) == labels).sum())
    return Accuracy(correct / len(labels), len(labels), wilson(correct, len(labels)))


def _energy(one: Measured) -> Energy:
    """Joules of all rounds' windows over their inferences; net of what the idle board takes in that time."""
    joules = [window["energy_j"] for window in one.windows]
    seconds = sum(window["window_s"] for window in one.windows)
    if None in joules:
        return Energy(None, None, None, None, None, 0, "the board's energy counter cannot be read")
    if seconds < SHORTEST_ENERGY_S:
        reason = f"the window of {seconds:.1f} s is shorter than {SHORTEST_ENERGY_S:.0f} s"
        return Energy(None, None, None, None, None, 0, reason)
    count = sum(len(samples) for samples in one.rounds_ms) * one.rounds[-1]["batch"]
    idle_w = None if one.idle is None or one.idle["energy_j"] is None else one.idle["energy_j"] / one.idle["window_s"]
    net = None if idle_w is None else (sum(joules) - idle_w * seconds) / count
    return Energy(sum(joules) / count, net, sum(joules) / seconds, idle_w, "RAPL package", 2 * len(joules))


def _deadline(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The camera's rounds together: counts add up, the longest run is the longest of any round."""
    if not rounds:
        return None
    frames, missed = sum(one["frames"] for one in rounds), sum(one["missed"] for one in rounds)
    return {
        "ms": rounds[0]["ms"],
        "frames": frames,
        "missed": missed,
        "missed_pct": 100 * missed / frames,
        "max_run": max(one["max_run"] for one in rounds),
        "dropped": sum(one["dropped"] for one in rounds),
        "drop": rounds[0]["drop"],
    }


def _thermal(windows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    clocks = [window["mhz"] for window in windows if window["mhz"] is not None]
    throttles = [window["throttles"] for window in windows if window["throttles"] is not None]
    return {
        "temperature_c": [windows[0]["temperature_c"][0], windows[-1]["temperature_c"][1]],
        "mhz": [min(clocks), max(clocks)] if clocks else None,
        "throttles": sum(throttles) if throttles else None,
    }
