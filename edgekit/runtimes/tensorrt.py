"""TensorRT on the GPU of the board: the engine is built there from the exported ONNX, once, and loaded by its key.

Not run on a GPU by its authors: its calls are checked against recorded lists of what each version has, its numbers are
not (docs/tensorrt.md).
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from edgekit.artifact import TensorSpec, sha256_of
from edgekit.engine import build, cuda
from edgekit.engine.execution import Execution, deserialize
from edgekit.engine.key import EngineKey, board, power_mode, seal, sidecar, unseal
from edgekit.errors import DependencyError, InputError, IntegrityError, did_you_mean
from edgekit.runtimes import Session

OPTIONS = ("threads",)
PACKAGE = "tensorrt"


def missing() -> Optional[str]:
    """Why TensorRT cannot run here: no package, no library, no GPU."""
    if importlib.util.find_spec(PACKAGE) is None:
        return (
            "tensorrt is not installed: a Jetson's comes with JetPack (apt install tensorrt), else pip install tensorrt"
        )
    reason = cuda.missing()
    if reason:
        return reason
    try:
        importlib.import_module(PACKAGE)
    except ImportError as error:  # it names the library that is absent: libnvonnxparser.so.11
        return f"tensorrt is installed, but not all of it: {error}"
    return None


def offers() -> Tuple[str, ...]:
    """What the option `precision` may say: nothing, the file decides."""
    return ()


def open_session(path: str, options: Mapping[str, Any]) -> TensorRtSession:
    """Opens an ONNX file that edgekit exported for TensorRT, or an engine that edgekit built on this machine.

    options: threads (1; one thread submits).

    Raises:
        DependencyError: TensorRT or the GPU is missing.
        InputError: an unknown option, or a file that TensorRT does not take.
        IntegrityError: an engine that was not built here.
    """
    for name in options:
        if name not in OPTIONS:
            raise InputError(f"tensorrt: unknown option '{name}'." + did_you_mean(name, OPTIONS))
    if options.get("threads", 1) != 1:
        raise InputError(f"tensorrt: one thread submits, {options['threads']} were asked for", next="leave threads out")
    reason = missing()
    if reason:
        raise DependencyError(reason)
    return TensorRtSession(Path(path), importlib.import_module(PACKAGE), cuda.Cuda())


class TensorRtSession(Session):
    """trt: the tensorrt package; device: edgekit.engine.cuda.Cuda. Tests give others."""

    def __init__(self, path: Path, trt: Any, device: Any):
        onnx = path if path.suffix == ".onnx" else path.with_suffix(".onnx")
        source = build.variant(trt, onnx)
        key = machine_key(trt, source, device)
        engine = path.with_suffix(".engine")
        if path.suffix == ".onnx" and not _current(engine, key):
            cache = path.with_name(f"tensorrt-{key.tensorrt}-{key.compute_capability}.cache")
            built = build.build(trt, source, free_bytes=device.memory()[0], cache=cache)
            engine.write_bytes(built.plan)
            seal(engine, key, {**built.facts(), "timing_cache_sha256": sha256_of(cache)})
        self._trt = trt
        self._logger = build.make_logger(trt, build.Log())
        self._execution = Execution(trt, deserialize(trt, self._logger, unseal(engine, key)), device)
        self.inputs: Tuple[TensorSpec, ...] = self._execution.inputs
        self.outputs: Tuple[TensorSpec, ...] = self._execution.outputs
        self.engine = {"runtime": PACKAGE, **vars(key), "engine_sha256": sha256_of(engine)}

    def infer(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        return self._execution.infer(feeds)

    def time_ms(self, feeds: Mapping[str, np.ndarray], count: int) -> List[float]:
        return self._execution.time_ms(feeds, count)

    def inspect(self) -> str:
        """What TensorRT built, as JSON: `edgekit lint layers.json` reads it."""
        return self._execution.layers(self._trt)

    def close(self) -> None:
        self._execution.close()


def machine_key(trt: Any, source: Path, device: Any) -> EngineKey:
    """The key of an engine of `source` on this machine as it is now."""
    return EngineKey(
        onnx_sha256=sha256_of(source),
        tensorrt=str(trt.__version__),
        compute_capability=device.capability(),
        board=board(),
        power_mode=power_mode(),
        settings=build.settings(trt, source),
    )


def _current(engine: Path, key: EngineKey) -> bool:
    """Whether an engine with this key stands there already; anything doubtful is built again."""
    if not sidecar(engine).is_file():
        return False
    try:
        unseal(engine, key)
    except IntegrityError:
        return False
    return True
