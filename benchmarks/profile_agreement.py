"""Does edgekit measure what others measure? Its single-stream p50 beside OpenVINO's benchmark_app and a plain loop.

The same file, one thread, every measurement in a process of its own, all of them interleaved in one run; each round
goes through them in the opposite order of the round before. The 95 % interval of each ratio (edgekit over the other,
rounds paired) must meet 0.97 to 1.03, or the script exits 5.

    python -m benchmarks.profile_agreement --out benchmarks/profile_agreement.md     about 4 minutes, quiet machine
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifact import Candidate
from edgekit.device import detect, open_board
from edgekit.errors import EdgekitError, GateError
from edgekit.exporters.onnx import describe
from edgekit.profile import Inputs, Profile, profile
from edgekit.statistics import Interval, ratio

LOW, HIGH = 0.97, 1.03
# Beyond what the question is about, two settings that edgekit makes and benchmark_app leaves to the plugin: float32
# (where the processor has bfloat16 the plugin would take that), and threads that may change their core.
BENCHMARK_APP = ["-api", "sync", "-nireq", "1", "-hint", "none", "-nstreams", "1", "-nthreads", "1"]
BENCHMARK_APP += ["-infer_precision", "f32", "-pin", "NO", "-report_type", "no_counters", "-json_stats"]
# Without its telemetry, as edgekit runs OpenVINO.
RUN_BENCHMARK_APP = """
import sys
sys.modules["openvino_telemetry"] = None
from openvino.tools.benchmark.main import main
main()
"""
PLAIN_LOOP = """
import statistics, sys, time
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
x = np.random.default_rng(0).standard_normal(session.get_inputs()[0].shape, np.float32)
def loop(seconds):
    times_ms, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, {"x": x})
        times_ms.append(1e3 * (time.perf_counter() - start))
    return times_ms
