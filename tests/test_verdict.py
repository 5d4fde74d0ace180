"""What to ship, and the sentence that says why."""

from __future__ import annotations

from dataclasses import replace

from edgekit.settings import GoalSettings
from edgekit.statistics import Percentile
from edgekit.verdict import Verdict, verdict
from tests.records import ROUNDS, accuracy, final


def goal(**changes: object) -> GoalSettings:
    return GoalSettings.model_validate({"device": "x86-cpu", "runtime": "onnxruntime", "accuracy_drop": 1.0, **changes})


FLOAT = final("prune float32 onnxruntime", 1.0)
INT8 = final("quantize int8 onnxruntime", 0.5, bytes=30_000)


def test_int8_is_shipped_when_its_interval_lies_below_the_floats() -> None:
    made = verdict([FLOAT, INT8], goal())
    assert made.ship == "quantize int8 onnxruntime"
    assert made.goal_met
    assert "2.00 times faster [2.00, 2.00] than the best float candidate, prune float32 onnxruntime" in made.reason
    assert "0.50 points below the baseline" in made.reason


def test_int8_inside_the_noise_of_the_float_is_not_shipped() -> None:
    wavering = tuple(reversed(ROUNDS))  # the same median, so the interval of the ratio holds 1
    made = verdict([FLOAT, replace(INT8, rounds_p50_ms=wavering)], goal())
    assert made.ship == "prune float32 onnxruntime"
    assert "not faster beyond the noise" in made.reason


def test_int8_slower_than_bf16_in_another_runtime_is_not_shipped() -> None:
    bf16 = final("prune bf16 openvino", 0.25)
    made = verdict([FLOAT, INT8, bf16], goal())
    assert made.ship == "prune bf16 openvino"
    assert "quantize int8 onnxruntime is slower" in made.reason
    assert "The goal names onnxruntime: quantize int8 onnxruntime is the best there" in made.reason
    assert made.boards[0].judged == "quantize int8 onnxruntime"
    assert made.goal_met


def test_int8_outside_the_accuracy_budget_is_not_shipped() -> None:
    made = verdict([FLOAT, replace(INT8, accuracy_drop=1.1)], goal())
    assert made.ship == "prune float32 onnxruntime"
    assert "no int8 candidate is inside the accuracy budget" in made.reason


def test_a_drop_of_exactly_the_budget_is_inside() -> None:
    assert verdict([FLOAT, replace(INT8, accuracy_drop=1.0)], goal()).ship == "quantize int8 onnxruntime"


def test_nothing_inside_the_budget_ships_nothing_and_names_the_nearest() -> None:
    over = [replace(f, accuracy_drop=2.0, accuracy=accuracy(a)) for f, a in ((FLOAT, 0.96), (INT8, 0.95))]
    made = verdict(over, goal())
    assert (made.ship, made.goal_met) == (None, False)
    assert "the nearest is prune float32 onnxruntime: accuracy_drop: 2.00 points, the goal is 1." in made.reason


def test_an_unknown_accuracy_is_not_inside_a_budget() -> None:
    made = verdict([replace(INT8, accuracy=None, accuracy_drop=None)], goal())
    assert made.ship is None
    assert "no candidate's is known" in made.reason


def test_an_invalid_measurement_never_wins_and_is_named() -> None:
    made = verdict([FLOAT, replace(INT8, state="invalid", reasons=("clock unknown",))], goal())
    assert made.ship == "prune float32 onnxruntime"
    assert "no int8 candidate was measured" in made.reason
    assert made.boards[0].notes == (
        "quantize int8 onnxruntime was left out, its measurement is invalid: clock unknown.",
    )


def test_a_degraded_winner_says_so_in_the_reason() -> None:
    made = verdict([FLOAT, replace(INT8, state="degraded", reasons=("load 1.7 beside it",))], goal())
    assert made.ship == "quantize int8 onnxruntime"
    assert made.reason.endswith("It was measured on a degraded board: load 1.7 beside it.")


