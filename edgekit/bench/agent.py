"""Runs ON the board: opens one candidate, loads it, sends raw samples back.

One JSON request a line on standard input, one JSON answer a line on standard output; it ends when its input closes.
Answers are {"ok": true, ...} or {"ok": false, "error": <class of edgekit.errors>, "what": ..., "why": ..., ...}.
Timing happens here alone, never across the link. Python 3.8, the standard library, numpy and one runtime.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import sys
import tempfile
import time
from typing import IO, Any, Callable, Dict, List, Mapping, Optional, Tuple

import numpy as np

from edgekit import __version__, lookup
from edgekit.bench import telemetry
from edgekit.bench.samples import Samples
from edgekit.errors import EdgekitError, InputError, UsageError, did_you_mean
from edgekit.runtimes import Session
from edgekit.statistics import is_steady

FEEDS = 256  # prepared inputs that the load rotates through
WINDOW_S = 1.0
OFFLINE_BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Clock:
    """Nanoseconds, and waiting; a test gives a stepped one."""

    def now_ns(self) -> int:
        return time.perf_counter_ns()

    def wait_until_ns(self, moment_ns: int) -> None:
        # Sleep alone wakes up to a tenth of a millisecond late: the last part is spun.
        while moment_ns - self.now_ns() > 2_000_000:
            time.sleep((moment_ns - self.now_ns() - 1_000_000) / 1e9)
        while self.now_ns() < moment_ns:
            pass


def main() -> None:
    """Serves requests until the input closes. Whatever libraries print goes to standard error, not into the answers."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    bench = Bench(Clock())
    try:
        serve(bench, sys.stdin, answers)
    finally:
        bench.end()


def serve(bench: Bench, requests: IO[str], answers: IO[str]) -> None:
    """Answers every line of `requests` with one line."""
    for line in requests:
        answers.write(json.dumps(_answer(bench, line)) + "\n")
        answers.flush()


class Bench:
    """One session in one process, and the requests it understands."""

    def __init__(self, clock: Clock):
        self._clock = clock
        self._session: Optional[Session] = None
        self._inputs: Optional[Samples] = None
        self._feeds: List[Dict[str, np.ndarray]] = []
        self._turn = 0
        self._scratch = tempfile.mkdtemp(prefix="edgekit-bench-")
        self.requests: Mapping[str, Callable[..., Dict[str, Any]]] = {
            "hello": self.hello,
            "open": self.open,
            "warmup": self.warmup,
            "idle": self.idle,
            "measure": self.measure,
            "infer": self.infer,
            "layers": self.layers,
            "close": self.close,
        }

    def hello(self) -> Dict[str, Any]:
        """Facts about the machine, and a folder for results; the bench removes it when it ends."""
        runtimes = {name: lookup.find("runtimes", name).missing() for name in lookup.names("runtimes")}
        versions = {"edgekit": __version__, "numpy": np.__version__}
        energy = telemetry.read().energy_j is not None
        device = {**telemetry.facts(), "versions": versions, "missing": runtimes, "energy": energy}
        return {"device": device, "scratch": self._scratch}

    def open(
        self,
        path: str,
        runtime: str,
        options: Mapping[str, Any],
        inputs: Mapping[str, str],
        preprocess: Optional[Mapping[str, Any]] = None,
    ) -> Dict[str, Any]:
        """Opens the candidate and prepares inputs. inputs: .npy file by input name, first axis the sample."""
        if self._session is not None:
            raise UsageError("bench: a session is open already; one process measures one candidate.")
        started_ns = self._clock.now_ns()
        self._session = lookup.find("runtimes", runtime).open_session(path, options)
        load_ms = (self._clock.now_ns() - started_ns) / 1e6
        self._inputs = Samples(self._session, inputs, preprocess)
        self._feeds = self._inputs.spread(FEEDS)
        shapes = [vars(spec) for spec in self._session.inputs + self._session.outputs]
        return {
            "engine": dict(self._session.engine),
            "load_ms": load_ms,
            "tensors": shapes,
            "batch": self._inputs.batch,
        }

    def warmup(self, cap_s: float) -> Dict[str, Any]:
        """One-second windows until the last three agree, or cap_s have passed."""
        started_ns = self._clock.now_ns()
        medians_ms: List[float] = []
        seconds = 0.0
        while not medians_ms or not (is_steady(medians_ms) or seconds >= cap_s):
            medians_ms.append(float(np.median(self._single_stream(WINDOW_S))))
            seconds = (self._clock.now_ns() - started_ns) / 1e9
        return {"steady": is_steady(medians_ms), "warmup_s": seconds, "medians_ms": medians_ms}

    def idle(self, seconds: float) -> Dict[str, Any]:
        """Does nothing, for the energy that the board takes anyway."""
        before = telemetry.read()
        time.sleep(seconds)
        return {"window": telemetry.between(before, telemetry.read())}

    def measure(self, seconds: float, scenario: str = "single-stream") -> Dict[str, Any]:
        """Loads the session; raw samples in milliseconds, with the board's state over exactly this window."""
        gc.collect()
        gc.disable()
        self._single_stream(min(0.2, seconds / 10))  # not kept: another candidate had the caches until now
        before = telemetry.read()
        try:
            facts = self._load(seconds, scenario)
        finally:
            after = telemetry.read()
            gc.enable()
        return {**facts, "scenario": scenario, "window": telemetry.between(before, after)}

    def infer(self, out: str) -> Dict[str, Any]:
        """Runs every input once, in order; saves the outputs by name, first axis the sample, as .npz."""
        session, inputs = self._opened()
        parts: Dict[str, List[np.ndarray]] = {spec.name: [] for spec in session.outputs}
        for feeds in inputs.every():
            for name, values in session.infer(feeds).items():
                parts[name].append(np.array(values))
        outputs = {name: inputs.joined(arrays) for name, arrays in parts.items() if arrays}
        np.savez(out, **outputs)  # type: ignore[arg-type]  # numpy's stub takes an output's name for allow_pickle
        return {"n": inputs.n, "out": out}

    def layers(self) -> Dict[str, Any]:
        """Per-layer times where the runtime gives them."""
        return {"layers": self._opened()[0].layers()}

    def close(self) -> Dict[str, Any]:
        """Closes the session; another may be opened."""
        if self._session is not None:
            self._session.close()
        self._session, self._inputs, self._feeds, self._turn = None, None, [], 0
        return {}

    def end(self) -> None:
        """The input closed: nothing is left behind."""
        self.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _opened(self) -> Tuple[Session, Samples]:
        if self._session is None or self._inputs is None:
            raise UsageError("bench: no session is open.", next="send an `open` request first")
        return self._session, self._inputs

    def _load(self, seconds: float, scenario: str) -> Dict[str, Any]:
        name, _, fps = scenario.partition("@")
        if scenario == "single-stream":
            return {"samples_ms": self._single_stream(seconds), "batch": self._opened()[1].batch}
        if scenario == "offline":
            return self._offline(seconds)
        if name == "camera" and fps.replace(".", "", 1).isdigit() and float(fps) > 0:
            return {**camera(self._one, self._clock, float(fps), seconds), "batch": self._opened()[1].batch}
        raise InputError(
            f"scenario '{scenario}': unknown.", next="write single-stream, camera@30 (frames/s) or offline"
        )

    def _one(self) -> float:
        """One inference of the next input, in milliseconds."""
        session = self._opened()[0]
        self._turn = (self._turn + 1) % len(self._feeds)
        return session.time_ms(self._feeds[self._turn], 1)[0]

    def _single_stream(self, seconds: float) -> List[float]:
        """Closed loop: one in flight, the next is submitted when the result is there."""
        end_ns = self._clock.now_ns() + int(seconds * 1e9)
        samples_ms = [self._one()]
        while self._clock.now_ns() < end_ns:
            samples_ms.append(self._one())
        return samples_ms

    def _offline(self, seconds: float) -> Dict[str, Any]:
        """Throughput at the best batch the file takes: half the time finds it, half measures it."""
        session, inputs = self._opened()
        batches = OFFLINE_BATCHES if inputs.free else (inputs.batch,)
        best, best_per_s = batches[0], 0.0
        for batch in batches:
            end_ns = self._clock.now_ns() + int(seconds / 2 / len(batches) * 1e9)
            spent_ms = _until(end_ns, self._clock, session, inputs.feeds(0, batch))
            per_s = batch * len(spent_ms) / sum(spent_ms) * 1e3
            if per_s > best_per_s:
                best, best_per_s = batch, per_s
        end_ns = self._clock.now_ns() + int(seconds / 2 * 1e9)
        samples_ms = _until(end_ns, self._clock, session, inputs.feeds(0, best))
        per_s = best * len(samples_ms) / sum(samples_ms) * 1e3
        return {"samples_ms": samples_ms, "batch": best, "per_s": per_s}


