"""Percentiles that say whether there were enough samples, intervals, steady state, drift.

A percentile p of n samples is given only if its one-sided 99 % upper bound exists with one sample to spare above it:
the smallest n with p^n + n (1 - p) p^(n - 1) <= 0.01, MLPerf LoadGen's early stopping with d = 0.
Bounds are order statistics: P(X_(k) >= quantile) = P(Binomial(n, p) <= k - 1); they assume nothing of the distribution.

Runs on boards: Python 3.8 and numpy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Optional, Sequence, Tuple

import numpy as np

CONFIDENCE = 0.99  # of a percentile's upper bound
STEADY_WITHIN = 0.03  # the last three one-second windows, largest over smallest median

# Student's t, two-sided 95 %, for 1 to 10 degrees of freedom (any table).
_T_95 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
_Z_95 = 1.959964


@dataclass(frozen=True)
class Percentile:
    """q: 0 to 100. value: None where n is less than `needed`. upper: one-sided 99 % bound of the true percentile."""

    q: float
    value: Optional[float]
    n: int
    needed: int
    upper: Optional[float]

    def __str__(self) -> str:
        return f"n/a (n = {self.n}, needs {self.needed})" if self.value is None else f"{self.value:.4g}"


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval. One round alone has no interval: high is infinite."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def percentile(samples: Sequence[float] | np.ndarray, q: float) -> Percentile:
    """Percentile q (0 to 100, exclusive) of the samples: the order statistic of rank ceil(n q / 100)."""
    n, needed = len(samples), needed_samples(q)
    if n < needed:
        return Percentile(q, None, n, needed, None)
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    # The rounding keeps 0.95 * 20 at rank 19: floats make it 19.000000000000004 for some q.
    rank = max(1, math.ceil(round(n * q / 100, 9)))
    return Percentile(q, float(ordered[rank - 1]), n, needed, float(ordered[_upper_rank(n, q) - 1]))


@lru_cache(maxsize=4096)
def needed_samples(q: float) -> int:
    """Samples that percentile q (0 to 100, exclusive) needs: p50 11, p90 64, p95 130, p99 662, p99.9 6636."""
    if not 0 < q < 100:
        raise ValueError(f"percentile {q}: must lie between 0 and 100, both excluded.")
    p, n = q / 100, 2
    while p**n + n * (1 - p) * p ** (n - 1) > 1 - CONFIDENCE:
        n += 1
    return n


def ratio(rounds_a: Sequence[np.ndarray], rounds_b: Sequence[np.ndarray]) -> Interval:
    """a over b: geometric mean of the ratios of medians, round by round, with Student's interval of their logarithms.

    Rounds are paired in the order they ran: interleaved rounds share what the machine did to both.
    """
    if not rounds_a or len(rounds_a) != len(rounds_b):
        raise ValueError(f"a ratio pairs rounds: got {len(rounds_a)} and {len(rounds_b)}.")
    logs = np.log([float(np.median(a)) / float(np.median(b)) for a, b in zip(rounds_a, rounds_b)])
    middle = float(logs.mean())
    if len(logs) == 1:
        return Interval(math.exp(middle), 0.0, math.inf)
    half = _t_95(len(logs) - 1) * float(logs.std(ddof=1)) / math.sqrt(len(logs))
    return Interval(math.exp(middle), math.exp(middle - half), math.exp(middle + half))


def wilson(correct: int, n: int) -> Tuple[float, float]:
    """Wilson's 95 % interval of a share, correct of n (Wilson 1927)."""
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(f"{correct} of {n} is not a share.")
    share, z2 = correct / n, _Z_95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def is_steady(medians: Sequence[float]) -> bool:
    """Whether the last three one-second windows lie within 3 % in median."""
    last = medians[-3:]
    return len(last) == 3 and max(last) <= min(last) * (1 + STEADY_WITHIN)


def drift(rounds: Sequence[np.ndarray]) -> float:
    """Median of the last round over the median of the first; above 1 the board became slower."""
    return float(np.median(rounds[-1]) / np.median(rounds[0]))


def variation(values: Sequence[float]) -> float:
    """Coefficient of variation: standard deviation over mean; 0 for a single value."""
    return float(np.std(values, ddof=1) / np.mean(values)) if len(values) > 1 else 0.0


@lru_cache(maxsize=4096)
def _upper_rank(n: int, q: float) -> int:
    """Smallest k with P(Binomial(n, p) <= k - 1) >= 0.99, summed from the top, where the tail is short."""
    p = q / 100
    log_p, log_rest = math.log(p), math.log1p(-p)
    tail = 0.0
    for k in range(n, -1, -1):  # tail: P(Binomial > k - 1)
        choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
        tail += math.exp(choose + k * log_p + (n - k) * log_rest)
        if tail > 1 - CONFIDENCE:
            return k + 1
    return 1  # unreachable for 0 < p < 1: the whole tail is 1


def _t_95(freedom: int) -> float:
    """Student's t, two-sided 95 %: the table, then the Cornish-Fisher series (Abramowitz and Stegun 26.7.5)."""
    if freedom <= len(_T_95):
        return _T_95[freedom - 1]
    z = _Z_95
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
