"""ONNX -> TensorRT engine. What a version can do is asked with hasattr, never read from its number.

TensorRT that knows STRONGLY_TYPED (10 and later) takes precision from the file; older ones take float16 and int8 as
flags over a file typed in float32, and need EXPLICIT_BATCH, which 11 no longer has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional

from edgekit.errors import DependencyError, InputError, ResourceError

OPTIMIZATION_LEVEL = 3  # TensorRT's default, said so that a changed default changes nothing
ATTEMPTS = 3  # each with half the workspace of the one before
SHARE = 0.5  # of the free memory: on a Jetson the network's own tensors and the system use the same memory


@dataclass
class Log:
    """What TensorRT said while it worked."""

    errors: List[str] = field(default_factory=list)
    warnings: List[str] = field(default_factory=list)


def typed(trt: Any) -> bool:
    """Whether the installed TensorRT takes precision from the file."""
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def variant(trt: Any, onnx: Path) -> Path:
    """The file to build from: the exporter writes `model.onnx` for 10 and later, `model.trt8.onnx` for 8.

    Raises:
        InputError: the file for 8 is missing.
    """
    chosen = onnx if typed(trt) else onnx.with_name(onnx.stem + ".trt8.onnx")
    if not chosen.is_file():
        raise InputError(f"{chosen.name}: there is no such file", next="export the model for TensorRT again")
    return chosen


def settings(trt: Any, onnx: Path) -> str:
    """What the builder is told, as one word each; part of the engine's key."""
    words = [f"level={OPTIMIZATION_LEVEL}", "typed" if typed(trt) else "flags:" + "+".join(_flags(onnx))]
    return " ".join(words)


def build(trt: Any, onnx: Path, *, free_bytes: int, cache: Path) -> Built:
    """Builds an engine.

    onnx: as `variant` gives it. free_bytes: memory that is free on the device. cache: the timing cache, read where it
    exists and written again; it makes the next build quicker, and is not fully deterministic.

    Raises:
        DependencyError: TensorRT finds no usable driver.
        InputError: TensorRT does not take the file.
        ResourceError: no engine could be built in the memory there is.
    """
    log = Log()
    logger = make_logger(trt, log)
    builder = _builder(trt, logger)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx.read_bytes()):
        errors = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise InputError(f"{onnx.name}: TensorRT does not take this file.", why="; ".join(errors) or None)
    workspace = int(free_bytes * SHARE)
    for attempt in range(ATTEMPTS):
        config = _config(trt, builder, onnx, workspace, cache)
        plan = builder.build_serialized_network(network, config)
        if plan is not None:
            cache.write_bytes(bytes(config.get_timing_cache().serialize()))
            return Built(bytes(plan), workspace, attempt, log.warnings)
        workspace //= 2
    raise ResourceError(
        f"{onnx.name}: TensorRT built no engine, with a workspace down to {workspace * 2 // 2**20} MiB",
        why="; ".join(log.errors) or "it gave no reason",
        next="end what else uses the device's memory",
    )


@dataclass(frozen=True)
class Built:
    """plan: the engine. retries: how often the workspace was halved before it worked."""

    plan: bytes
    workspace_bytes: int
    retries: int
    warnings: List[str]

    def facts(self) -> Dict[str, Any]:
        return {"workspace_bytes": self.workspace_bytes, "retries": self.retries, "warnings": self.warnings}


def make_logger(trt: Any, log: Log) -> Any:
    """A logger that keeps errors and warnings."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity == trt.ILogger.WARNING:
                log.warnings.append(message)
            elif severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                log.errors.append(message)

    return Logger()


def _builder(trt: Any, logger: Any) -> Any:
    try:
        return trt.Builder(logger)
    except TypeError as error:  # "factory function returned nullptr": all that its bindings say
        raise DependencyError(
            "TensorRT is installed, but it finds no GPU with a driver that is new enough for it.",
            why=str(error),
            next="nvidia-smi shows the driver (tegrastats on a Jetson)",
        ) from None


def _network_flags(trt: Any) -> int:
    flags = 0
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
        flag = getattr(trt.NetworkDefinitionCreationFlag, name, None)
        if flag is not None:
            flags |= 1 << int(flag)
    return flags


def _flags(onnx: Path) -> List[str]:
    """INT8 without quantizers in the file would ask for a calibrator; the operator's name stands in it as text."""
    return ["FP16", "INT8"] if b"QuantizeLinear" in onnx.read_bytes() else ["FP16"]


def _config(trt: Any, builder: Any, onnx: Path, workspace: int, cache: Path) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if hasattr(config, "builder_optimization_level"):  # absent in 8.5
        config.builder_optimization_level = OPTIMIZATION_LEVEL
    if not typed(trt):
        for name in _flags(onnx):
            config.set_flag(getattr(trt.BuilderFlag, name))
    known: Optional[bytes] = cache.read_bytes() if cache.is_file() else None
    config.set_timing_cache(config.create_timing_cache(known or b""), False)
    return config
