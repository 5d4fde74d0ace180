"""The program on the board: schedules on a stepped clock, the protocol in a real process, what it may import."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.artifact import TensorSpec
from edgekit.bench import agent as bench
from edgekit.bench import telemetry
from edgekit.bench.agent import Bench, Clock, camera
from edgekit.bench.samples import Samples
from edgekit.errors import DependencyError, InputError, UsageError
from edgekit.links.local import open_link
from edgekit.profile import doubts
from edgekit.profile.remote import Remote
from edgekit.runtimes.null import NullSession
from tests import tiny_onnx

BUSY = "while True: pass"


class SteppedClock(Clock):
    """Time passes only when somebody sleeps or waits."""

    def __init__(self) -> None:
        self.ns = 0

    def now_ns(self) -> int:
        return self.ns

    def wait_until_ns(self, moment_ns: int) -> None:
        self.ns = max(self.ns, moment_ns)

    def sleep(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


def null_session(clock: SteppedClock, sleep_ms: float) -> NullSession:
    return NullSession(sleep_ms, sleep=clock.sleep, clock=clock.now_ns)


@pytest.fixture
def remote() -> Iterator[Remote]:
    remote = Remote(open_link({}).bench(), "here")
    yield remote
    remote.close()


def test_a_camera_faster_than_the_board_misses_every_deadline_and_drops_the_older_frames() -> None:
    clock = SteppedClock()
    session = null_session(clock, 25)
    got = camera(lambda: session.time_ms({}, 1)[0], clock, fps=100, seconds=0.1)
    # Frames arrive at 0, 10, ..., 90. Processed: 0 (until 25), 20 (50), 50 (75), 70 (100), 90 (125).
    assert got["samples_ms"] == [25, 50 - 20, 75 - 50, 100 - 70, 125 - 90]
    assert got["deadline"] == {"ms": 10, "frames": 10, "missed": 10, "max_run": 10, "dropped": 5, "drop": "latest"}


def test_the_closed_loop_hides_what_a_camera_waits_for() -> None:
    clock = SteppedClock()
    session = null_session(clock, 25)
    closed = session.time_ms({}, 5)
    opened = camera(lambda: session.time_ms({}, 1)[0], clock, fps=100, seconds=0.1)["samples_ms"]
    assert closed == [25] * 5  # coordinated omission: nobody waits while nobody asks
    assert max(opened) == 35


def test_one_stall_costs_the_frames_that_arrive_during_it() -> None:
    clock = SteppedClock()
    durations_ms = iter([2, 2, 2, 2, 35, 2, 2, 2])
    got = camera(lambda: clock.sleep(next(durations_ms) / 1e3), clock, fps=100, seconds=0.1)
    # Frame 4 runs from 40 to 75; 5 and 6 are dropped; 7, due at 70, is done at 77.
    assert got["samples_ms"] == [2, 2, 2, 2, 35, 7, 2, 2]
    assert got["deadline"] == {"ms": 10, "frames": 10, "missed": 3, "max_run": 3, "dropped": 2, "drop": "latest"}


def test_a_camera_slower_than_the_board_misses_nothing() -> None:
    clock = SteppedClock()
    got = camera(lambda: clock.sleep(0.004), clock, fps=50, seconds=1)
    assert got["samples_ms"] == pytest.approx([4] * 50)
    assert (got["deadline"]["missed"], got["deadline"]["max_run"], got["deadline"]["dropped"]) == (0, 0, 0)


def test_the_real_clock_waits_until_the_moment_and_hardly_longer() -> None:
    clock = Clock()
    moment_ns = clock.now_ns() + 5_000_000
    clock.wait_until_ns(moment_ns)
    assert 0 <= clock.now_ns() - moment_ns < 50_000_000


def test_a_steady_board_is_warm_after_three_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SteppedClock()
    got = _open_null(clock, lambda: 10.0, tmp_path, monkeypatch).warmup(cap_s=30)
    assert got == {"steady": True, "warmup_s": pytest.approx(3.0), "medians_ms": [10, 10, 10]}


def test_a_board_that_never_becomes_steady_says_so_at_the_cap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SteppedClock()
    # 4 % slower with every second that passes.
    got = _open_null(clock, lambda: 1000 * 1.04 ** (clock.ns / 1e9), tmp_path, monkeypatch).warmup(cap_s=8)
    assert not got["steady"]
    assert got["warmup_s"] >= 8


def test_offline_takes_the_batch_with_the_most_samples_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SteppedClock()

    class Batched(NullSession):
        """8 ms for a call, and 1 ms for a sample; from 16 samples on 10 ms a sample, as if a cache overflowed."""

        inputs = (TensorSpec("x", "float32", ("batch", 2)),)

        def infer(self, feeds: Any) -> dict[str, np.ndarray]:
            batch = len(feeds["x"])
            clock.sleep((8 + batch * (1 if batch < 16 else 10)) / 1e3)
            return {}

    opened = _open(Batched(sleep=clock.sleep, clock=clock.now_ns), clock, tmp_path, monkeypatch)
    got = opened.measure(14.0, "offline")
    # Batch 8: 8 samples in 16 ms = 500/s; batch 4: 333/s; batch 16: 95/s.
    assert (got["batch"], got["per_s"]) == (8, pytest.approx(500))


@pytest.mark.parametrize("scenario", ["camera", "camera@", "camera@0", "camera@fast", "multi-stream", ""])
def test_an_unknown_scenario_is_refused(scenario: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = _open_null(SteppedClock(), lambda: 1.0, tmp_path, monkeypatch)
    with pytest.raises(InputError, match="unknown") as caught:
        opened.measure(0.01, scenario)
    assert "camera@30" in str(caught.value)


def test_inputs_rotate_and_a_filled_up_batch_gives_every_sample_once(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(5, dtype=np.float32).reshape(5, 1))
    session = NullSession()
    session.inputs = (TensorSpec("x", "float32", (2, 1)),)
    samples = Samples(session, {"": str(tmp_path / "x.npy")}, None)
    batches = [feeds["x"].ravel().tolist() for feeds in samples.every()]
    assert batches == [[0, 1], [2, 3], [4, 0]]
    assert samples.joined([np.array(batch) for batch in batches]).tolist() == [0, 1, 2, 3, 4]
    assert [feeds["x"][0, 0] for feeds in samples.spread(2)] == [0, 2]


def test_images_are_normalised_on_the_board(tmp_path: Path) -> None:
    from edgekit.preprocess import Preprocess

    np.save(tmp_path / "images.npy", np.full((3, 2, 2, 1), 255, np.uint8))
    session = NullSession()
    session.inputs = (TensorSpec("x", "float32", (1, 1, 2, 2)),)
    preprocess = Preprocess(size=(2, 2), mean=(0.5,), std=(0.25,), colour="gray").as_dict()
    values = Samples(session, {"": str(tmp_path / "images.npy")}, preprocess).feeds(0)["x"]
    assert values.shape == (1, 1, 2, 2)
    assert values == pytest.approx((1 - 0.5) / 0.25)


def test_values_of_another_type_than_the_file_wants_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5, 1)))
    session = NullSession()
    session.inputs = (TensorSpec("x", "float32", (1, 1)),)
    with pytest.raises(InputError, match="wants float32, the values given are float64"):
        Samples(session, {"x": str(tmp_path / "x.npy")}, None)
    with pytest.raises(InputError, match="input 'x' of the file is given no values"):
        Samples(session, {"other": str(tmp_path / "x.npy")}, None)


def test_wrong_requests_are_answered_and_the_next_one_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = ["not json", '{"request": "mesure"}', '{"request": "measure", "seconds": 1}', '{"request": "close"}']
    answers = io.StringIO()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    opened = Bench(SteppedClock())
    bench.serve(opened, io.StringIO("\n".join(requests)), answers)
    opened.end()
    first, second, third, last = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert (first["ok"], first["error"]) == (False, "DeviceError")
    assert (second["error"], "Did you mean 'measure'?" in second["what"]) == ("UsageError", True)
    assert (third["error"], "no session is open" in third["what"]) == ("UsageError", True)
    assert last == {"ok": True}


def test_the_harness_costs_less_than_5_us_an_inference(tmp_path: Path, remote: Remote) -> None:
    np.save(tmp_path / "x.npy", np.zeros((10, 1), np.float32))
    remote.ask("open", 60, path="", runtime="null", options={}, inputs={"x": str(tmp_path / "x.npy")})
    samples_ms = remote.ask("measure", 60, seconds=0.3)["samples_ms"]
    assert 0 < float(np.median(samples_ms)) < 0.005


def test_a_real_file_is_opened_loaded_and_run_and_nothing_is_left_behind(tmp_path: Path, remote: Remote) -> None:
    path = tiny_onnx.write(tmp_path / "tiny.onnx")
    np.save(tmp_path / "x.npy", tiny_onnx.images(0.5, 1, 0.25))
    hello = remote.ask("hello", 60)
    inputs = {"": str(tmp_path / "x.npy")}
    answer = remote.ask("open", 60, path=str(path), runtime="onnxruntime", options={"threads": 1}, inputs=inputs)
    assert (answer["engine"]["convolutions_int8"], answer["engine"]["convolutions_float"]) == (1, 1)
    measured = remote.ask("measure", 60, seconds=0.2, scenario="camera@100")
    assert measured["deadline"]["frames"] == 20
    out = Path(hello["scratch"]) / "outputs.npz"
    assert remote.ask("infer", 60, out=str(out))["n"] == 3
    assert np.load(out)["y"] == pytest.approx(np.array([[1, 3], [2, 6], [0.5, 1.5]]))
    assert {"QLinearConv", "Conv"} <= {layer["type"] for layer in remote.ask("layers", 60)["layers"]}
    remote.close()
    assert not out.parent.exists()


def test_an_error_on_the_board_is_raised_here_in_its_own_class(tmp_path: Path, remote: Remote) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 1), np.float32))
    inputs = {"x": str(tmp_path / "x.npy")}
    with pytest.raises(InputError, match=r"here: no runtime is called 'onnxruntme'\. Did you mean 'onnxruntime'"):
        remote.ask("open", 60, path="", runtime="onnxruntme", options={}, inputs=inputs)
    with pytest.raises(DependencyError, match="bf16 is not offered by this runtime"):
        remote.ask("open", 60, path="", runtime="onnxruntime", options={"precision": "bf16"}, inputs=inputs)
    with pytest.raises(UsageError, match="no session is open"):
        remote.ask("layers", 60)


def test_what_libraries_print_does_not_reach_the_answers() -> None:
    noisy = """
