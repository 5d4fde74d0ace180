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
from typing import IO, Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from edgekit import __version__, lookup
from edgekit.bench import clocks, loads, telemetry
from edgekit.bench.energy import Meter, meter
from edgekit.bench.loads import Clock, Saturation
from edgekit.bench.rails import rail_meter
from edgekit.bench.samples import Samples
from edgekit.errors import DeviceError, EdgekitError, InputError, UsageError, did_you_mean
from edgekit.runtimes import Session
from edgekit.statistics import is_steady

FEEDS = 256  # prepared inputs that the load rotates through


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
    """One candidate in one process, and the requests it understands."""

    def __init__(self, clock: Clock):
        self._clock = clock
        self._sessions: List[Session] = []  # one, and more of the same where `offline` runs several streams
        self._open_another: Callable[[], Session]
        self._inputs: Optional[Samples] = None
        self._one: Callable[[], float]  # the next inference, in milliseconds
        self._streams = 1
        self._saturation: Optional[Saturation] = None
        self._meter = Meter()
        self._scratch = tempfile.mkdtemp(prefix="edgekit-bench-")
        self.requests: Mapping[str, Callable[..., Dict[str, Any]]] = {
            "hello": self.hello,
            "open": self.open,
            "warmup": self.warmup,
            "idle": self.idle,
            "measure": self.measure,
            "infer": self.infer,
            "layers": self.layers,
        }

    def hello(self) -> Dict[str, Any]:
        """Facts about the machine, and a folder for results; the bench removes it when it ends."""
        runtimes = {name: lookup.find("runtimes", name).missing() for name in lookup.names("runtimes")}
        versions = {"edgekit": __version__, "numpy": np.__version__}
        device = {**telemetry.facts(), **clocks.facts(), "versions": versions, "missing": runtimes}
        return {"device": device, "scratch": self._scratch}

    def open(
        self,
        path: str,
        runtime: str,
        options: Mapping[str, Any],
        inputs: Mapping[str, str],
        preprocess: Optional[Mapping[str, Any]] = None,
        scope: str = "host",
        cores: Optional[Sequence[int]] = None,
    ) -> Dict[str, Any]:
        """Opens the candidate and prepares inputs.

        inputs: .npy file by input name, first axis the sample. scope: `host`, or `e2e` to time the preprocessing too.
        cores: the only ones this process may run on; None leaves it all it has.
        """
        if self._sessions:
            raise UsageError("bench: a session is open already; one process measures one candidate.")
        bound = _bind(cores)  # before the runtime starts its threads, which inherit it
        self._open_another = lambda: lookup.find("runtimes", runtime).open_session(path, options)
        started_ns = self._clock.now_ns()
        session = self._open_another()
        load_ms = (self._clock.now_ns() - started_ns) / 1e6
        self._sessions = [session]
        self._inputs = Samples(session, inputs, preprocess)
        self._one = self._end_to_end(session) if scope == "e2e" else self._submit_to_result(session)
        self._streams = max(1, len(bound or ()) // int(options.get("threads", 1)))
        self._meter = rail_meter() or meter(session.engine)
        energy = {"rail": self._meter.rail, "reason": self._meter.reason}
        return {"engine": {**session.engine, "cores": bound, "load_ms": load_ms}, "energy": energy}

    def warmup(self, cap_s: float, window_s: float = 1.0) -> Dict[str, Any]:
        """Windows, three at least, until the medians of the last three agree or cap_s have passed."""
        self._opened()
        started_ns = self._clock.now_ns()
        medians_ms: List[float] = []
        seconds = 0.0
        while len(medians_ms) < 3 or not (is_steady(medians_ms) or seconds >= cap_s):
            medians_ms.append(float(np.median(loads.single_stream(self._one, self._clock, window_s))))
            seconds = (self._clock.now_ns() - started_ns) / 1e9
        return {"steady": is_steady(medians_ms), "warmup_s": seconds, "medians_ms": medians_ms}

    def idle(self, seconds: float) -> Dict[str, Any]:
        """Does nothing, for the energy that the board takes anyway."""
        with self._meter.window():
            before = telemetry.read(self._meter)
            time.sleep(seconds)
            after = telemetry.read(self._meter)
        return {"window": telemetry.between(before, after, self._meter)}

    def measure(self, seconds: float, scenario: str = "single-stream") -> Dict[str, Any]:
        """Loads the session; raw samples in milliseconds, with the board's state over exactly this window."""
        load = self._load(seconds, scenario)
        gc.collect()
        gc.disable()
        try:
            loads.single_stream(self._one, self._clock, min(0.2, seconds / 10))  # not kept: another had the caches
            with self._meter.window():
                before = telemetry.read(self._meter)
                facts = load()
                after = telemetry.read(self._meter)
        finally:
            gc.enable()
        window = telemetry.between(before, after, self._meter)
        return {**facts, "window": window, "peak_memory_bytes": telemetry.peak_memory_bytes()}

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

    def end(self) -> None:
        """The input closed: nothing is left behind."""
        for session in self._sessions:
            session.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _opened(self) -> Tuple[Session, Samples]:
        if not self._sessions or self._inputs is None:
            raise UsageError("bench: no session is open.", next="send an `open` request first")
        return self._sessions[0], self._inputs

    def _submit_to_result(self, session: Session) -> Callable[[], float]:
        """One inference of the next prepared input, in milliseconds."""
        feeds, turn = self._opened()[1].spread(FEEDS), -1

        def one() -> float:
            nonlocal turn
            turn = (turn + 1) % len(feeds)
            return session.time_ms(feeds[turn], 1)[0]

        return one

    def _end_to_end(self, session: Session) -> Callable[[], float]:
        """From the next image in memory to the result, in milliseconds."""
        inputs, clock, turn = self._opened()[1], self._clock, -1
        if not inputs.preprocessed:
            raise InputError(
                "scope e2e: the inputs go through no preprocessing.", next="give images, or take scope host"
            )

        def one() -> float:
            nonlocal turn
            turn = (turn + 1) % inputs.n
            start_ns = clock.now_ns()
            session.time_ms(inputs.feeds(turn), 1)
            return (clock.now_ns() - start_ns) / 1e6

        return one

    def _load(self, seconds: float, scenario: str) -> Callable[[], Dict[str, Any]]:
        """What runs inside the measured window; what it needs to know first is found here, outside of it."""
        kind, fps = loads.parse(scenario)
        batch = self._opened()[1].batch
        if kind == "camera" and fps is not None:
            return lambda: {**loads.camera(self._one, self._clock, fps, seconds), "batch": batch, "streams": 1}
        if kind == "single-stream":
            run = loads.single_stream
            return lambda: {"samples_ms": run(self._one, self._clock, seconds), "batch": batch, "streams": 1}
        return self._offline(seconds)

    def _offline(self, seconds: float) -> Callable[[], Dict[str, Any]]:
        """The best batch and streams are found once: the rounds of one candidate must be alike."""
        inputs = self._opened()[1]
        if self._saturation is None:
            batches = loads.BATCHES if inputs.free else (inputs.batch,)
            self._saturation = loads.find_saturation(
                self._several, lambda batch: inputs.feeds(0, batch), self._clock, seconds / 2, batches, self._streams
            )
        best = self._saturation
        sessions, feeds = self._several(best.streams), inputs.feeds(0, best.batch)
        return lambda: {"samples_ms": loads.saturate(sessions, feeds, self._clock, seconds), **vars(best)}

    def _several(self, count: int) -> List[Session]:
        while len(self._sessions) < count:
            self._sessions.append(self._open_another())
        return self._sessions[:count]


def _bind(cores: Optional[Sequence[int]]) -> Optional[List[int]]:
    """Keeps this process on the given cores; gives those it has, None where the system does not tell.

    Raises:
        InputError: there is no such core, or this process may not have it. DeviceError: the system gave others.
    """
    if not hasattr(os, "sched_setaffinity"):
        if cores is not None:
            raise InputError("cores: this system does not let a process choose its cores.", next="leave --cores out")
        return None
    if cores is not None:
        try:
            os.sched_setaffinity(0, cores)
        except (OSError, ValueError) as error:
            had = sorted(os.sched_getaffinity(0))
            raise InputError(f"cores: {list(cores)} cannot be had, this process has {had}.", why=str(error)) from error
    got = sorted(os.sched_getaffinity(0))
    if cores is not None and got != sorted(cores):
        raise DeviceError(f"cores: asked for {sorted(cores)}, got {got}.")
    return got


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
