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
from edgekit.bench import loads, telemetry
from edgekit.bench.agent import Bench
from edgekit.bench.energy import Meter, nvml, rapl
from edgekit.bench.loads import Clock, Saturation, camera, find_saturation, parse, saturate
from edgekit.bench.samples import Samples
from edgekit.errors import DependencyError, InputError, UsageError
from edgekit.links.local import open_link
from edgekit.profile.remote import Remote
from edgekit.runtimes.null import NullSession
from tests import tiny_onnx


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


def test_a_quick_run_is_warm_after_three_short_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got = _open_null(SteppedClock(), lambda: 10.0, tmp_path, monkeypatch).warmup(cap_s=1, window_s=0.2)
    assert (got["steady"], got["warmup_s"]) == (True, pytest.approx(3 * 0.2))


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
    started_ns, first = clock.ns, opened.measure(14.0, "offline")
    # Batch 8: 8 samples in 16 ms = 500/s; batch 4: 333/s; batch 16: 95/s.
    assert (first["batch"], first["streams"], first["samples_ms"][0]) == (8, 1, 16)
    assert len(first["samples_ms"]) * 0.016 == pytest.approx(14, rel=0.01)  # finding the batch is not measured
    assert clock.ns - started_ns > 1.4 * 14e9
    started_ns = clock.ns
    opened.measure(14.0, "offline")
    assert clock.ns - started_ns < 1.1 * 14e9  # found once: the rounds of one candidate are alike


def test_offline_takes_the_streams_that_give_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake_load(sessions: Any, feeds: Any, clock: Any, seconds: float) -> list[float]:
        clock.sleep(1.0)
        return [1.0] * {1: 100, 2: 190, 4: 150}[len(sessions)]  # four streams stand in one another's way

    monkeypatch.setattr(loads, "saturate", fake_load)
    found = find_saturation(lambda n: [NullSession()] * n, lambda batch: {}, SteppedClock(), 1.0, [1], most_streams=5)
    assert found == Saturation(batch=1, streams=2)


def test_streams_run_at_once() -> None:
    samples_ms = saturate([NullSession(20), NullSession(20)], {}, Clock(), 0.1)
    assert len(samples_ms) >= 6  # 5 each; one stream alone would give 5


@pytest.mark.parametrize("scenario", ["camera", "camera@", "camera@0", "camera@fast", "multi-stream", ""])
def test_an_unknown_scenario_is_refused(scenario: str) -> None:
    with pytest.raises(InputError, match="unknown") as caught:
        parse(scenario)
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


def test_images_of_another_size_are_resampled_on_the_board(tmp_path: Path) -> None:
    from edgekit.preprocess import Preprocess

    images = np.zeros((1, 4, 4, 1), np.uint8)
    images[:, :, 2:] = 200
    np.save(tmp_path / "images.npy", images)
    session = NullSession()
    session.inputs = (TensorSpec("x", "float32", (1, 1, 2, 2)),)
    preprocess = Preprocess(size=(2, 2), mean=(0,), std=(1,), colour="gray", filter="box").as_dict()
    values = Samples(session, {"": str(tmp_path / "images.npy")}, preprocess).feeds(0)["x"]
    assert values[0, 0] == pytest.approx(np.array([[0, 200 / 255]] * 2))


def test_end_to_end_times_the_preprocessing_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SteppedClock()
    session = null_session(clock, 5)
    session.inputs = (TensorSpec("x", "float32", (1, 1, 2, 2)),)
    plain = Samples.feeds

    def slow_feeds(self: Samples, index: int, batch: int = 1) -> Any:
        clock.sleep(0.003)
        return plain(self, index, batch)

    monkeypatch.setattr(Samples, "feeds", slow_feeds)
    np.save(tmp_path / "x.npy", np.zeros((4, 2, 2, 1), np.uint8))
    monkeypatch.setattr("edgekit.runtimes.null.open_session", lambda path, options: session)
    preprocess = {"size": [2, 2], "mean": [0.0], "std": [1.0], "colour": "gray"}
    medians_ms = []
    for scope in ("host", "e2e"):
        opened = Bench(clock)
        opened.open("", "null", {}, {"x": str(tmp_path / "x.npy")}, preprocess, scope=scope)
        medians_ms.append(opened.warmup(1, 0.1)["medians_ms"][-1])
        opened.end()
    assert medians_ms == [5, 3 + 5]