import os, edgekit.bench.agent as bench
plain = bench.Bench.hello
def hello(self):
    print("chatter from Python")
    os.write(1, b"chatter from C\\n")
    return plain(self)
bench.Bench.hello = hello
bench.main()
"""
    done = _run(noisy, '{"request": "hello"}\n')
    assert [json.loads(line)["ok"] for line in done.stdout.splitlines()] == [True]
    assert "chatter from Python" in done.stderr
    assert "chatter from C" in done.stderr


def test_the_closure_is_standard_library_and_numpy_and_parses_as_python_3_8() -> None:
    listing = """
import json, sys
before = set(sys.modules)
import edgekit.bench, edgekit.preprocess, edgekit.runtimes.onnxruntime, edgekit.runtimes.openvino, edgekit.runtimes.null
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
mine = [m.__file__ for name, m in sys.modules.items() if name.partition(".")[0] == "edgekit"]
print(json.dumps([sorted(tops - sys.stdlib_module_names), mine]))
"""
    others, files = json.loads(_run(listing, "").stdout)
    assert others == ["edgekit", "numpy"]
    assert len(files) > 8
    for file in files:
        ast.parse(Path(file).read_text(encoding="utf-8"), file, feature_version=(3, 8))


def test_a_busy_process_on_the_same_core_makes_a_window_doubtful(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 1), np.float32))
    cores = os.sched_getaffinity(0)
    core = {max(cores)}
    os.sched_setaffinity(0, core)  # both children inherit it
    try:
        busy = subprocess.Popen([sys.executable, "-c", BUSY])
        process = open_link({}).bench()
    finally:
        os.sched_setaffinity(0, cores)
    remote = Remote(process, "here")
    try:
        remote.ask("open", 60, path="", runtime="null", options={}, inputs={"x": str(tmp_path / "x.npy")})
        window = remote.ask("measure", 60, seconds=0.5)["window"]
    finally:
        busy.kill()
        busy.wait()
        remote.close()
    assert window["waited"] > 0.2  # two share one core
    assert any("kept off its core" in reason for reason in doubts.of_windows([window]))


def test_a_window_is_the_difference_of_two_readings(tmp_path: Path) -> None:
    before = telemetry.Reading(at_s=10, busy_s=100, own_s=3, waited_s=0.5, throttles=1, energy_j=90, energy_range_j=100)
    after = telemetry.Reading(at_s=12, busy_s=105, own_s=5, waited_s=0.6, throttles=4, energy_j=30, energy_range_j=100)
    window = telemetry.between(before, after)
    assert window["other_cores"] == (5 - 2) / 2
    assert window["waited"] == pytest.approx(0.1 / 2)
    assert window["throttles"] == 3
    assert window["energy_j"] == 100 - 90 + 30  # the counter wrapped


def test_what_a_board_does_not_tell_is_none(tmp_path: Path) -> None:
    window = telemetry.between(telemetry.read(tmp_path), telemetry.read(tmp_path))
    unknown = ["other_cores", "waited", "mhz", "throttles", "energy_j"]
    assert [window[name] for name in unknown] == [None] * len(unknown)
    assert window["temperature_c"] == [None, None]


def test_readings_come_from_linux_files(tmp_path: Path) -> None:
    files = {
        "proc/stat": "cpu  100 0 50 900 7 3 2 45 0 0\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "2400000\n",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "2\n",
        "sys/class/thermal/thermal_zone0/temp": "48500\n",
        "sys/class/powercap/intel-rapl:0/energy_uj": "7000000\n",
        "sys/class/powercap/intel-rapl:1/energy_uj": "5000000\n",
        "sys/class/powercap/intel-rapl:0:0/energy_uj": "999000000\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    reading = telemetry.read(tmp_path)
    assert reading.busy_s == 2.0  # (100 + 50 + 3 + 2 + 45) ticks of 1/100 s: idle and waiting for disks do not count
    assert (reading.mhz, reading.throttles, reading.temperature_c) == (2400, 2, 48.5)
    assert reading.energy_j == 12  # two packages; a part of one is not added again


def _open_null(clock: SteppedClock, duration_ms: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    class Varying(NullSession):
        def infer(self, feeds: Any) -> dict[str, np.ndarray]:
            clock.sleep(duration_ms() / 1e3)
            return {}

    return _open(Varying(sleep=clock.sleep, clock=clock.now_ns), clock, folder, monkeypatch)


def _open(session: NullSession, clock: SteppedClock, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    np.save(folder / "x.npy", np.zeros((64, 2), np.float32))
    monkeypatch.setattr("edgekit.runtimes.null.open_session", lambda path, options: session)
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    opened = Bench(clock)
    opened.open("", "null", {}, {"x": str(folder / "x.npy")})
    return opened


def _run(program: str, text: str) -> subprocess.CompletedProcess[str]:
    parent = str(Path(bench.__file__).parent.parent)
    return subprocess.run(
        [sys.executable, "-c", program],
        input=text,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PYTHONPATH": parent, "PATH": ""},
    )
