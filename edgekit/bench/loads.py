"""The three ways to load a board: one after the other, a camera's fixed rate, and as much as it takes.

    single-stream   closed loop: one in flight, the next is submitted when the result is there
    camera@30       open loop: frames arrive at 30 a second whether or not the board is ready
    offline         throughput at the best batch and number of streams

Every function gives raw samples in milliseconds. Runs on boards: Python 3.8 and numpy.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from edgekit.errors import InputError
from edgekit.runtimes import Session

BATCHES = (1, 2, 4, 8, 16, 32, 64)  # what `offline` tries where a file's batch is free
Feeds = Mapping[str, np.ndarray]


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


def parse(scenario: str) -> Tuple[str, Optional[float]]:
    """`camera@30` -> (`camera`, 30.0); the others have no frames a second.

    Raises:
        InputError: there is no such scenario.
    """
    name, _, fps = scenario.partition("@")
    if scenario in ("single-stream", "offline"):
        return scenario, None
    if name == "camera" and fps.replace(".", "", 1).isdigit() and float(fps) > 0:
        return name, float(fps)
    raise InputError(f"scenario '{scenario}': unknown.", next="write single-stream, camera@30 (frames/s) or offline")


def single_stream(one: Callable[[], float], clock: Clock, seconds: float) -> List[float]:
    """Calls `one`, which gives the milliseconds that an inference took, until the time is over; at least once."""
    end_ns = clock.now_ns() + int(seconds * 1e9)
    samples_ms = [one()]
    while clock.now_ns() < end_ns:
        samples_ms.append(one())
    return samples_ms


def camera(one: Callable[[], object], clock: Clock, fps: float, seconds: float) -> Dict[str, Any]:
    """Frame k arrives at k / fps; drop policy `latest`: a free board takes the newest frame and drops older ones.

    Latency runs from the scheduled arrival (no coordinated omission); a frame misses its deadline, 1 / fps, when it is
    late or dropped. A dropped frame has no latency: it is in `missed` and `dropped`, not in the samples.
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
    clock.wait_until_ns(start_ns + round(frames * 1e9 / fps))  # the last frame has its time too
    deadline = {"ms": 1e3 / fps, "frames": frames, "missed": sum(missed), "max_run": _longest_run(missed)}
    return {"samples_ms": samples_ms, "deadline": {**deadline, "dropped": frames - len(samples_ms), "drop": "latest"}}


@dataclass(frozen=True)
class Saturation:
    """What gave the most samples a second. streams: sessions that run at once, each with its own threads."""

    batch: int
    streams: int


def find_saturation(
    sessions: Callable[[int], Sequence[Session]],
    feeds: Callable[[int], Feeds],
    clock: Clock,
    seconds: float,
    batches: Sequence[int],
    most_streams: int,
) -> Saturation:
    """The best batch in one stream, then the best number of streams (1, 2, 4, ...) at that batch.

    sessions: as many open sessions as asked for. feeds: the inputs of one inference of that batch.
    """
    streams = [2**k for k in range(most_streams.bit_length())]
    trial_s = seconds / (len(batches) + len(streams))

    def per_s(tried: Saturation) -> float:
        start_ns = clock.now_ns()
        samples_ms = saturate(sessions(tried.streams), feeds(tried.batch), clock, trial_s)
        return tried.batch * len(samples_ms) / (clock.now_ns() - start_ns)

    batch = max(batches, key=lambda size: per_s(Saturation(size, 1)))
    return max((Saturation(batch, count) for count in streams), key=per_s)


def saturate(sessions: Sequence[Session], feeds: Feeds, clock: Clock, seconds: float) -> List[float]:
    """Loads all sessions at once until the time is over, one thread each."""
    end_ns = clock.now_ns() + int(seconds * 1e9)
    if len(sessions) == 1:
        return _until(end_ns, clock, sessions[0], feeds)
    with ThreadPoolExecutor(len(sessions)) as pool:
        parts = pool.map(lambda session: _until(end_ns, clock, session, feeds), sessions)
        return [sample for part in parts for sample in part]


def _until(end_ns: int, clock: Clock, session: Session, feeds: Feeds) -> List[float]:
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
