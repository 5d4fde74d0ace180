"""ONNX Runtime on the CPU: threads, graph optimization and provider are set and read back.

What really ran (convolutions in int8 and in float) is read from the runtime's own profile of one inference, because
only the optimized graph tells which quantized convolutions were fused: https://onnxruntime.ai/docs/performance/
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from edgekit.artifact import TensorSpec
from edgekit.errors import DependencyError, DeviceError, InputError, did_you_mean
from edgekit.runtimes import Session

OPTIONS = ("threads", "optimization", "precision")
OPTIMIZATIONS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
PROVIDER = "CPUExecutionProvider"
INT8_CONVOLUTIONS = ("QLinearConv", "ConvInteger", "NhwcQLinearConv")
LAYER_RUNS = 20


def missing() -> Optional[str]:
    """None where the onnxruntime package is installed."""
    return None if importlib.util.find_spec("onnxruntime") else "onnxruntime is not installed: pip install onnxruntime"


def offers() -> Tuple[str, ...]:
    """What the option `precision` may say: the float parts of a file run in float32."""
    return ("float32",)


def open_session(path: str, options: Mapping[str, Any]) -> OnnxRuntimeSession:
    """Opens an ONNX file.

    options: threads (1), optimization (`all`), precision (`float32`: what the float parts of the file run in).

    Raises:
        DependencyError: the package is missing, or the precision is not offered by this runtime.
        InputError: an unknown option, or a file the runtime does not take.
        DeviceError: the runtime gave another provider than the one asked for.
    """
    reason = missing()
    if reason:
        raise DependencyError(reason)
    _check(options)
    return OnnxRuntimeSession(path, int(options.get("threads", 1)), str(options.get("optimization", "all")))


class OnnxRuntimeSession(Session):
    def __init__(self, path: str, threads: int, optimization: str):
        self._path, self._threads, self._optimization = path, threads, optimization
        self._session = _create(path, _session_options(threads, optimization))
        self.inputs = tuple(_spec(node) for node in self._session.get_inputs())
        self.outputs = tuple(_spec(node) for node in self._session.get_outputs())
        self.engine = self._read_back()

    def infer(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        return dict(zip((spec.name for spec in self.outputs), self._session.run(None, feeds)))

    def time_ms(self, feeds: Mapping[str, np.ndarray], count: int) -> List[float]:
        run, clock, names = self._session.run, time.perf_counter_ns, [spec.name for spec in self.outputs]
        stamps = []
        for _ in range(count):
            start = clock()
            run(names, feeds)
            stamps.append(clock() - start)
        return [stamp / 1e6 for stamp in stamps]

    def layers(self) -> List[Dict[str, Any]]:
        """Mean milliseconds of each node over 20 inferences of zeros; the profiler's cost is in them."""
        total_us: Dict[Tuple[str, str], float] = {}
        for name, kind, micros in self._profiled(LAYER_RUNS):
            total_us[name, kind] = total_us.get((name, kind), 0.0) + micros
        return [{"name": name, "type": kind, "ms": us / 1e3 / LAYER_RUNS} for (name, kind), us in total_us.items()]

    def close(self) -> None:
        del self._session

    def _read_back(self) -> Dict[str, Any]:
        import onnxruntime

        options = self._session.get_session_options()
        providers = self._session.get_providers()
        if providers != [PROVIDER]:
            raise DeviceError(f"onnxruntime: asked for {PROVIDER}, got {', '.join(providers)}.")
        kinds = [kind for _, kind, _ in self._profiled(1)]
        int8 = sum(kind in INT8_CONVOLUTIONS for kind in kinds)
        return {
            "runtime": "onnxruntime",
            "version": onnxruntime.__version__,
            "providers": providers,
            "threads": options.intra_op_num_threads,
            "spinning": False,
            "optimization": options.graph_optimization_level.name,
            "precision": "float32",
            "convolutions_int8": int8,
            "convolutions_float": sum("Conv" in kind for kind in kinds) - int8,
        }

    def _profiled(self, runs: int) -> List[Tuple[str, str, float]]:
        """(name, type, microseconds) of every node executed, in order, from a session of its own.

        A session that profiles is slower, so the one that is timed never does.
        """
        with tempfile.TemporaryDirectory() as folder:
            options = _session_options(self._threads, self._optimization)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            session = _create(self._path, options)
            zeros = {spec.name: _zeros(spec) for spec in self.inputs}
            for _ in range(runs):
                session.run(None, zeros)
            events = json.loads(Path(session.end_profiling()).read_text())
        suffix = "_kernel_time"
        return [
            (event["name"][: -len(suffix)], event["args"]["op_name"], float(event["dur"]))
            for event in events
            if event["cat"] == "Node" and event["name"].endswith(suffix)
        ]


def _check(options: Mapping[str, Any]) -> None:
    for name in options:
        if name not in OPTIONS:
            raise InputError(f"onnxruntime: unknown option '{name}'." + did_you_mean(name, OPTIONS))
    level = options.get("optimization", "all")
    if level not in OPTIMIZATIONS:
        raise InputError(f"onnxruntime: unknown optimization '{level}'." + did_you_mean(str(level), OPTIMIZATIONS))
    if options.get("precision") not in (None, *offers()):
        raise DependencyError(
            f"onnxruntime: precision {options['precision']} is not offered by this runtime.",
            next=f"leave the option out, or choose one of: {', '.join(offers())}",
        )


def _session_options(threads: int, optimization: str) -> Any:
    _import_quietly()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, OPTIMIZATIONS[optimization])
    # Threads that spin between inferences would take the core from whatever is measured next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _import_quietly() -> None:
    """The Linux wheels report home from 1.29 on unless this stands before the library loads."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def _create(path: str, options: Any) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(path, options, providers=[PROVIDER])
    except Exception as error:  # the runtime's errors share no public base class
        raise InputError(f"{path}: onnxruntime does not take this file.", why=str(error)) from error


def _spec(node: Any) -> TensorSpec:
    kind = node.type[len("tensor(") : -1]
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    shape = tuple(size if isinstance(size, int) else str(size or "free") for size in node.shape)
    return TensorSpec(node.name, dtype, shape)


def _zeros(spec: TensorSpec) -> np.ndarray:
    return np.zeros([size if isinstance(size, int) else 1 for size in spec.shape], dtype=spec.dtype)
