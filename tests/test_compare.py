"""Two runs side by side: what regressed, and what cannot be compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgekit.artifact import Candidate
from edgekit.cli import app
from edgekit.compare import compare, share
from edgekit.device import open_board
from edgekit.errors import GateError, InputError, UsageError
from edgekit.ledger import Final, Ledger
from edgekit.profile import Inputs
from edgekit.subject import Load, Subject, measure
from tests import tiny_onnx
from tests.records import accuracy, final, profile

OLD = final("quantize int8 onnxruntime", 1.0, device={"cpu": "test", "governor": "performance"})


def write(path: Path, *finals: Final) -> Path:
    path.write_text(json.dumps(Ledger((), finals).as_dict()))
    return path


def against(tmp_path: Path, new: Final, old: Final = OLD, max_regress: float = 0.05) -> tuple[str, ...]:
    made = compare(write(tmp_path / "a.json", old), write(tmp_path / "b.json", new), max_regress)
    return made.regressions


def slower(share: float) -> Final:
    p50, rounds = OLD.p50, tuple(ms * share for ms in OLD.rounds_p50_ms)
    return replace(OLD, p50=replace(p50, value=(p50.value or 0) * share), rounds_p50_ms=rounds)


def test_a_slower_candidate_is_a_regression_beyond_what_is_allowed(tmp_path: Path) -> None:
    assert against(tmp_path, slower(1.04)) == ()
    assert against(tmp_path, slower(1.06)) == (
        "quantize int8 onnxruntime on x86-cpu became slower: p50 1 ms to 1.06 ms, +6.0 %, allowed 5 %.",
    )
    assert against(tmp_path, slower(1.06), max_regress=0.1) == ()


def test_a_faster_candidate_is_no_regression(tmp_path: Path) -> None:
    assert against(tmp_path, slower(0.5)) == ()


def test_a_slowdown_inside_the_noise_is_no_regression(tmp_path: Path) -> None:
    scattered = replace(slower(1.06), rounds_p50_ms=(0.8, 1.3, 0.9, 1.4, 0.9))
    assert against(tmp_path, scattered) == ()


def test_an_accuracy_below_the_old_interval_is_a_regression(tmp_path: Path) -> None:
    worse = replace(OLD, accuracy=accuracy(0.955))  # 0.975 ± 0.008 against 0.955 ± 0.008
    (sentence,) = against(tmp_path, worse)
    assert sentence.endswith("became less accurate: -2.00 points, beyond the noise.")
    assert against(tmp_path, replace(OLD, accuracy=accuracy(0.970))) == ()


def test_a_regression_ends_with_exit_code_5(tmp_path: Path) -> None:
    made = compare(write(tmp_path / "a.json", OLD), write(tmp_path / "b.json", slower(2)), 0.05)
    with pytest.raises(GateError, match="became slower") as caught:
        made.check()
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"board": "pi"}, "board was 'x86-cpu', is 'pi'"),
        ({"scenario": "camera@30"}, "scenario was 'single-stream', is 'camera@30'"),
        ({"scope": "device"}, "scope was 'host', is 'device'"),
        ({"threads": 2}, "threads was 1, is 2"),
        ({"batch": 8}, "batch was 1, is 8"),
        ({"streams": 4}, "streams was 1, is 4"),
        ({"engine": {"cores": [1]}}, r"cores was None, is [1]"),
        ({"input_kind": "random"}, "input_kind was 'test set', is 'random'"),
        ({"device": {"cpu": "test", "governor": "powersave"}}, "device governor was 'performance', is 'powersave'"),
        ({"device": {"cpu": "other", "governor": "performance"}}, "device cpu was 'test', is 'other'"),
        (
            {"device": {"cpu": "test", "governor": "performance", "power_mode": "15W"}},
            "device power_mode was None, is '15W'",
        ),
        ({"state": "invalid"}, "the new measurement is invalid"),
    ],
)
def test_incomparables_are_refused_with_the_reason(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match="cannot be compared") as caught:
        against(tmp_path, replace(OLD, **changed))  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_single_candidates_are_compared_whatever_they_are_called(tmp_path: Path) -> None:
    renamed = replace(slower(2), name="model float32 onnxruntime")
    assert len(against(tmp_path, renamed)) == 1


def test_candidates_are_paired_by_name_and_the_rest_is_listed(tmp_path: Path) -> None:
    other, third = final("prune float32 onnxruntime"), final("teacher float32 onnxruntime")
    made = compare(write(tmp_path / "a.json", OLD, other), write(tmp_path / "b.json", third, OLD), 0.05)
    assert [change.name for change in made.changes] == [OLD.name]
    assert made.unmatched == (other.name, third.name)


def test_nothing_in_common_is_an_error(tmp_path: Path) -> None:
    a = write(tmp_path / "a.json", OLD, final("prune float32 onnxruntime"))
    b = write(tmp_path / "b.json", final("teacher float32 onnxruntime"))
    with pytest.raises(InputError, match="no candidate in common"):
        compare(a, b, 0.05)


def test_profile_files_are_compared_too_one_a_line(tmp_path: Path) -> None:
    for name, p50_ms in (("a", 1.0), ("b", 1.2)):
        lines = [json.dumps(profile(label, "float32", p50_ms).as_dict()) for label in ("teacher", "prune")]
        (tmp_path / name).write_text("\n".join(lines))
    made = compare(tmp_path / "a", tmp_path / "b", 0.05)
    assert len(made.regressions) == 2
    assert "+20.0 %" in made.regressions[0]


def test_a_run_folder_stands_for_its_report(tmp_path: Path) -> None:
    record = {"schema": "edgekit.report/1", "ledger": Ledger((), (OLD,)).as_dict()}
    (tmp_path / "report.json").write_text(json.dumps(record))
    assert compare(tmp_path, tmp_path, 0.05).changes[0].before_ms == 1.0


@pytest.mark.parametrize("text", ["nonsense", "[1]", '{"schema": "edgekit.ledger/1"}', '{"schema": "x"}'])
def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError):
        compare(tmp_path / "a.json", tmp_path / "a.json", 0.05)


def test_what_was_fastest_and_is_again_is_confirmed(tmp_path: Path) -> None:
    other = final("prune float32 onnxruntime", 2.0)
    made = compare(write(tmp_path / "a.json", other, OLD), write(tmp_path / "b.json", slower(1.04), other), 0.05)
    (order,) = made.orders
    assert (order.fastest, order.other, order.state) == (OLD.name, other.name, "confirmed")
    assert (order.before.value, order.after.value) == pytest.approx((0.5, 0.52))
    assert str(order).startswith(f"{OLD.name} was the fastest, confirmed: time over {other.name}'s on x86-cpu: 0.5 [")


@pytest.mark.parametrize(("after", "state"), [((0.9, 1.1, 0.9, 1.1, 1.0), "inside the noise"), (None, "reversed")])
def test_an_order_that_is_not_seen_again_is_inside_the_noise_or_reversed(
    tmp_path: Path, after: tuple[float, ...] | None, state: str
) -> None:
    other = final("prune float32 onnxruntime", 1.2)
    again = replace(OLD, rounds_p50_ms=after) if after else slower(2.0)
    again_other = replace(other, rounds_p50_ms=(1.0,) * 5) if after else other
    made = compare(write(tmp_path / "a.json", OLD, other), write(tmp_path / "b.json", again, again_other), 2.0)
    assert [order.state for order in made.orders] == [state]


def test_an_order_measured_again_in_new_processes_is_confirmed(tmp_path: Path) -> None:
    path = tiny_onnx.write(tmp_path / "tiny.onnx")
    pair = [Candidate(f"{ms}ms", tiny_onnx.artifact(path), "null", {"sleep_ms": ms}) for ms in (1, 4)]
    here = open_board("x86-cpu")
    for name in ("first.json", "again.json"):
        measure(Subject(tuple(pair), here, Inputs(np.zeros((1, 1)))), Load(seconds=0.4), out=tmp_path / name)
    made = compare(tmp_path / "first.json", tmp_path / "again.json", 1.0)
    assert [(order.fastest, order.state) for order in made.orders] == [("1ms int8 null", "confirmed")]
    assert 0.2 < made.orders[0].after.value < 0.5  # 1 / 4, and what a busy machine adds to both


def test_the_command_ends_with_5_on_a_regression_and_3_on_incomparables(tmp_path: Path) -> None:
    old, new = write(tmp_path / "a.json", OLD), write(tmp_path / "b.json", slower(1.2))
    other = write(tmp_path / "c.json", replace(OLD, threads=2))
    regressed = CliRunner().invoke(app, ["compare", str(old), str(new)])
    assert (regressed.exit_code, "became slower" in regressed.stderr, "1.20 [" in regressed.stdout) == (5, True, True)
    assert CliRunner().invoke(app, ["compare", str(old), str(new), "--max-regress", "25%"]).exit_code == 0
    refused = CliRunner().invoke(app, ["compare", str(old), str(other)])
    assert (refused.exit_code, "threads was 1, is 2" in refused.stderr) == (3, True)
    as_json = CliRunner().invoke(app, ["compare", str(old), str(old), "--json"])
    assert json.loads(as_json.stdout)["changes"][0]["before_ms"] == 1.0


def test_a_share_is_written_in_percent() -> None:
    assert share("5%") == 0.05
    assert share("2.5 %") == 0.025
    for text in ("5", "0.05", "five%", "-5%"):
        with pytest.raises(UsageError, match="no percentage"):
            share(text)
