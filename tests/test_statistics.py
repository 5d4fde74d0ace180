"""Percentiles, intervals and steadiness against numbers worked by hand, and against simulated latencies."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.statistics import Percentile, drift, is_steady, needed_samples, percentile, ratio, variation, wilson

SHAPES = ["lognormal", "exponential", "bimodal"]


@pytest.mark.parametrize(("q", "needed"), [(50, 11), (90, 64), (95, 130), (99, 662), (99.9, 6636)])
def test_a_percentile_needs_the_samples_that_loadgen_needs(q: float, needed: int) -> None:
    p = q / 100
    assert needed_samples(q) == needed
    assert p**needed + needed * (1 - p) * p ** (needed - 1) <= 0.01
    assert p ** (needed - 1) + (needed - 1) * (1 - p) * p ** (needed - 2) > 0.01


def test_a_percentile_with_too_few_samples_is_not_available_and_says_what_it_needs() -> None:
    result = percentile(np.arange(300.0), 99)
    assert (result.value, result.upper) == (None, None)
    assert str(result) == "n/a (n = 300, needs 662)"


def test_a_percentile_is_the_order_statistic_of_its_rank() -> None:
    shuffled = np.random.default_rng(0).permutation(np.arange(1.0, 101.0))
    assert percentile(shuffled, 90).value == 90
    assert percentile(shuffled, 50).value == 50
    assert str(percentile(shuffled, 50)) == "50"


def test_the_upper_bound_of_the_smallest_sample_is_the_second_largest_value() -> None:
    # P(median lies above the second largest of 11) = P(Binomial(11, 1/2) >= 10) = 12 / 2048 = 0.006 <= 0.01
    assert percentile(np.arange(1.0, 12.0), 50) == Percentile(50, 6.0, 11, 11, 10.0)
    assert percentile(np.arange(1.0, 663.0), 99).upper == 661


def test_the_upper_bound_is_the_smallest_rank_whose_binomial_tail_is_within_one_percent() -> None:
    tail = {k: sum(math.comb(100, i) for i in range(k, 101)) / 2**100 for k in range(101)}
    rank = min(k for k, chance in tail.items() if chance <= 0.01)
    assert percentile(np.arange(1.0, 101.0), 50).upper == rank == 63


@pytest.mark.parametrize("q", [0, 100, -1, 101])
def test_a_percentile_outside_0_to_100_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        percentile([1.0], q)


@settings(max_examples=20, derandomize=True, deadline=None)
@given(seed=st.integers(0, 10**6), shape=st.sampled_from(SHAPES), n=st.integers(130, 600))
def test_the_upper_bound_covers_the_true_p95_in_at_least_99_of_100_runs(seed: int, shape: str, n: int) -> None:
    rng = np.random.default_rng(seed)
    truth = float(np.quantile(_latencies(np.random.default_rng(1), shape, 400_000), 0.95))
    bounds = [percentile(_latencies(rng, shape, n), 95).upper for _ in range(300)]
    # 300 runs miss 3 times at most on average; 12 misses would be chance once in ten thousand.
    assert sum(bound is not None and bound < truth for bound in bounds) <= 12


@settings(max_examples=20, derandomize=True, deadline=None)
@given(seed=st.integers(0, 10**6), truth=st.floats(0.2, 5.0), rounds=st.integers(3, 15), noise=st.floats(0.001, 0.1))
def test_the_interval_of_a_ratio_covers_the_truth_in_95_of_100_runs(
    seed: int, truth: float, rounds: int, noise: float
) -> None:
    rng = np.random.default_rng(seed)
    covered = 0
    for _ in range(400):
        shared = np.exp(rng.normal(0, 0.3, rounds))  # what the machine did to both in a round
        a = [np.array([truth * s * math.exp(e)]) for s, e in zip(shared, rng.normal(0, noise, rounds), strict=True)]
        b = [np.array([s]) for s in shared]
        interval = ratio(a, b)
        covered += interval.low <= truth <= interval.high
    assert abs(covered / 400 - 0.95) <= 4 * math.sqrt(0.95 * 0.05 / 400)


def test_a_ratio_without_noise_has_an_interval_without_width() -> None:
    twice = ratio([np.array([2.0, 4.0, 6.0])] * 5, [np.array([2.0])] * 5)
    assert (twice.value, twice.low, twice.high) == pytest.approx((2, 2, 2))


def test_a_ratio_of_two_rounds_uses_students_t_with_one_degree_of_freedom() -> None:
    # Ratios 2 and 8: geometric mean 4; logarithms differ by ln 4, so half = t * (ln 4 / sqrt 2) / sqrt 2.
    got = ratio([np.array([2.0]), np.array([8.0])], [np.array([1.0]), np.array([1.0])])
    half = 12.7062 * math.log(4) / 2
    assert (got.value, got.low, got.high) == pytest.approx((4, 4 * math.exp(-half), 4 * math.exp(half)))


@pytest.mark.parametrize(("rounds", "t"), [(12, 2.2010), (21, 2.0860), (61, 2.0003)])
def test_many_rounds_use_students_t_of_the_tables(rounds: int, t: float) -> None:
    logs = np.array([1.0, -1.0] * (rounds // 2) + [0.0] * (rounds % 2))
    got = ratio([np.array([math.exp(x)]) for x in logs], [np.array([1.0])] * rounds)
    half = t * float(np.std(logs, ddof=1)) / math.sqrt(rounds)
    assert math.log(got.high) == pytest.approx(half, rel=1e-4)


def test_one_round_has_no_interval() -> None:
    only = ratio([np.array([3.0])], [np.array([2.0])])
    assert (only.low, only.high) == (0, math.inf)
    assert only.value == pytest.approx(1.5)


def test_rounds_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="got 2 and 1"):
        ratio([np.ones(1)] * 2, [np.ones(1)])


def test_the_wilson_interval_of_nine_out_of_ten() -> None:
    assert wilson(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert wilson(10, 10)[1] == pytest.approx(1)


def test_three_windows_within_three_percent_are_steady() -> None:
    assert is_steady([9.0, 1.0, 1.02, 1.03])
    assert not is_steady([1.0, 1.0, 1.031])
    assert not is_steady([1.0, 1.0])


def test_drift_is_the_last_rounds_median_over_the_firsts() -> None:
    assert drift([np.array([1.0, 2.0, 9.0]), np.array([7.0]), np.array([3.0])]) == 1.5


def test_variation_is_the_deviation_over_the_mean() -> None:
    assert variation([9.0, 11.0]) == pytest.approx(math.sqrt(2) / 10)
    assert variation([9.0]) == 0


def _latencies(rng: np.random.Generator, shape: str, n: int) -> Any:
    if shape == "lognormal":
        return rng.lognormal(0, 0.5, n)
    if shape == "exponential":
        return 1 + rng.exponential(0.2, n)
    return np.where(rng.random(n) < 0.9, rng.normal(1, 0.02, n), rng.normal(3, 0.1, n))
