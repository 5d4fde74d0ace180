"""Model -> an engine of TensorRT-RTX for RTX PCs, built without a GPU; and the gate for files meant for TensorRT.

TensorRT-RTX has NVIDIA's own ONNX parser and builder and runs them on any processor, for the compute capabilities that
are named. What it refuses is not exported. That full TensorRT agrees is likely (the same importer), and not checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.artifact import Artifact, sha256_of
from edgekit.engine.key import EngineKey, seal, sidecar
from edgekit.errors import DependencyError, GateError, InputError
from edgekit.exporters import onnx as plain
from edgekit.exporters import tensorrt

if TYPE_CHECKING:
    from edgekit.model import Model

runtimes = ("tensorrt_rtx",)
COMPUTE_CAPABILITIES = ("8.6", "8.9", "12.0")  # GeForce RTX 30, 40 and 50
PACKAGES = "pip install 'edgekit[tensorrt-rtx]'"
# The parser goes on with other numbers than the file's, behind a warning: uint8 read as int8 loses all above 127.
CHANGED_TYPE = re.compile(r"[Dd]efaulting to INT8|will use INT8 instead")


def export(
    model: Model,
    path: Path,
    *,
    preprocess: Mapping[str, Any] | None = None,
    parent: str | None = None,
    compute_capabilities: Sequence[str] = COMPUTE_CAPABILITIES,
) -> Artifact:
    """Writes an engine (`.engine`, whatever ending `path` has) with its sidecar, beside the ONNX it was built from.

    Raises:
        DependencyError: TensorRT-RTX is not installed.
        GateError: TensorRT-RTX does not take the network.
        InputError: it builds for no such compute capability.
    """
    source, path = path.with_suffix(".onnx"), path.with_suffix(".engine")
    onnx = tensorrt.export(model, source, preprocess=preprocess, parent=parent)
    for unused in onnx.companions:  # the file for TensorRT 8
        unused.unlink()
    plain._write(build(source, compute_capabilities), path)
    key = EngineKey(onnx.sha256, _bindings().__version__, "+".join(compute_capabilities), None, None, "typed")
    seal(path, key, {})
    size = path.stat().st_size
    beside = (sidecar(path),)
    return replace(onnx, path=path, format="tensorrt_rtx", sha256=sha256_of(path), bytes=size, companions=beside)


def accepts(path: Path, compute_capabilities: Sequence[str] = COMPUTE_CAPABILITIES[:1]) -> None:
    """Parses and builds an ONNX file: the gate that it is what NVIDIA takes.

    Raises:
        DependencyError: TensorRT-RTX is not installed.
        GateError: the file is refused, or read with other types than it has; the message is TensorRT's own.
    """
    build(path, compute_capabilities)


def build(path: Path, compute_capabilities: Sequence[str]) -> bytes:
    """The engine of an ONNX file.

    compute_capabilities: of the GPUs that will run it: `8.6`.
    """
    trt = _bindings()
    log = _Log()
    builder = trt.Builder(_logger(trt, log))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse_from_file(str(path)):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        raise _refused(path, "; ".join(f"{one.node_name()}: {one.desc().splitlines()[0]}" for one in errors))
    changed = [line for line in log.warnings if CHANGED_TYPE.search(line)]
    if changed:
        raise _refused(path, changed[0])
    config = builder.create_builder_config()
    wanted = [_capability(trt, one) for one in compute_capabilities]
    config.num_compute_capabilities = len(wanted)
    for index, capability in enumerate(wanted):
        config.set_compute_capability(capability, index)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise _refused(path, "; ".join(log.errors) or "the builder gave no reason")
    return bytes(engine)


@dataclass
class _Log:
    """What TensorRT-RTX said while it worked."""

    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def _bindings() -> Any:
    try:
        import tensorrt_rtx_bindings as trt
    except ImportError as error:
        raise DependencyError("TensorRT-RTX is not installed", why=str(error), next=PACKAGES) from None
    return trt


def _logger(trt: Any, log: _Log) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity == trt.ILogger.WARNING:
                log.warnings.append(message)
            elif severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                log.errors.append(message.splitlines()[0])

    return Logger()


def _capability(trt: Any, text: str) -> Any:
    found = getattr(trt.ComputeCapability, "SM" + text.replace(".", ""), None)
    if found is None:
        known = (re.fullmatch(r"SM(\d+)(\d)", name) for name in dir(trt.ComputeCapability))
        names = ", ".join(sorted(f"{one[1]}.{one[2]}" for one in known if one))
        raise InputError(f"TensorRT-RTX builds for no compute capability '{text}'", next=f"choose of: {names}")
    return found


def _refused(path: Path, why: str) -> GateError:
    return GateError(
        f"{path.name}: TensorRT-RTX does not take this file",
        why=why,
        kept=str(path),
        next=f"edgekit lint {path.name} --for tensorrt",
    )