loop(1.0)
print(statistics.median(loop(float(sys.argv[2]))))
"""


@dataclass(frozen=True)
class Pair:
    """edgekit's medians and another's, one a round, in milliseconds."""

    runtime: str
    other: str
    edgekit_ms: list[float]
    other_ms: list[float]

    @property
    def ratio(self) -> Interval:
        return ratio([np.array([ms]) for ms in self.edgekit_ms], [np.array([ms]) for ms in self.other_ms])

    @property
    def agrees(self) -> bool:
        return self.ratio.low <= HIGH and self.ratio.high >= LOW


def main() -> None:
    arguments = _arguments()
    try:
        with tempfile.TemporaryDirectory() as folder:
            model = write_model(Path(folder) / "convolutions.onnx")
            pairs, degraded = compare(model, arguments.rounds, arguments.seconds)
    except EdgekitError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    text = table(pairs, degraded, arguments.rounds, arguments.seconds)
    print(text)
    if arguments.out:
        Path(arguments.out).write_text(text + "\n", encoding="utf-8")
    if not all(pair.agrees for pair in pairs):
        sys.exit(GateError.exit_code)


def write_model(path: Path) -> Path:
    """Five 3x3 convolutions on [1, 16, 80, 80]: 2 to 3 ms in one thread, so that benchmark_app's two digits suffice."""
    rng, nodes, weights, name, channels = np.random.default_rng(0), [], [], "x", 16
    for k, (width, stride) in enumerate([(32, 1), (64, 2), (64, 1), (128, 2), (128, 1)]):
        values = rng.standard_normal((width, channels, 3, 3), np.float32) * np.float32((2 / (9 * channels)) ** 0.5)
        weights.append(numpy_helper.from_array(values, f"w{k}"))
        nodes.append(helper.make_node("Conv", [name, f"w{k}"], [f"c{k}"], pads=[1] * 4, strides=[stride] * 2))
        nodes.append(helper.make_node("Relu", [f"c{k}"], [f"r{k}"]))
        name, channels = f"r{k}", width
    nodes += [helper.make_node("GlobalAveragePool", [name], ["mean"]), helper.make_node("Flatten", ["mean"], ["y"])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 80, 80])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, channels])]
    graph = helper.make_graph(nodes, "convolutions", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def compare(model: Path, rounds: int, seconds: float) -> tuple[list[Pair], int]:
    """Every pair's medians, and how many of its own measurements edgekit calls degraded."""
    rows: list[Profile] = []
    ways: dict[str, Callable[[], float]] = {
        "edgekit openvino": lambda: _edgekit(model, "openvino", seconds, rows),
        "benchmark_app": lambda: _benchmark_app(model, seconds),
        "edgekit onnxruntime": lambda: _edgekit(model, "onnxruntime", seconds, rows),
        "plain loop": lambda: _plain_loop(model, seconds),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            found[name].append(ways[name]())
            print(f"round {number + 1} of {rounds}: {name} {found[name][-1]:.4g} ms", file=sys.stderr)
    pairs = [
        Pair("openvino", "OpenVINO's benchmark_app", found["edgekit openvino"], found["benchmark_app"]),
        Pair("onnxruntime", "a plain ONNX Runtime loop", found["edgekit onnxruntime"], found["plain loop"]),
    ]
    return pairs, sum(row.state != "valid" for row in rows)


def table(pairs: list[Pair], degraded: int, rounds: int, seconds: float) -> str:
    """The result as Markdown, with the command and the machine."""
    machine = detect()
    versions = ", ".join(f"{name} {version}" for name, version in machine["runtimes"].items())
    lines = [
        "# edgekit's single-stream p50 beside others",
        "",
        f"`python -m benchmarks.profile_agreement --rounds {rounds} --seconds {seconds:g}` on {machine['cpu']}, "
        f"{machine['cores']} cores, {versions}; five 3x3 convolutions, one thread, {rounds} interleaved rounds of "
        f"{seconds:g} s. edgekit calls {degraded} of its {2 * rounds} measurements degraded.",
        "",
        "| runtime | edgekit p50 ms | beside | its p50 ms | ratio [95 %] | meets 0.97 to 1.03 |",
        "|---|---|---|---|---|---|",
    ]
    for pair in pairs:
        mine, its = np.median(pair.edgekit_ms), np.median(pair.other_ms)
        interval = f"{pair.ratio.value:.4f} [{pair.ratio.low:.4f}, {pair.ratio.high:.4f}]"
        met = "yes" if pair.agrees else "**no**"
        lines.append(f"| {pair.runtime} | {mine:.4g} | {pair.other} | {its:.4g} | {interval} | {met} |")
    return "\n".join(lines)


def _edgekit(model: Path, runtime: str, seconds: float, rows: list[Profile]) -> float:
    inputs = Inputs(np.random.default_rng(0).standard_normal((1, 16, 80, 80), np.float32), kind="random")
    candidate = Candidate("convolutions", describe(model), runtime)
    rows += profile([candidate], open_board("x86-cpu"), inputs, seconds=seconds, rounds=1, accuracy=False)
    return float(np.median(rows[-1].samples_ms))


def _benchmark_app(model: Path, seconds: float) -> float:
    command = [sys.executable, "-c", RUN_BENCHMARK_APP, "-m", str(model), *BENCHMARK_APP]
    command += ["-t", str(max(1, round(seconds))), "-report_folder", str(model.parent)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    report = json.loads((model.parent / "benchmark_report.json").read_text())
    return float(report["execution_results"]["latency (ms)"])  # the median, as its console output calls it


def _plain_loop(model: Path, seconds: float) -> float:
    command = [sys.executable, "-c", PLAIN_LOOP, str(model), str(seconds)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8, help="interleaved rounds, 2 or more (8)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement (5)")
    parser.add_argument("--out", help="a Markdown file to write the table to")
    return parser.parse_args()


if __name__ == "__main__":
    main()
