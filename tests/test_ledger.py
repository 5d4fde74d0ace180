"""Baseline, drops and ratios, and the ledger as a file."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from edgekit.errors import InputError
from edgekit.ledger import Ledger, paired_ratio
from tests.records import accuracy, ledger, profile, row


def test_the_baseline_is_the_model_that_enters_the_first_compressing_stage() -> None:
    for kind in ("distill", "prune", "quantize"):
        made = Ledger((row("a", "finetune"), row("b", "finetune"), row("c", kind), row("d", "quantize")))
        assert made.baseline is not None
        assert made.baseline.step == "b"


def test_a_recipe_that_begins_by_compressing_is_held_against_the_original() -> None:
    made = Ledger((row("original", "original"), row("prune", "prune")))
    assert made.baseline is not None
    assert made.baseline.step == "original"


def test_an_empty_ledger_has_no_baseline() -> None:
    assert Ledger().baseline is None


def test_a_drop_is_in_points_below_the_baseline() -> None:
    assert Ledger().drop(accuracy(0.965), accuracy(0.980)) == 1.5
    assert Ledger().drop(accuracy(0.990), accuracy(0.980)) == -1.0
    assert Ledger().drop(None, accuracy(0.980)) is None


def test_finals_carry_drop_size_and_both_ratios() -> None:
    teacher, student, pruned, int8 = ledger().finals
    assert (teacher.accuracy_drop, int8.accuracy_drop) == (0.0, 1.5)
    assert (int8.parameters, int8.macs, int8.size_kb) == (25_000, 1_000_000, 50.0)
    assert int8.speedup is not None
    assert int8.speedup.value == pytest.approx(1.0 / 0.125)
    assert int8.speedup_over_float is not None
    assert int8.speedup_over_float.value == pytest.approx(0.25 / 0.125)
    assert student.speedup is not None
    assert student.speedup.value == pytest.approx(2.0)
    assert teacher.speedup is None
    assert pruned.speedup_over_float is None
    assert int8.float_reference == "prune float32 onnxruntime"


def test_candidates_of_another_board_are_no_reference() -> None:
    made = Ledger((row("teacher", "finetune"), row("prune", "prune")))
    here = profile("prune", "float32", 0.5)
    there = replace(profile("teacher", "float32", 1.0), board="pi")
    made.add_finals([here, there])
    assert made.finals[0].speedup is None


def test_the_baseline_that_was_not_profiled_gives_its_accuracy_from_its_step() -> None:
    made = Ledger((row("teacher", "finetune", 0.98), row("prune", "prune", 0.9)))
    made.add_finals([profile("prune", "float32", 0.5, share=0.97)])
    assert made.finals[0].accuracy_drop == 1.0


def test_rounds_that_cannot_be_paired_have_no_ratio() -> None:
    assert paired_ratio((1.0, 1.0), (2.0,)) is None
    assert paired_ratio((), ()) is None


def test_the_ratio_of_medians_is_the_ratio_of_the_rounds() -> None:
    slow = tuple(np.full(50, ms) for ms in (2.0, 2.2))
    fast = tuple(np.full(70, ms) for ms in (1.0, 1.1))
    one = replace(profile("a", "float32", 1.0), rounds_ms=slow)
    other = replace(profile("b", "float32", 1.0), rounds_ms=fast)
    made = paired_ratio((2.0, 2.2), (1.0, 1.1))
    assert made is not None
    assert made == other.speedup_over(one)
    assert made.value == pytest.approx(2.0)


def test_a_ledger_survives_json() -> None:
    before = ledger()
    text = json.dumps(before.as_dict(), allow_nan=False)
    after = Ledger.from_dict(json.loads(text))
    assert after.rows == before.rows
    assert after.finals == before.finals


def test_an_interval_without_an_end_is_null_in_json_and_infinite_again() -> None:
    made = Ledger((row("teacher", "finetune"), row("prune", "prune")))
    one_round = [replace(profile(label, "float32", 1.0), rounds_ms=(np.ones(20),)) for label in ("teacher", "prune")]
    made.add_finals(one_round)
    record = json.loads(json.dumps(made.as_dict(), allow_nan=False))
    assert record["finals"][1]["speedup"]["high"] is None
    after = Ledger.from_dict(record).finals[1].speedup
    assert after is not None
    assert after.high == math.inf


def test_a_file_of_another_schema_is_refused() -> None:
    with pytest.raises(InputError, match=r"edgekit\.ledger/1"):
        Ledger.from_dict({"schema": "edgekit.ledger/2"})
