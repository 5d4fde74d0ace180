"""TensorRT-RTX on the GPU of an RTX PC: runs engines that edgekit built elsewhere for its compute capability.

Never run on a GPU by its authors: that the installed package has every name it calls is tested, what they do is not
(docs/tensorrt.md).
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import numpy as np

from edgekit.artifact import TensorSpec, sha256_of
from edgekit.engine import build, cuda
from edgekit.engine.execution import Execution, deserialize
from edgekit.engine.key import key_of, unseal
from edgekit.errors import DependencyError, DeviceError, InputError, did_you_mean
from edgekit.runtimes import Session

OPTIONS = ("threads",)
PACKAGE = "tensorrt_rtx_bindings"


def missing() -> Optional[str]:
    """Why TensorRT-RTX cannot run here: no package, no GPU."""
    if importlib.util.find_spec(PACKAGE) is None:
        return "TensorRT-RTX is not installed: pip install 'edgekit[tensorrt-rtx]'"
    return cuda.missing()


def offers() -> Tuple[str, ...]:
    """What the option `precision` may say: nothing, the file decides."""
    return ()


def open_session(path: str, options: Mapping[str, Any]) -> TensorRtRtxSession:
    """Opens an engine that edgekit built.

    options: threads (1; one thread submits).

    Raises:
        DependencyError: the package or the GPU is missing.
        InputError: an unknown option.
        DeviceError: the engine was not built for this GPU.
        IntegrityError: the engine is not edgekit's, or was built by another version.
    """
    for name in options:
        if name not in OPTIONS:
            raise InputError(f"tensorrt_rtx: unknown option '{name}'." + did_you_mean(name, OPTIONS))
    if options.get("threads", 1) != 1:
        raise InputError(f"tensorrt_rtx: one thread submits, {options['threads']} were asked for")
    reason = missing()
    if reason:
        raise DependencyError(reason)
    return TensorRtRtxSession(Path(path), importlib.import_module(PACKAGE), cuda.Cuda())


class TensorRtRtxSession(Session):
    """trt: the package; device: edgekit.engine.cuda.Cuda. Tests give others."""

    def __init__(self, engine: Path, trt: Any, device: Any):
        key = replace(key_of(engine), tensorrt=str(trt.__version__))
        here = device.capability()
        if here not in key.compute_capability.split("+"):
            raise DeviceError(
                f"{engine.name}: this engine was built for other GPUs",
                why=f"built for compute capability {key.compute_capability.replace('+', ', ')}, this GPU has {here}",
                next="export it again for this GPU",
            )
        plan = unseal(engine, key)
        self._logger = build.make_logger(trt, build.Log())
        self._execution = Execution(trt, deserialize(trt, self._logger, plan), device)
        self.inputs: Tuple[TensorSpec, ...] = self._execution.inputs
        self.outputs: Tuple[TensorSpec, ...] = self._execution.outputs
        self.engine = {"runtime": "tensorrt_rtx", **vars(key), "running_on": here, "engine_sha256": sha256_of(engine)}

    def infer(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        return self._execution.infer(feeds)

    def time_ms(self, feeds: Mapping[str, np.ndarray], count: int) -> List[float]:
        return self._execution.time_ms(feeds, count)

    def close(self) -> None:
        self._execution.close()