def test_among_floats_inside_the_noise_the_smaller_file_is_taken() -> None:
    small = final("small float32 onnxruntime", 1.005, bytes=60_000, rounds_p50_ms=tuple(reversed(ROUNDS)))
    made = verdict([FLOAT, small], goal())
    assert made.ship == "small float32 onnxruntime"
    assert "inside the noise of it lies prune float32 onnxruntime" in made.reason


def test_a_threshold_that_is_missed_is_a_sentence() -> None:
    made = verdict([FLOAT, INT8], goal(latency_p50_ms=0.4, latency_p99_ms=0.55, size_kb=20))
    assert made.ship == "quantize int8 onnxruntime"
    assert made.misses == (
        "latency_p50_ms: 0.5 ms, the goal is 0.4 ms.",
        "latency_p99_ms: 0.6 ms, the goal is 0.55 ms.",
        "size_kb: 30.0 kB, the goal is 20.",
    )
    assert not made.goal_met


def test_a_p99_of_too_few_samples_is_not_proven() -> None:
    few = replace(INT8, p99=Percentile(99, None, 300, 662, None))
    made = verdict([FLOAT, few], goal(latency_p99_ms=5.0))
    assert made.misses == ("latency_p99_ms: not proven, 300 samples where 662 are needed; measure longer.",)


def test_a_p99_whose_upper_bound_misses_is_a_doubt() -> None:
    made = verdict([FLOAT, INT8], goal(latency_p99_ms=0.62))  # p99 0.6 ms, upper bound 0.65 ms
    assert made.goal_met
    assert "p99 of quantize int8 onnxruntime meets the goal, its upper bound 0.65 ms does not." in made.boards[0].notes


def test_a_budget_finer_than_the_test_set_is_a_doubt() -> None:
    made = verdict([FLOAT, INT8], goal(accuracy_drop=0.6))  # the interval is ±0.8 points
    assert "1000 test images resolve accuracy to ±0.8 points, coarser than the budget of 0.6." in made.boards[0].notes


def test_a_size_goal_takes_the_candidate_that_fits() -> None:
    wavering = replace(INT8, rounds_p50_ms=tuple(reversed(ROUNDS)))
    made = verdict([FLOAT, wavering], goal(size_kb=50))
    assert made.ship == "quantize int8 onnxruntime"
    assert "no float candidate is as small as the goal asks" in made.reason
    assert made.goal_met


def test_precisions_a_runtime_does_not_execute_are_listed() -> None:
    offered = {"x86-cpu": {"onnxruntime": ("float32", "int8"), "openvino": ("float32", "bf16", "int8")}}
    made = verdict([FLOAT, INT8, final("prune float32 openvino", 1.1)], goal(), offered)
    assert made.boards[0].notes == (
        "float16, bf16: not offered by this runtime (onnxruntime).",
        "float16: not offered by this runtime (openvino).",
        "bf16, int8: offered by openvino, not measured.",
    )


def test_every_board_gets_a_choice_of_its_own() -> None:
    there = [replace(FLOAT, board="pi"), replace(INT8, board="pi", rounds_p50_ms=tuple(2 * ms for ms in ROUNDS))]
    made = verdict([FLOAT, INT8, *there], goal())
    assert [(choice.board, choice.ship) for choice in made.boards] == [
        ("x86-cpu", "quantize int8 onnxruntime"),
        ("pi", "prune float32 onnxruntime"),
    ]


def test_a_goal_board_without_a_measurement_is_a_miss() -> None:
    made = verdict([replace(FLOAT, board="pi")], goal())
    assert made.ship is None
    assert made.misses == ("Nothing can be shipped on x86-cpu: no candidate has a valid measurement.",)


def test_a_camera_row_decides_nothing() -> None:
    made = verdict([FLOAT, replace(INT8, scenario="camera@30")], goal())
    assert made.ship == "prune float32 onnxruntime"


def test_a_verdict_survives_a_dict() -> None:
    made = verdict([FLOAT, INT8], goal())
    assert Verdict.from_dict(made.as_dict()) == made
