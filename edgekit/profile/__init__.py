"""One candidate on one board: accuracy, speed, energy, doubts; several are measured round by round in turn."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import lookup
from edgekit.artifact import Candidate
from edgekit.bench import loads
from edgekit.errors import InputError, did_you_mean
from edgekit.profile import doubts
from edgekit.profile.record import Accuracy, Energy, Profile
from edgekit.profile.rounds import LONGEST_ROUND_S, ROUNDS, SHORTEST_ENERGY_S, Measured, Plan, measure
from edgekit.statistics import wilson

if TYPE_CHECKING:
    from edgekit.device import Board

__all__ = ["Accuracy", "Energy", "Inputs", "Profile", "profile"]

SCOPES = ("host", "e2e")


def profile(
    candidates: Sequence[Candidate],
    board: Board,
    inputs: Inputs,
    *,
    seconds: float,
    scenario: str = "single-stream",
    scope: str = "host",
    threads: int = 1,
    cores: Sequence[int] | None = None,
    rounds: int | None = None,
    soak: bool = False,
    accuracy: bool = True,
    report: Callable[[str], None] | None = None,
) -> list[Profile]:
    """Measures every candidate for `seconds` on the board, in rounds that take turns (A B C A B C ...).

    seconds:  also sets the warm-up: until three windows agree, of a fifth of it, of one second at most.
    scope:    `host` times submit to result; `e2e` the preprocessing of an image before it too.
    cores:    of the board, that the bench processes may run on; None leaves them all.
    rounds:   five by default, more where one would last longer than 30 s.
    soak:     takes rounds of 30 s until the temperature settles, whatever `seconds` and `rounds` say.
    accuracy: also runs all inputs through the opened files, for `outputs`, and for top-1 where there are labels.
    report:   takes a line of progress at a time.

    Raises:
        InputError: there is no such scenario or scope, or the one cannot be measured in the other.
        DependencyError: a runtime is missing on the board, or does not offer the precision asked for.
        DeviceError: a bench process ended, sent something else than an answer, or fell silent.
    """
    kind, _ = loads.parse(scenario)
    if scope not in SCOPES:
        raise InputError(f"scope '{scope}': unknown." + did_you_mean(scope, SCOPES))
    if scope == "e2e" and kind == "offline":
        raise InputError("scope e2e: `offline` loads inputs that are prepared beforehand.", next="take scope host")
    at = None if cores is None else tuple(cores)
    arrays, preprocess = inputs.by_name(), inputs.preprocess
    rounds = rounds or max(ROUNDS, math.ceil(seconds / LONGEST_ROUND_S))
    plan = Plan(seconds, scenario, scope, threads, at, rounds, soak, arrays, preprocess, infer=accuracy)
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with lookup.find("links", board.link).open_link(board.link_settings) as link:
        measured = measure(candidates, board.name, link, plan, report or (lambda line: None))
    return [_profile(one, board.name, started, inputs, plan) for one in measured]


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


def _profile(one: Measured, board: str, started: str, inputs: Inputs, plan: Plan) -> Profile:
    broken = [name for name, values in one.outputs.items() if not np.isfinite(values).all()]
    wrong = [f"output '{name}' holds NaN or infinity" for name in broken]
    doubtful = list(doubts.of_rounds(one.rounds_ms, one.windows, one.warmup["steady"]))
    if plan.soak and one.temperature_c is not None and not one.has_settled:
        doubtful.append("the temperature had not settled when the soak ended: cool the board and soak it again")
    memory = [answer["peak_memory_bytes"] for answer in one.rounds]
    row = Profile(
        candidate=one.candidate,
        board=board,
        device=one.device,
        engine=one.engine,
        rounds_ms=one.rounds_ms,
        started=started,
        scenario=plan.scenario,
        scope=plan.scope,
        batch=one.rounds[-1]["batch"],
        streams=one.rounds[-1]["streams"],
        threads=int(one.options["threads"]),
        input_kind=inputs.kind,
        load_s=sum(window["window_s"] for window in one.windows),
        warmup_s=one.warmup["warmup_s"],
        steady=one.warmup["steady"],
        accuracy=_accuracy(one.outputs, inputs.labels),
        energy=_energy(one),
        deadline=_deadline([answer["deadline"] for answer in one.rounds if "deadline" in answer]),
        thermal=_thermal(one, plan.soak),
        peak_memory_bytes=max((peak for peak in memory if peak is not None), default=None),
        layers=one.layers,
        state="invalid" if wrong else "degraded" if doubtful else "valid",
        reasons=tuple(wrong + doubtful),
        outputs=one.outputs,
    )
    return _without_times(row) if one.device.get("emulated") else row


def _without_times(row: Profile) -> Profile:
    """What an emulator computes is right; how long it takes says nothing about any processor."""
    reason = "the board's processor is emulated: its times mean nothing, and are not shown"
    return replace(
        row,
        rounds_ms=(),
        load_s=0.0,
        warmup_s=0.0,
        deadline=None,
        layers=(),
        energy=Energy(reason=reason),
        state="invalid",
        reasons=(reason, *row.reasons),
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
        return Energy(reason=one.energy["reason"] or f"{one.energy['rail']}: a reading failed")
    if seconds < SHORTEST_ENERGY_S:
        return Energy(reason=f"the window of {seconds:.1f} s is shorter than {SHORTEST_ENERGY_S:.0f} s")
    count = sum(len(samples) for samples in one.rounds_ms) * one.rounds[-1]["batch"]
    idle_w = None if one.idle is None or one.idle["energy_j"] is None else one.idle["energy_j"] / one.idle["window_s"]
    net = None if idle_w is None else (sum(joules) - idle_w * seconds) / count
    watts = sum(joules) / seconds
    return Energy(sum(joules) / count, net, watts, idle_w, rail=one.energy["rail"], samples=2 * len(joules))


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


def _thermal(one: Measured, soak: bool) -> dict[str, Any]:
    """settled: of a soak, whether the temperature stood still at its end; None where it cannot be read."""
    clocks = [window["mhz"] for window in one.windows if window["mhz"] is not None]
    throttles = [window["throttles"] for window in one.windows if window["throttles"] is not None]
    known = one.temperature_c is not None
    return {
        "temperature_c": [one.windows[0]["temperature_c"][0], one.temperature_c],
        "mhz": [min(clocks), max(clocks)] if clocks else None,
        "throttles": sum(throttles) if throttles else None,
        **({"settled": one.has_settled if known else None} if soak else {}),
    }