def test_end_to_end_without_preprocessing_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 2), np.float32))
    opened = Bench(SteppedClock())
    with pytest.raises(InputError, match="go through no preprocessing"):
        opened.open("", "null", {}, {"x": str(tmp_path / "x.npy")}, scope="e2e")
    opened.end()


def test_values_of_another_type_than_the_file_wants_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((5, 1)))
    session = NullSession()
    session.inputs = (TensorSpec("x", "float32", (1, 1)),)
    with pytest.raises(InputError, match="wants float32, the values given are float64"):
        Samples(session, {"x": str(tmp_path / "x.npy")}, None)
    np.save(tmp_path / "wide.npy", np.zeros((5, 2), np.float32))
    with pytest.raises(InputError, match=r"input 'x': the file wants \[1, 1\], got \[1, 2\]"):
        Samples(session, {"x": str(tmp_path / "wide.npy")}, None)
    with pytest.raises(InputError, match=r"the file has no input 'xs'\. Did you mean 'x'"):
        Samples(session, {name: str(tmp_path / "x.npy") for name in ("x", "xs")}, None)
    with pytest.raises(InputError, match="input 'x' of the file is given no values"):
        Samples(session, {"other": str(tmp_path / "x.npy")}, None)


def test_wrong_requests_are_answered_and_the_next_one_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = ["not json", '{"request": "mesure"}', '{"request": "measure", "seconds": 1}', '{"request": "hello"}']
    answers = io.StringIO()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    opened = Bench(SteppedClock())
    bench.serve(opened, io.StringIO("\n".join(requests)), answers)
    opened.end()
    first, second, third, last = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert (first["ok"], first["error"]) == (False, "DeviceError")
    assert (second["error"], "Did you mean 'measure'?" in second["what"]) == ("UsageError", True)
    assert (third["error"], "no session is open" in third["what"]) == ("UsageError", True)
    assert (last["ok"], last["scratch"].startswith(str(tmp_path))) == (True, True)


