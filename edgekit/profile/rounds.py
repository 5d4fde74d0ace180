"""Loads several candidates on one board in rounds that take turns (A B C A B C ...), everyone else idle.

Interleaving gives all of them the same share of whatever the machine does meanwhile; a round that was disturbed is
measured once more, and then kept with its doubts.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.artifact import Candidate, sha256_of
from edgekit.links import Link
from edgekit.profile import doubts
from edgekit.profile.remote import Remote

WARMUP_WINDOW_S = 1.0  # three of them must agree; a fifth of the load where that is shorter
IDLE_S = 10.0  # of a board whose energy can be read
SHORTEST_ENERGY_S = 5.0  # a load this long can tell joules
COOL_DOWN_S = 10.0  # before a throttled round is measured once more
ROUNDS = 5
LONGEST_ROUND_S = 30.0  # the samples of a round are one answer, and the last 30 s are held against the first
SOAK_CAP_S = 1800.0  # of all candidates together
SOAK_BLIND_S = 600.0  # where the board tells no temperature
SETTLED_C_PER_MIN = 0.5
SLACK_S = 60.0  # beyond what a request should take, before the board counts as gone
OPEN_S = 300.0  # for large models and slow disks, and for three inferences of a model nobody has timed yet
OFFLINE_SAMPLES = 127  # the least that `offline` runs to find its batch: 1 + 2 + ... + 64
SLOWER = 20  # an inference may take this many times the warm-up's median before the board counts as gone


@dataclass(frozen=True)
class Plan:
    """seconds: of one candidate over all rounds. inputs: arrays by name. infer: whether all inputs run for outputs.

    soak: rounds of 30 s, none of them retried, until the temperature settles; seconds and rounds mean nothing then.
    """

    seconds: float
    scenario: str
    scope: str
    threads: int
    cores: tuple[int, ...] | None
    rounds: int
    soak: bool
    inputs: Mapping[str, np.ndarray]
    preprocess: Mapping[str, Any] | None
    infer: bool

    @property
    def round_s(self) -> float:
        return LONGEST_ROUND_S if self.soak else self.seconds / self.rounds


@dataclass
class Measured:
    """What one candidate did; filled while the rounds run."""

    candidate: Candidate
    options: Mapping[str, Any]
    remote: Remote
    scratch: str
    device: Mapping[str, Any]
    engine: Mapping[str, Any]
    energy: Mapping[str, Any]
    warmup: Mapping[str, Any] = field(default_factory=dict)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    layers: tuple[Mapping[str, Any], ...] = ()
    idle: Mapping[str, Any] | None = None

    @property
    def rounds_ms(self) -> tuple[np.ndarray, ...]:
        return tuple(np.asarray(one["samples_ms"], dtype=np.float64) for one in self.rounds)

    @property
    def windows(self) -> list[Mapping[str, Any]]:
        return [one["window"] for one in self.rounds]

    @property
    def temperature_c(self) -> float | None:
        """At the end of the last round."""
        return self.windows[-1]["temperature_c"][1] if self.rounds else None

    @property
    def has_settled(self) -> bool:
        slope = doubts.heating_c_per_min(self.windows)
        return slope is not None and abs(slope) < SETTLED_C_PER_MIN


def measure(
    candidates: Sequence[Candidate], board: str, link: Link, plan: Plan, tell: Callable[[str], None]
) -> list[Measured]:
    """Opens every candidate in a bench process of its own, warms up, measures, and closes all of them.

    Raises:
        EdgekitError: what a bench answered, in its own class; DeviceError when it ended or fell silent.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        inputs = _put_inputs(link, plan.inputs, Path(folder))
        subjects = [stack.enter_context(_opened(one, board, link, plan, inputs)) for one in candidates]
        _idle(subjects, plan, tell)
        for subject in subjects:
            _warm_up(subject, plan, tell)
        while not _enough(subjects, plan):
            for subject in subjects:
                _round(subject, plan, tell)
        for subject in subjects:
            _finish(subject, link, plan, Path(folder), tell)
    return subjects


@contextlib.contextmanager
def _opened(candidate: Candidate, board: str, link: Link, plan: Plan, inputs: Mapping[str, str]) -> Iterator[Measured]:
    remote = Remote(link.bench(), f"{board}: {candidate.name}")
    try:
        hello = remote.ask("hello", SLACK_S)
        artifact = candidate.artifact
        options = {"threads": plan.threads, **candidate.options}
        answer = remote.ask(
            "open",
            OPEN_S,
            path=link.put(artifact.path, artifact.sha256, artifact.companions),
            runtime=candidate.runtime,
            options=options,
            scope=plan.scope,
            cores=None if plan.cores is None else list(plan.cores),
            inputs=dict(inputs),
            preprocess=None if plan.preprocess is None else dict(plan.preprocess),
        )
        yield Measured(
            candidate, options, remote, hello["scratch"], hello["device"], answer["engine"], answer["energy"]
        )
    finally:
        remote.close()


