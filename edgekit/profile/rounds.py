"""Loads several candidates on one board in rounds that take turns (A B C A B C ...), everyone else idle.

Interleaving gives all of them the same share of whatever the machine does meanwhile; a round that was disturbed is
measured once more, and then kept with its doubts.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.artifact import Candidate, sha256_of
from edgekit.links import Link
from edgekit.profile import doubts
from edgekit.profile.remote import Remote

STEADY_S = 3.0  # the warm-up that three one-second windows need
IDLE_S = 10.0  # of a board whose energy can be read
SLACK_S = 60.0  # beyond what a request should take, before the board counts as gone
OPEN_S = 300.0  # for large models and slow disks
OFFLINE_SAMPLES = 127  # the least that `offline` runs to find its batch: 1 + 2 + ... + 64
SLOWER = 20  # an inference may take this many times the warm-up's median before the board counts as gone


@dataclass(frozen=True)
class Plan:
    """seconds: of one candidate over all rounds. inputs: arrays by name. infer: whether all inputs run for outputs.

    warmup_s: the warm-up ends by then, steady or not, unless `seconds` is longer; below STEADY_S times are rough.
    """

    seconds: float
    scenario: str
    threads: int
    rounds: int
    inputs: Mapping[str, np.ndarray]
    preprocess: Mapping[str, Any] | None
    infer: bool
    warmup_s: float = STEADY_S


@dataclass
class Measured:
    """What one candidate did; filled while the rounds run."""

    candidate: Candidate
    options: Mapping[str, Any]
    remote: Remote
    scratch: str
    device: Mapping[str, Any]
    engine: Mapping[str, Any]
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
        for subject in subjects:
            _warm_up(subject, plan, tell)
        for number in range(plan.rounds):
            for subject in subjects:
                _round(subject, plan)
                tell(f"{subject.candidate.name}: round {number + 1} of {plan.rounds}, {_median_text(subject)}")
        for subject in subjects:
            _finish(subject, link, plan, Path(folder), tell)
    return subjects


@contextlib.contextmanager
def _opened(candidate: Candidate, board: str, link: Link, plan: Plan, inputs: Mapping[str, str]) -> Iterator[Measured]:
    remote = Remote(link.bench(), f"{board}: {candidate.name}")
    try:
        hello = remote.ask("hello", SLACK_S)
        artifact = candidate.artifact
        for companion in artifact.companions:
            link.put(companion, sha256_of(companion))
        options = {"threads": plan.threads, **candidate.options}
        answer = remote.ask(
            "open",
            OPEN_S,
            path=link.put(artifact.path, artifact.sha256),
            runtime=candidate.runtime,
            options=options,
            inputs=dict(inputs),
            preprocess=None if plan.preprocess is None else dict(plan.preprocess),
        )
        engine = {**answer["engine"], "load_ms": answer["load_ms"]}
        yield Measured(candidate, options, remote, hello["scratch"], hello["device"], engine)
    finally:
        remote.close()


def _put_inputs(link: Link, arrays: Mapping[str, np.ndarray], folder: Path) -> dict[str, str]:
    paths = {}
    for number, (name, array) in enumerate(arrays.items()):
        path = folder / f"input{number}.npy"
        np.save(path, array)
        paths[name] = link.put(path, sha256_of(path))
    return paths


def _warm_up(subject: Measured, plan: Plan, tell: Callable[[str], None]) -> None:
    if subject.device.get("energy") and plan.warmup_s >= STEADY_S:  # a rough measurement is too short for energy
        subject.idle = subject.remote.ask("idle", IDLE_S + SLACK_S, seconds=IDLE_S)["window"]
    cap_s = max(plan.warmup_s, plan.seconds)
    subject.warmup = subject.remote.ask("warmup", cap_s + SLACK_S, cap_s=cap_s)
    steady = "steady" if subject.warmup["steady"] else "not steady"
    tell(f"{subject.candidate.name}: {steady} after {subject.warmup['warmup_s']:.1f} s")


def _round(subject: Measured, plan: Plan) -> None:
    """One round; a disturbed one is measured once more, so that retries end."""
    seconds = plan.seconds / plan.rounds
    timeout_s = seconds + _patience_s(subject, OFFLINE_SAMPLES)
    answer = subject.remote.ask("measure", timeout_s, seconds=seconds, scenario=plan.scenario)
    if doubts.of_windows([answer["window"]]):
        answer = subject.remote.ask("measure", timeout_s, seconds=seconds, scenario=plan.scenario)
    subject.rounds.append(answer)


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


def _median_text(subject: Measured) -> str:
    return f"median {float(np.median(subject.rounds_ms[-1])):.4g} ms"