def test_the_harness_costs_less_than_5_us_an_inference(tmp_path: Path, remote: Remote) -> None:
    np.save(tmp_path / "x.npy", np.zeros((10, 1), np.float32))
    remote.ask("open", 60, path="", runtime="null", options={}, inputs={"x": str(tmp_path / "x.npy")})
    measured = [remote.ask("measure", 60, seconds=0.1) for _ in range(5)]
    in_a_sample_ms = min(float(np.median(one["samples_ms"])) for one in measured)
    between_samples_ms = min(1e3 * one["window"]["window_s"] / len(one["samples_ms"]) for one in measured)
    # The quietest of five, since others may use this machine. What lies between samples never reaches a latency.
    assert 0 < in_a_sample_ms < 0.005
    assert between_samples_ms < 0.010


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
import edgekit.bench.agent, edgekit.preprocess
import edgekit.runtimes.onnxruntime, edgekit.runtimes.openvino, edgekit.runtimes.null
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
mine = [m.__file__ for name, m in sys.modules.items() if name.partition(".")[0] == "edgekit"]
print(json.dumps([sorted(tops - sys.stdlib_module_names), mine]))
"""
    others, files = json.loads(_run(listing, "").stdout)
    assert others == ["edgekit", "numpy"]
    assert len(files) > 8
    for file in files:
        ast.parse(Path(file).read_text(encoding="utf-8"), file, feature_version=(3, 8))


def test_a_process_stays_on_the_cores_it_is_given(tmp_path: Path, remote: Remote) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 1), np.float32))
    fields = {"path": "", "runtime": "null", "options": {}, "inputs": {"x": str(tmp_path / "x.npy")}}
    last = max(os.sched_getaffinity(0))
    with pytest.raises(InputError, match=r"cores: \[9999\] cannot be had, this process has"):
        remote.ask("open", 60, **fields, cores=[9999])
    assert remote.ask("open", 60, **fields, cores=[last])["engine"]["cores"] == [last]


def test_a_window_is_the_difference_of_two_readings(tmp_path: Path) -> None:
    before = telemetry.Reading(at_s=10, busy_s=100, own_s=3, waited_s=0.5, throttles=1, energy_j=(90, 7))
    after = telemetry.Reading(at_s=12, busy_s=105, own_s=5, waited_s=0.6, throttles=4, energy_j=(30, 9))
    window = telemetry.between(before, after, Meter(wraps_j=(100, 50)))
    assert (window["ended_s"], window["window_s"]) == (12, 2)
    assert window["other_cores"] == (5 - 2) / 2
    assert window["waited"] == pytest.approx(0.1 / 2)
    assert window["throttles"] == 3
    assert window["energy_j"] == (100 - 90 + 30) + (9 - 7)  # the first counter wrapped


def test_what_a_board_does_not_tell_is_none(tmp_path: Path) -> None:
    meter = rapl(tmp_path)
    window = telemetry.between(telemetry.read(meter, tmp_path), telemetry.read(meter, tmp_path), meter)
    unknown = ["other_cores", "waited", "mhz", "throttles", "energy_j"]
    assert [window[name] for name in unknown] == [None] * len(unknown)
    assert window["temperature_c"] == [None, None]
    assert telemetry.peak_memory_bytes(tmp_path) is None
    assert meter.reason is not None
    assert "no RAPL" in meter.reason


def test_readings_come_from_linux_files(tmp_path: Path) -> None:
    files = {
        "proc/stat": "cpu  100 0 50 900 7 3 2 45 0 0\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "2400000\n",
        "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "2\n",
        "sys/class/thermal/thermal_zone0/temp": "48500\n",
        "proc/self/status": "VmPeak:  99 kB\nVmHWM:  2000 kB\n",
    }
    write(tmp_path, files)
    reading = telemetry.read(Meter(), tmp_path)
    assert reading.busy_s == 2.0  # (100 + 50 + 3 + 2 + 45) ticks of 1/100 s: idle and waiting for disks do not count
    assert (reading.mhz, reading.throttles, reading.temperature_c) == (2400, 2, 48.5)
    assert telemetry.peak_memory_bytes(tmp_path) == 2000 * 1024


def test_whole_packages_are_counted_and_their_parts_are_not(tmp_path: Path) -> None:
    files = {
        "intel-rapl:0/energy_uj": "7000000\n",
        "intel-rapl:0/max_energy_range_uj": "60000000\n",
        "intel-rapl:1/energy_uj": "5000000\n",
        "intel-rapl:1/max_energy_range_uj": "60000000\n",
        "intel-rapl:0:0/energy_uj": "999000000\n",
    }
    write(tmp_path / "sys/class/powercap", files)
    meter = rapl(tmp_path)
    assert (meter.rail, meter.read()) == ("RAPL package", (7, 5))
    assert meter.used_j((7, 5), (8, 4)) == 1 + (60 - 5 + 4)
    (tmp_path / "sys/class/powercap/intel-rapl:1/energy_uj").unlink()
    assert meter.read() is None  # one package alone would be a wrong number
    assert rapl(tmp_path).reason is not None


def test_a_gpus_counter_is_read_through_the_drivers_library() -> None:
    class Library:
        """What libnvidia-ml answers: 0 is success; the counter stands at 1.5 J, then 4 J."""

        millijoules = iter([1500, 1500, 4000])

        def nvmlInit_v2(self) -> int:  # noqa: N802
            return 0

        def nvmlDeviceGetHandleByIndex_v2(self, index: int, device: Any) -> int:  # noqa: N802
            return 0 if index == 0 else 2

        def nvmlDeviceGetTotalEnergyConsumption(self, device: Any, out: Any) -> int:  # noqa: N802
            out._obj.value = next(self.millijoules)
            return 0

    meter = nvml(0, load=lambda name: Library())
    assert meter.rail == "GPU board (NVML)"
    assert meter.used_j(meter.read(), meter.read()) == 2.5
    assert nvml(1, load=lambda name: Library()).reason == "NVML gives no GPU 1"


def test_a_machine_without_nvidias_library_says_so() -> None:
    def absent(name: str) -> None:
        raise OSError("cannot open shared object file")

    meter = nvml(0, load=absent)
    assert (meter.rail, meter.read()) == (None, None)
    assert meter.reason == "NVIDIA's management library is not installed (libnvidia-ml.so.1)"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


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
