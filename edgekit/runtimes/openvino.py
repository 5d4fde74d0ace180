"""OpenVINO on the CPU: threads, streams and the precision of the float parts are set and read back.

OpenVINO runs a float32 file in bfloat16 on its own accord where the processor can, so the precision is always asked
for: `f32` unless the candidate says otherwise. An int8 file's quantized layers run in int8 whatever is asked.
https://docs.openvino.ai/2025/openvino-workflow/running-inference/optimize-inference/precision-control.html
"""

from __future__ import annotations

import importlib.util
import sys
import time
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from edgekit.artifact import TensorSpec
from edgekit.errors import DependencyError, DeviceError, InputError, did_you_mean
from edgekit.runtimes import Session

OPTIONS = ("threads", "precision")
# edgekit's word -> how OpenVINO lists what a processor is good at, and what its hint says.
PRECISIONS = {"float32": ("FP32", "f32"), "bf16": ("BF16", "bf16"), "float16": ("FP16", "f16")}
LAYER_RUNS = 20


def missing() -> Optional[str]:
    """None where the openvino package is installed."""
    return (
        None if importlib.util.find_spec("openvino") else "openvino is not installed: pip install 'edgekit[openvino]'"
    )


def offers() -> Tuple[str, ...]:
    """What the option `precision` may say on this processor: float32, and bf16 or float16 where it executes them."""
    capable = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(word for word, (capability, _) in PRECISIONS.items() if capability in capable)


def open_session(path: str, options: Mapping[str, Any]) -> OpenVinoSession:
    """Opens an ONNX file or an IR (.xml beside its .bin).

    options: threads (1), precision (`float32`: what the float parts of the file run in).

    Raises:
        DependencyError: the package is missing, or the precision is not offered on this processor.
        InputError: an unknown option, or a file the runtime does not take.
        DeviceError: the runtime did something else than it was asked for.
    """
    reason = missing()
    if reason:
        raise DependencyError(reason)
    for name in options:
        if name not in OPTIONS:
            raise InputError(f"openvino: unknown option '{name}'." + did_you_mean(name, OPTIONS))
    precision = str(options.get("precision") or "float32")
    if precision not in offers():
        raise DependencyError(
            f"openvino: precision {precision} is not offered by this runtime on this processor.",
            next=f"leave the option out, or choose one of: {', '.join(offers())}",
        )
    return OpenVinoSession(path, int(options.get("threads", 1)), precision)


class OpenVinoSession(Session):
    def __init__(self, path: str, threads: int, precision: str):
        self._path, self._threads, self._precision = path, threads, precision
        self._compiled = _compile(path, threads, precision, count=False)
        self._request = self._compiled.create_infer_request()
        self.inputs = tuple(_spec(port) for port in self._compiled.inputs)
        self.outputs = tuple(_spec(port) for port in self._compiled.outputs)
        self.engine = self._read_back()

    def infer(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        self._bind(self._request, feeds)
        self._request.infer()
        names = [spec.name for spec in self.outputs]
        # Copies: the request's own memory is overwritten by its next inference.
        return {name: np.array(self._request.get_output_tensor(k).data) for k, name in enumerate(names)}

    def time_ms(self, feeds: Mapping[str, np.ndarray], count: int) -> List[float]:
        self._bind(self._request, feeds)
        infer, clock, stamps = self._request.infer, time.perf_counter_ns, []
        for _ in range(count):
            start = clock()
            infer(share_inputs=True, share_outputs=True)
            stamps.append(clock() - start)
        return [stamp / 1e6 for stamp in stamps]

    def layers(self) -> List[Dict[str, Any]]:
        """Mean milliseconds of each executed layer over 20 inferences of zeros, from a session that counts them."""
        request = _compile(self._path, self._threads, self._precision, count=True).create_infer_request()
        self._bind(request, {spec.name: _zeros(spec) for spec in self.inputs})
        total_ms: Dict[Tuple[str, str], float] = {}
        for _ in range(LAYER_RUNS):
            request.infer()
            for layer in request.get_profiling_info():
                if layer.status.name == "EXECUTED":
                    key = (layer.node_name, f"{layer.node_type} {layer.exec_type}")
                    total_ms[key] = total_ms.get(key, 0.0) + layer.real_time.total_seconds() * 1e3
        return [{"name": name, "type": kind, "ms": ms / LAYER_RUNS} for (name, kind), ms in total_ms.items()]

    def close(self) -> None:
        del self._request, self._compiled

    def _bind(self, request: Any, feeds: Mapping[str, np.ndarray]) -> None:
        import openvino

        for k, spec in enumerate(self.inputs):
            request.set_input_tensor(k, openvino.Tensor(feeds[spec.name], shared_memory=True))

    def _read_back(self) -> Dict[str, Any]:
        import openvino

        get = self._compiled.get_property
        hint = get("INFERENCE_PRECISION_HINT").to_string()
        threads, devices = get("INFERENCE_NUM_THREADS"), list(get("EXECUTION_DEVICES"))
        asked, got = (PRECISIONS[self._precision][1], self._threads, ["CPU"]), (hint, threads, devices)
        if asked != got:
            raise DeviceError(f"openvino: asked for precision, threads, devices {asked}, got {got}.")
        kinds = _convolutions(self._compiled)
        return {
            "runtime": "openvino",
            "version": openvino.get_version(),
            "devices": devices,
            "threads": threads,
            "streams": get("NUM_STREAMS"),
            "pinned": get("ENABLE_CPU_PINNING"),
            "precision": self._precision,
            "convolutions_int8": sum(kind in ("i8", "u8") for kind in kinds),
            "convolutions_float": sum(kind not in ("i8", "u8") for kind in kinds),
            "convolutions": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        }


def _core() -> Any:
    # The package reports its own import and leaves an identifier in ~/intel (openvino/tools/ovc/telemetry_utils.py),
    # unless its telemetry cannot be imported; then it takes a stub.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino.Core()


def _compile(path: str, threads: int, precision: str, count: bool) -> Any:
    core = _core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision][1],
        # A pinned thread could not leave a core that something else came to use.
        "ENABLE_CPU_PINNING": False,
        "PERF_COUNT": count,
    }
    try:
        return core.compile_model(core.read_model(path), "CPU", settings)
    except RuntimeError as error:
        raise InputError(f"{path}: openvino does not take this file.", why=str(error)) from error


def _convolutions(compiled: Any) -> List[str]:
    """What each executed convolution runs in, from the graph as the plugin compiled it."""
    facts = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    return [str(one["runtimePrecision"].astype(str)) for one in facts if "Convolution" in _layer_type(one)]


def _layer_type(facts: Any) -> str:
    return str(facts["layerType"].astype(str)) if "layerType" in facts else ""


def _spec(port: Any) -> TensorSpec:
    partial = port.get_partial_shape()
    shape = tuple(size.get_length() if size.is_static else f"free{k}" for k, size in enumerate(partial))
    return TensorSpec(port.get_any_name(), np.dtype(port.get_element_type().to_dtype()).name, shape)


def _zeros(spec: TensorSpec) -> np.ndarray:
    return np.zeros([size if isinstance(size, int) else 1 for size in spec.shape], dtype=spec.dtype)