def _put_inputs(link: Link, arrays: Mapping[str, np.ndarray], folder: Path) -> dict[str, str]:
    paths = {}
    for number, (name, array) in enumerate(arrays.items()):
        path = folder / f"input{number}.npy"
        np.save(path, array)
        paths[name] = link.put(path, sha256_of(path))
    return paths


def _idle(subjects: Sequence[Measured], plan: Plan, tell: Callable[[str], None]) -> None:
    """What the board takes while nobody works, once for each rail; only where the load is long enough for joules."""
    idle: dict[str, Mapping[str, Any]] = {}
    if not plan.soak and plan.seconds < SHORTEST_ENERGY_S:
        return
    for subject in subjects:
        rail = subject.energy["rail"]
        if rail is not None and rail not in idle:
            tell(f"idle for {IDLE_S:.0f} s: {rail}")
            idle[rail] = subject.remote.ask("idle", IDLE_S + SLACK_S, seconds=IDLE_S)["window"]
        subject.idle = idle.get(rail)


def _warm_up(subject: Measured, plan: Plan, tell: Callable[[str], None]) -> None:
    seconds = LONGEST_ROUND_S if plan.soak else plan.seconds
    window_s = min(WARMUP_WINDOW_S, seconds / 5)
    subject.warmup = subject.remote.ask("warmup", seconds + OPEN_S, cap_s=seconds, window_s=window_s)
    steady = "steady" if subject.warmup["steady"] else "not steady"
    tell(f"{subject.candidate.name}: {steady} after {subject.warmup['warmup_s']:.1f} s")


def _enough(subjects: Sequence[Measured], plan: Plan) -> bool:
    """Whether all rounds are done; of a soak, whether the temperature has settled or the time is over."""
    done = len(subjects[-1].rounds)
    if not plan.soak:
        return done >= plan.rounds
    soaked_s = done * len(subjects) * LONGEST_ROUND_S
    blind = all(one.temperature_c is None for one in subjects)
    return soaked_s >= (SOAK_BLIND_S if blind else SOAK_CAP_S) or all(one.has_settled for one in subjects)


def _round(subject: Measured, plan: Plan, tell: Callable[[str], None]) -> None:
    """One round; a disturbed one is measured once more, so that retries end."""
    # `offline` first looks for its batch, which takes half as long again.
    timeout_s = 2 * plan.round_s + _patience_s(subject, OFFLINE_SAMPLES)

    def measure_once() -> dict[str, Any]:
        return subject.remote.ask("measure", timeout_s, seconds=plan.round_s, scenario=plan.scenario)

    answer = measure_once()
    if doubts.of_windows([answer["window"]]) and not plan.soak:
        if answer["window"]["throttles"]:
            time.sleep(COOL_DOWN_S)
        answer = measure_once()
    subject.rounds.append(answer)
    of = "" if plan.soak else f" of {plan.rounds}"
    median = f"median {float(np.median(answer['samples_ms'])):.4g} ms"
    said = "emulated: no times" if subject.device.get("emulated") else median
    tell(f"{subject.candidate.name}: round {len(subject.rounds)}{of}, {said}")


def _finish(subject: Measured, link: Link, plan: Plan, folder: Path, tell: Callable[[str], None]) -> None:
    """Outputs of all inputs, and the layers, after the load: they would disturb it."""
    if plan.infer:
        count = max(len(array) for array in plan.inputs.values())
        tell(f"{subject.candidate.name}: {count} inputs for its outputs")
        remote_path = f"{subject.scratch}/outputs.npz"
        subject.remote.ask("infer", _patience_s(subject, count), out=remote_path)
        local = folder / "outputs.npz"
        link.get(remote_path, local)
        with np.load(local) as outputs:
            subject.outputs = {name: outputs[name] for name in outputs.files}
    subject.layers = tuple(subject.remote.ask("layers", OPEN_S)["layers"])


def _patience_s(subject: Measured, inferences: int) -> float:
    return SLACK_S + SLOWER * inferences * float(subject.warmup["medians_ms"][-1]) / 1e3
