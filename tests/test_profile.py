"""The host's half of measuring: a scripted bench on a fake link, and one profile with everything real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgekit import __version__, lookup
from edgekit.artifact import Artifact, Candidate, sha256_of
from edgekit.device import Board
from edgekit.errors import DependencyError, DeviceError, InputError
from edgekit.links import Link
from edgekit.profile import Inputs, Profile, doubts, profile, rounds
from tests import tiny_onnx

# A bench that answers every request from a list, the last answer for good, and logs what it was asked.
SCRIPT = """
import json, os, sys, time
log, answers = sys.argv[1], json.loads(sys.argv[2])
for line in sys.stdin:
    request = json.loads(line)
    name = request["request"]
    with open(log, "a") as stream:
        stream.write(json.dumps({"pid": os.getpid(), **request}) + "\\n")
    planned = answers.get(name, [{}])
    answer = planned.pop(0) if len(planned) > 1 else planned[0]
    if answer == "die":
        print("Segmentation fault, as it were", file=sys.stderr, flush=True)
        os._exit(139)
    if answer == "hang":
        time.sleep(600)
    print(answer if isinstance(answer, str) else json.dumps({"ok": True, **answer}), flush=True)
"""
QUIET = {
    "ended_s": 0.0,
    "window_s": 2.0,
    "other_cores": 0.0,
    "waited": 0.0,
    "mhz": None,
    "throttles": 0,
    "energy_j": None,
}
WINDOW = {**QUIET, "temperature_c": [None, None]}
ENGINE = {"runtime": "onnxruntime", "cores": [0], "load_ms": 7.0}
RAPL = {"rail": "RAPL package", "reason": None}
BUSY = {**WINDOW, "other_cores": 1.25}


class FakeLink(Link):
    """Starts scripted benches, one plan after the other; outputs are given by the test."""

    def __init__(self, log: Path, plans: list[dict[str, Any]], outputs: dict[str, np.ndarray]):
        self._log, self._plans, self._outputs = log, plans, outputs
        self.processes: list[subprocess.Popen[str]] = []

    def put(self, path: Path, sha256: str, companions: Sequence[Path] = ()) -> str:
        return f"/board/{path.name}"

    def get(self, remote: str, path: Path) -> None:
        np.savez(path, **self._outputs)  # type: ignore[arg-type]

    def bench(self) -> subprocess.Popen[str]:
        plan = self._plans[len(self.processes) % len(self._plans)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-S", "-c", SCRIPT, str(self._log), json.dumps(plan)]
        process: subprocess.Popen[str] = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
        self.processes.append(process)
        return process

    def asked(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [line for line in lines if line["request"] == name]


Make = Callable[..., FakeLink]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """fake(plan, ..., outputs=...): the link of a board whose benches follow the plans in turn."""

    def make(*plans: dict[str, Any], outputs: dict[str, np.ndarray] | None = None) -> FakeLink:
        link = FakeLink(tmp_path / "asked.jsonl", list(plans) or [plan()], outputs or {"y": np.eye(4)})
        monkeypatch.setattr(lookup, "find", lambda folder, name: SimpleNamespace(open_link=lambda settings: link))
        return link

    return make


def plan(**answers: Any) -> dict[str, Any]:
    """What a healthy bench answers, request by request, with what a test changes."""
    usual = {
        "hello": [{"device": {"cpu": "Fake 9000"}, "scratch": "/scratch"}],
        "open": [{"engine": ENGINE, "energy": {"rail": None, "reason": "no counter"}}],
        "warmup": [{"steady": True, "warmup_s": 3.0, "medians_ms": [1.0, 1.0, 1.0]}],
        "measure": [measured([1.0] * 20)],
        "layers": [{"layers": [{"name": "conv", "type": "Conv", "ms": 0.5}]}],
    }
    return {**usual, **answers}


def measured(samples_ms: list[float], window: dict[str, Any] = WINDOW, **facts: Any) -> dict[str, Any]:
    memory = {"peak_memory_bytes": 10**8}
    return {"samples_ms": samples_ms, "batch": 1, "streams": 1, "window": window, **memory, **facts}


def board() -> Board:
    return SimpleNamespace(name="fake-board", link="fake", link_settings={})  # type: ignore[return-value]


def here() -> Board:
    return SimpleNamespace(name="here", link="local", link_settings={})  # type: ignore[return-value]


def warm(number: int, heat_c: float) -> dict[str, Any]:
    """Round `number` of a soak, 30 s long, at the end of which the board is that hot; each is 0.1 ms slower."""
    window = {**WINDOW, "ended_s": 30.0 * number, "temperature_c": [heat_c - 1, heat_c]}
    return measured([1.0 + 0.1 * number], window)


def candidate(folder: Path, label: str = "prune", **options: Any) -> Candidate:
    path = folder / f"{label}.onnx"
    path.write_bytes(b"model")
    return Candidate(label, Artifact(path, "onnx", sha256_of(path), 5, (), ()), "onnxruntime", options)


def inputs(n: int = 4, **fields: Any) -> Inputs:
    return Inputs(np.zeros((n, 2), np.float32), **fields)


def test_candidates_take_turns_round_by_round(fake: Make, tmp_path: Path) -> None:
    link = fake()
    profile([candidate(tmp_path, "a"), candidate(tmp_path, "b")], board(), inputs(), seconds=6, rounds=3)
    order = [one["pid"] for one in link.asked("measure")]
    first, second = order[:2]
    assert first != second
    assert order == [first, second] * 3
    assert {one["seconds"] for one in link.asked("measure")} == {6 / 3}
    assert [process.poll() for process in link.processes] == [0, 0]


def test_a_candidates_own_options_come_before_the_boards_threads(fake: Make, tmp_path: Path) -> None:
    link = fake()
    both = [candidate(tmp_path, "a"), candidate(tmp_path, "b", threads=4, precision="bf16")]
    rows = profile(both, board(), inputs(preprocess={"size": [2, 2]}), seconds=1, threads=2)
    opened = link.asked("open")
    assert [one["options"] for one in opened] == [{"threads": 2}, {"threads": 4, "precision": "bf16"}]
    assert [row.threads for row in rows] == [2, 4]
    assert (opened[0]["path"], opened[0]["inputs"]) == ("/board/a.onnx", {"": "/board/input0.npy"})
    assert opened[0]["preprocess"] == {"size": [2, 2]}


def test_a_row_holds_what_was_read_back_and_the_rounds_apart(fake: Make, tmp_path: Path) -> None:
    fake(plan(measure=[measured([1.0, 1.0]), measured([1.0, 1.01])]))
    lines: list[str] = []
    row = profile([candidate(tmp_path)], board(), inputs(), seconds=1, rounds=2, report=lines.append)[0]
    assert [samples.tolist() for samples in row.rounds_ms] == [[1.0, 1.0], [1.0, 1.01]]
    assert (row.state, row.reasons) == ("valid", ())
    assert row.engine == ENGINE
    assert (row.load_s, row.per_s) == (2 * 2.0, 4 / 4.0)
    assert row.last_over_first == pytest.approx(1.005)
    assert row.peak_memory_bytes == 10**8
    assert row.device["cpu"] == "Fake 9000"
    assert row.layers[0]["ms"] == 0.5
    assert "prune float32 onnxruntime: round 2 of 2, median 1.005 ms" in lines


def test_accuracy_is_the_share_of_largest_scores_that_hit_their_label(fake: Make, tmp_path: Path) -> None:
    fake(outputs={"y": np.eye(4), "features": np.zeros((4, 9))})
    row = profile([candidate(tmp_path)], board(), inputs(labels=np.array([0, 1, 2, 0])), seconds=1)[0]
    assert row.accuracy is not None
    assert (row.accuracy.value, row.accuracy.n) == (3 / 4, 4)
    assert row.accuracy.ci95 == pytest.approx((0.3006, 0.9544), abs=1e-4)  # Wilson, 3 of 4
    assert row.outputs["features"].shape == (4, 9)


def test_without_accuracy_no_input_is_run_for_its_output(fake: Make, tmp_path: Path) -> None:
    link = fake()
    row = profile([candidate(tmp_path)], board(), inputs(labels=np.zeros(4)), seconds=1, accuracy=False)[0]
    assert link.asked("infer") == []
    assert (row.accuracy, dict(row.outputs)) == (None, {})


def test_a_file_that_gives_nan_is_invalid(fake: Make, tmp_path: Path) -> None:
    fake(outputs={"y": np.array([[1.0], [np.nan], [0.0], [0.0]])})
    row = profile([candidate(tmp_path)], board(), inputs(), seconds=1)[0]
    assert (row.state, row.reasons) == ("invalid", ("output 'y' holds NaN or infinity",))


def test_a_disturbed_round_is_measured_once_more_and_forgotten(fake: Make, tmp_path: Path) -> None:
    link = fake(plan(measure=[measured([9.0], BUSY), measured([1.0])]))
    row = profile([candidate(tmp_path)], board(), inputs(), seconds=1, rounds=2)[0]
    assert len(link.asked("measure")) == 2 + 1
    assert row.samples_ms.tolist() == [1.0, 1.0]
    assert row.state == "valid"


def test_a_machine_that_stays_busy_is_reported_and_the_retries_end(fake: Make, tmp_path: Path) -> None:
    link = fake(plan(measure=[measured([1.0], BUSY)]))
    row = profile([candidate(tmp_path)], board(), inputs(), seconds=1, rounds=3)[0]
    assert len(link.asked("measure")) == 3 * 2
    assert row.state == "degraded"
    assert row.reasons == ("other processes used up to 1.25 cores in 3 of 3 rounds: stop them and measure again",)


def test_a_busy_process_on_the_same_core_degrades_a_row_and_the_retries_end(tmp_path: Path) -> None:
    core = max(os.sched_getaffinity(0))
    busy = subprocess.Popen([sys.executable, "-c", f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: pass"])
    path = tiny_onnx.write(tmp_path / "tiny.onnx")
    tiny = Candidate("tiny", tiny_onnx.artifact(path), "null")
    try:
        row = profile([tiny], here(), Inputs(tiny_onnx.images(1)), seconds=0.6, rounds=2, cores=[core])[0]
    finally:
        busy.kill()
        busy.wait()
    assert row.engine["cores"] == [core]
    assert row.state == "degraded"
    assert any("kept off its core" in reason and "in 2 of 2 rounds" in reason for reason in row.reasons)


def test_a_device_that_heats_up_is_reported(fake: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = [(2400, 60, 1.0), (2400, 75, 1.0), (1800, 90, 1.4)]
    heating = [
        measured([ms] * 20, {**WINDOW, "mhz": mhz, "temperature_c": [heat - 5, heat], "throttles": int(mhz < 2000)})
        for mhz, heat, ms in trace
    ]
    link = fake(plan(measure=heating))
    monkeypatch.setattr(rounds, "COOL_DOWN_S", 0.0)
    row = profile([candidate(tmp_path)], board(), inputs(), seconds=1, rounds=3)[0]
    assert len(link.asked("measure")) == 3 + 1  # the throttled round was tried again
    assert row.state == "degraded"
    assert row.reasons[0].startswith("the processor throttled 1 times")
    assert any(reason.startswith("became slower: the last round's median is 1.40 times") for reason in row.reasons)
    assert any("the clock fell from 2400 to 1800 MHz" in reason for reason in row.reasons)
    assert row.thermal == {"temperature_c": [55, 90], "mhz": [1800, 2400], "throttles": 1}


def test_a_long_load_is_cut_into_rounds_of_30_s(fake: Make, tmp_path: Path) -> None:
    link = fake()
    profile([candidate(tmp_path)], board(), inputs(), seconds=600)
    assert [one["seconds"] for one in link.asked("measure")] == [30] * 20


def test_a_soak_ends_when_the_temperature_stands_still(fake: Make, tmp_path: Path) -> None:
    heat_c = [50, 60, 64, 66, 66, 66, 66, 66]  # the first four 30 s windows without a slope are rounds 4 to 7
    link = fake(plan(measure=[warm(k, heat) for k, heat in enumerate(heat_c)]))
    row = profile([candidate(tmp_path)], board(), inputs(), seconds=1, soak=True)[0]
    assert {one["seconds"] for one in link.asked("measure")} == {30}
    assert len(row.rounds_ms) == 7
    assert row.thermal is not None
    assert (row.thermal["temperature_c"], row.thermal["settled"]) == ([49, 66], True)
    assert row.last_over_first == pytest.approx(1.6)  # the last 30 s against the first


def test_a_soak_that_never_settles_ends_at_its_cap_and_says_so(
    fake: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "SOAK_CAP_S", 240.0)
    fake(plan(measure=[warm(k, 40 + k) for k in range(20)]))
    row = profile([candidate(tmp_path)], board(), inputs(), seconds=1, soak=True)[0]
    assert len(row.rounds_ms) == 240 / 30
    assert row.thermal is not None
    assert row.thermal["settled"] is False
    assert any("the temperature had not settled" in reason for reason in row.reasons)


def test_a_soak_that_sees_no_temperature_runs_for_a_fixed_time_and_says_so(fake: Make, tmp_path: Path) -> None:
    fake()
    row = profile([candidate(tmp_path), candidate(tmp_path)], board(), inputs(), seconds=1, soak=True)[0]
    assert len(row.rounds_ms) == 600 / 30 / 2  # two candidates share the ten minutes
    assert row.thermal is not None
    assert row.thermal["settled"] is None


def test_a_board_that_did_not_become_steady_is_reported(fake: Make, tmp_path: Path) -> None:
    fake(plan(warmup=[{"steady": False, "warmup_s": 8.0, "medians_ms": [1.0, 2.0, 3.0]}]))
    row = profile([candidate(tmp_path)], board(), inputs(), seconds=1)[0]
    assert (row.state, row.steady, row.warmup_s) == ("degraded", False, 8.0)
    assert row.reasons[0].startswith("not steady after the warm-up")


def test_scattered_rounds_are_doubted_and_quiet_ones_are_not() -> None:
    scattered = [np.array([one]) for one in (1.0, 1.1, 0.9, 1.0)]  # deviation 0.0816, mean 1
    assert doubts.of_rounds(scattered, [WINDOW] * 4, steady=True) == (
        "the rounds' medians vary by 8.2 % (coefficient of variation)",
    )
    assert doubts.of_rounds([np.array([1.0])] * 4, [WINDOW] * 4, steady=True) == ()


def test_energy_is_counted_over_the_windows_and_net_of_idling(fake: Make, tmp_path: Path) -> None:
    window = {**WINDOW, "window_s": 3.0, "energy_j": 30.0}
    idle = {"window": {**WINDOW, "window_s": 10.0, "energy_j": 40.0}}
    link = fake(plan(open=[{"engine": ENGINE, "energy": RAPL}], idle=[idle], measure=[measured([1.0] * 100, window)]))
    both = [candidate(tmp_path), candidate(tmp_path)]
    energy = profile(both, board(), inputs(), seconds=6, rounds=2)[1].energy
    assert energy is not None
    assert len(link.asked("idle")) == 1  # the two share a rail
    assert energy.rail == "RAPL package"
    assert (energy.watts_mean, energy.watts_idle) == (60 / 6, 4)
    assert (energy.j_per_inference, energy.j_per_inference_net) == (60 / 200, (60 - 4 * 6) / 200)


def test_energy_that_cannot_be_read_is_none_with_its_reason(fake: Make, tmp_path: Path) -> None:
    link = fake()
    energy = profile([candidate(tmp_path)], board(), inputs(), seconds=1)[0].energy
    assert energy is not None
    assert (energy.j_per_inference, energy.watts_mean, energy.samples) == (None, None, 0)
    assert energy.reason == "no counter"
    assert link.asked("idle") == []


def test_energy_of_a_short_window_is_none(fake: Make, tmp_path: Path) -> None:
    window = {**WINDOW, "window_s": 2.0, "energy_j": 9.0}
    link = fake(plan(open=[{"engine": ENGINE, "energy": RAPL}], measure=[measured([1.0], window)]))
    energy = profile([candidate(tmp_path)], board(), inputs(), seconds=4, rounds=2)[0].energy
    assert energy is not None
    assert (energy.j_per_inference, energy.reason) == (None, "the window of 4.0 s is shorter than 5 s")
    assert link.asked("idle") == []  # idling would tell nothing


def test_a_cameras_rounds_add_up(fake: Make, tmp_path: Path) -> None:
    facts = {"ms": 10.0, "frames": 50, "drop": "latest"}
    one = measured([1.0] * 48, deadline={**facts, "missed": 5, "max_run": 4, "dropped": 2})
    two = measured([1.0] * 50, deadline={**facts, "missed": 1, "max_run": 1, "dropped": 0})
    fake(plan(measure=[one, two]))
    row = profile([candidate(tmp_path)], board(), inputs(), seconds=1, rounds=2, scenario="camera@100")[0]
    added = {"missed": 6, "missed_pct": 6.0, "max_run": 4, "dropped": 2, "drop": "latest"}
    assert row.deadline == {"ms": 10.0, "frames": 100, **added}


def test_a_bench_that_dies_is_a_device_error_with_its_last_words(fake: Make, tmp_path: Path) -> None:
    link = fake(plan(measure=["die"]))
    with pytest.raises(DeviceError, match=r"prune float32 onnxruntime: the bench .* \(exit code 139\)") as caught:
        profile([candidate(tmp_path), candidate(tmp_path)], board(), inputs(), seconds=1)
    assert "Segmentation fault, as it were" in str(caught.value)
    assert all(process.poll() is not None for process in link.processes)


@pytest.mark.parametrize("garbage", ["hello world", "[1, 2]", "{}", "NaN"])
def test_garbage_from_a_bench_is_a_device_error_that_shows_it(garbage: str, fake: Make, tmp_path: Path) -> None:
    fake(plan(open=[garbage]))
    with pytest.raises(DeviceError, match="the answer to 'open' is not one") as caught:
        profile([candidate(tmp_path)], board(), inputs(), seconds=1)
    assert garbage in str(caught.value)


def test_a_silent_bench_is_a_device_error_not_a_hang(
    fake: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "SLACK_S", 0.2)
    monkeypatch.setattr("edgekit.profile.remote.GRACE_S", 0.1)
    link = fake(plan(hello=["hang"]))
    with pytest.raises(DeviceError, match="no answer to 'hello' within"):
        profile([candidate(tmp_path)], board(), inputs(), seconds=1)
    assert all(process.poll() is not None for process in link.processes)


def test_what_the_board_refuses_keeps_its_class(fake: Make, tmp_path: Path) -> None:
    refusal = {"ok": False, "error": "DependencyError", "what": "tensorrt is not installed", "next": "flash JetPack"}
    fake(plan(open=[refusal]))
    with pytest.raises(DependencyError, match="fake-board: prune float32 onnxruntime: tensorrt is not") as caught:
        profile([candidate(tmp_path)], board(), inputs(), seconds=1)
    assert caught.value.next == "flash JetPack"


def test_labels_that_do_not_fit_the_inputs_are_refused() -> None:
    with pytest.raises(InputError, match="3 labels for 4 samples"):
        inputs(4, labels=np.zeros(3))
    with pytest.raises(InputError, match="no samples"):
        inputs(0)


def test_speedup_pairs_the_rounds() -> None:
    fast = _row([np.array([1.0]), np.array([2.0])])
    slow = _row([np.array([3.0]), np.array([6.0])])
    got = fast.speedup_over(slow)
    assert (got.value, got.low, got.high) == pytest.approx((3, 3, 3))


def test_the_row_is_json_without_samples_and_unknown_is_null(tmp_path: Path) -> None:
    row = _row([np.array([1.0, 2.0] * 6), np.array([3.0])])
    record = json.loads(json.dumps(row.as_dict(), allow_nan=False))
    assert record["schema"] == "edgekit.profile/1"
    assert (record["latency_ms"]["p50"], record["latency_ms"]["p50_upper99"]) == (2, 2)
    assert record["run"]["edgekit"] == __version__
    assert (record["latency_ms"]["p99"], record["accuracy"], record["energy"]) == (None, None, None)
    assert (record["window"]["n"], record["window"]["rounds_p50_ms"]) == (13, [1.5, 3.0])
    assert "rounds_ms" not in json.dumps(record)


def test_samples_are_kept_one_line_a_round(tmp_path: Path) -> None:
    _row([np.array([1.0, 2.0]), np.array([3.0])]).write_samples(tmp_path / "samples.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [(line["round"], line["latency_ms"]) for line in lines] == [(0, [1.0, 2.0]), (1, [3.0])]


@pytest.mark.parametrize("scenario", ["camera@0", "offlin"])
def test_an_unknown_scenario_is_refused_before_anything_starts(scenario: str, fake: Make, tmp_path: Path) -> None:
    link = fake()
    with pytest.raises(InputError, match=f"scenario '{scenario}': unknown"):
        profile([candidate(tmp_path)], board(), inputs(), seconds=1, scenario=scenario)
    assert link.processes == []


def test_the_board_is_asked_for_the_scope_the_cores_and_a_warm_up_that_fits(fake: Make, tmp_path: Path) -> None:
    link = fake()
    row = profile([candidate(tmp_path)], board(), inputs(), seconds=1, rounds=1, scope="e2e", cores=[1])[0]
    assert (link.asked("open")[0]["scope"], link.asked("open")[0]["cores"], row.scope) == ("e2e", [1], "e2e")
    assert (link.asked("warmup")[0]["window_s"], link.asked("warmup")[0]["cap_s"]) == (1 / 5, 1)
    profile([candidate(tmp_path)], board(), inputs(), seconds=30)
    assert link.asked("warmup")[1]["window_s"] == 1


def test_everything_real_on_this_machine(tmp_path: Path) -> None:
    path = tiny_onnx.write(tmp_path / "tiny.onnx")
    images = tiny_onnx.images(0.5, 1, 0.25)
    real = Candidate("quantize", tiny_onnx.artifact(path), "onnxruntime")
    row = profile([real], here(), Inputs(images, labels=np.array([1, 1, 0])), seconds=0.5)[0]
    assert row.outputs["y"] == pytest.approx(np.array([[1, 3], [2, 6], [0.5, 1.5]]))
    assert row.accuracy is not None
    assert row.accuracy.value == 2 / 3
    assert row.p50_ms is not None
    assert 0 < row.p50_ms < 10
    assert len(row.rounds_ms) == 5
    assert (row.engine["convolutions_int8"], row.engine["convolutions_float"]) == (1, 1)
    assert row.device["cores"] >= 1


def _row(rounds_ms: list[np.ndarray]) -> Profile:
    made = Candidate("prune", Artifact(Path("m.onnx"), "onnx", "0" * 64, 5, (), ()), "onnxruntime")
    return Profile(made, "fake-board", {}, {}, tuple(rounds_ms))
