"""Does nothing, or sleeps: what it measures is the harness's own cost, and what tests of a schedule stand on."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import numpy as np

from edgekit.artifact import TensorSpec
from edgekit.errors import InputError, did_you_mean
from edgekit.runtimes import Session

OPTIONS = ("threads", "sleep_ms")


def missing() -> Optional[str]:
    """Always here."""
    return None


def offers() -> Tuple[str, ...]:
    """It computes nothing, so in no precision."""
    return ()


def open_session(path: str, options: Mapping[str, Any]) -> NullSession:
    """options: sleep_ms, milliseconds of one inference, 0 by default. The file is not opened."""
    for name in options:
        if name not in OPTIONS:
            raise InputError(f"null: unknown option '{name}'." + did_you_mean(name, OPTIONS))
    return NullSession(float(options.get("sleep_ms", 0.0)))


class NullSession(Session):
    """Takes anything and gives nothing. sleep(seconds) and clock() -> nanoseconds are given from above in tests."""

    inputs: Tuple[TensorSpec, ...] = ()
    outputs: Tuple[TensorSpec, ...] = ()

    def __init__(
        self,
        sleep_ms: float = 0.0,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], int] = time.perf_counter_ns,
    ):
        self.engine = {"runtime": "null", "sleep_ms": sleep_ms}
        self._sleep_s = sleep_ms / 1e3
        self._sleep = sleep
        self._clock = clock

    def infer(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        if self._sleep_s:
            self._sleep(self._sleep_s)
        return {}

    def time_ms(self, feeds: Mapping[str, np.ndarray], count: int) -> List[float]:
        samples_ms = []
        for _ in range(count):
            start = self._clock()
            self.infer(feeds)
            samples_ms.append((self._clock() - start) / 1e6)
        return samples_ms
