"""Reasons to doubt a measurement: pure functions from what the board reported to sentences, each with its remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgekit.statistics import drift, variation

OTHER_CORES = 0.25  # cores' worth of work by others; a quiet desktop stays below a tenth
WAITED = 0.01  # share of the window in which a ready process was kept off its core
CLOCK_DROP = 0.03
DRIFT = 0.03
VARIATION = 0.025  # of the rounds' medians


def of_windows(windows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What disturbed the rounds, from what `telemetry.between` said of each window; unknown disturbs nothing."""
    reasons = []
    others = [window["other_cores"] for window in windows if (window["other_cores"] or 0) > OTHER_CORES]
    if others:
        rounds = _of(others, windows)
        reasons.append(f"other processes used up to {max(others):.2f} cores{rounds}: stop them and measure again")
    waits = [window["waited"] for window in windows if (window["waited"] or 0) > WAITED]
    if waits:
        share = f"up to {100 * max(waits):.1f} % of the time{_of(waits, windows)}"
        reasons.append(f"kept off its core for {share}: another process runs on it")
    throttles = sum(window["throttles"] or 0 for window in windows)
    if throttles:
        reasons.append(f"the processor throttled {throttles:.0f} times: cool the board or choose a lower power mode")
    limits = sorted({word for window in windows for word in window.get("limits") or ()})
    if limits:
        reasons.append(f"the board was held back ({', '.join(limits)}): see to its power supply and its cooling")
    return tuple(reasons)


def of_rounds(rounds_ms: Sequence[np.ndarray], windows: Sequence[Mapping[str, Any]], steady: bool) -> tuple[str, ...]:
    """Every doubt about one candidate's rounds: disturbed, not steady, slower at the end, scattered, clock down."""
    reasons = list(of_windows(windows))
    if not steady:
        reasons.append("not steady after the warm-up: the last three windows differ by more than 3 %")
    change = drift(rounds_ms)
    if change > 1 + DRIFT:
        reasons.append(f"became slower: the last round's median is {change:.2f} times the first's")
    spread = variation([float(np.median(samples)) for samples in rounds_ms])
    if spread > VARIATION:
        reasons.append(f"the rounds' medians vary by {100 * spread:.1f} % (coefficient of variation)")
    clocks = [window["mhz"] for window in windows if window["mhz"] is not None]
    if clocks and clocks[-1] < max(clocks) * (1 - CLOCK_DROP):
        reasons.append(
            f"the clock fell from {max(clocks):.0f} to {clocks[-1]:.0f} MHz: cool the board or lock its clocks"
        )
    return tuple(reasons)


def heating_c_per_min(windows: Sequence[Mapping[str, Any]]) -> float | None:
    """Slope of the temperature at the ends of the last four windows (a straight line through them).

    None where fewer than four windows tell a temperature.
    """
    ends = [(window["ended_s"] / 60, window["temperature_c"][1]) for window in windows[-4:]]
    if len(ends) < 4 or any(heat is None for _, heat in ends):
        return None
    minutes, heat_c = zip(*ends, strict=True)
    return float(np.polyfit(minutes, heat_c, 1)[0])


def _of(some: Sequence[float], windows: Sequence[Mapping[str, Any]]) -> str:
    return f" in {len(some)} of {len(windows)} rounds" if len(windows) > 1 else ""