def camera(one: Callable[[], object], clock: Clock, fps: float, seconds: float) -> Dict[str, Any]:
    """Open loop: frame k arrives at k / fps whether or not the board is ready; drop policy `latest`.

    A free board takes the newest frame that has arrived and drops the older ones. Latency runs from the scheduled
    arrival (no coordinated omission); a frame misses its deadline, 1 / fps, when it is late or dropped.
    A dropped frame has no latency: it is in `missed` and `dropped`, not in the samples.
    """
    frames = max(1, int(seconds * fps))
    start_ns = clock.now_ns()
    arrivals_ns = [start_ns + round(k * 1e9 / fps) for k in range(frames)]
    missed = [True] * frames
    samples_ms = []
    frame = 0
    while frame < frames:
        clock.wait_until_ns(arrivals_ns[frame])
        while frame + 1 < frames and arrivals_ns[frame + 1] <= clock.now_ns():
            frame += 1
        one()
        samples_ms.append((clock.now_ns() - arrivals_ns[frame]) / 1e6)
        missed[frame] = samples_ms[-1] > 1e3 / fps
        frame += 1
    deadline = {"ms": 1e3 / fps, "frames": frames, "missed": sum(missed), "max_run": _longest_run(missed)}
    return {"samples_ms": samples_ms, "deadline": {**deadline, "dropped": frames - len(samples_ms), "drop": "latest"}}


def _answer(bench: Bench, line: str) -> Dict[str, Any]:
    try:
        request = json.loads(line)
        name = request.pop("request")
        if name not in bench.requests:
            raise UsageError(f"bench: unknown request '{name}'." + did_you_mean(str(name), bench.requests))
        return {"ok": True, **bench.requests[name](**request)}
    except EdgekitError as error:
        return {"ok": False, **error.as_dict()}
    except Exception as error:  # whatever a runtime throws is an answer; the process lives on
        return {"ok": False, "error": "DeviceError", "what": f"bench: {type(error).__name__}: {error}"}


def _until(end_ns: int, clock: Clock, session: Session, feeds: Mapping[str, np.ndarray]) -> List[float]:
    samples_ms = session.time_ms(feeds, 1)
    while clock.now_ns() < end_ns:
        samples_ms += session.time_ms(feeds, 1)
    return samples_ms


def _longest_run(flags: List[bool]) -> int:
    longest = run = 0
    for flag in flags:
        run = run + 1 if flag else 0
        longest = max(longest, run)
    return longest
