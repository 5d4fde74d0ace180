"""Model -> OpenVINO's own format (IR): the plain ONNX file, converted; `.xml` and, beside it, `.bin` with the weights.

Weights stay as they are, float32 or int8: save_model would otherwise halve them to float16.
https://docs.openvino.ai/2025/openvino-workflow/model-preparation/convert-model-onnx.html
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.artifact import Artifact, sha256_of
from edgekit.errors import DependencyError, GateError, ResourceError
from edgekit.exporters import onnx as plain

if TYPE_CHECKING:
    from edgekit.model import Model

runtimes = ("openvino",)
PACKAGES = "pip install 'edgekit[openvino]'"


def export(
    model: Model, path: Path, *, preprocess: Mapping[str, Any] | None = None, parent: str | None = None
) -> Artifact:
    """Writes `.xml` and `.bin`, whatever ending `path` has.

    Raises:
        DependencyError: the openvino package is not installed.
        GateError: the network cannot be written, or what was written is not the network.
        ResourceError: the disk is full.
    """
    openvino = _openvino()
    path = path.with_suffix(".xml")
    weights = path.with_suffix(".bin")
    with tempfile.TemporaryDirectory() as folder:
        source = plain.export(model, Path(folder) / "model.onnx", preprocess=preprocess, parent=parent)
        converted = _convert(openvino, source.path, path)
        # A board keeps files by the hash of the .xml, which must not be the same where only the weights differ.
        converted.set_rt_info(source.sha256, "source_sha256")
        try:
            openvino.save_model(converted, path, compress_to_fp16=False)
        except RuntimeError as error:
            for part in (path, weights):
                part.unlink(missing_ok=True)
            what = f"{path}: cannot be written"
            raise ResourceError(what, why=str(error).splitlines()[0], next="free some disk and run again") from None
    size = path.stat().st_size + weights.stat().st_size
    return replace(source, path=path, format="openvino", sha256=sha256_of(path), bytes=size, companions=(weights,))


def _convert(openvino: Any, source: Path, path: Path) -> Any:
    """The model in OpenVINO's form, which must hold what the ONNX file holds."""
    try:
        converted = openvino.convert_model(source)
    except Exception as error:  # its frontends raise RuntimeError and classes of their own
        raise GateError(f"{path.name}: OpenVINO does not take the network", why=str(error)) from None
    wanted, got = _census_of_onnx(source), _census(openvino, converted)
    lost = [f"{got[kind]} {kind}, the model has {count}" for kind, count in wanted.items() if got[kind] != count]
    if lost:
        raise GateError(f"{path.name}: the exported file is not the model", why="; ".join(lost))
    return converted


def _census_of_onnx(path: Path) -> dict[str, int]:
    import onnx

    graph = onnx.load(path).graph
    kinds = Counter(node.op_type for node in graph.node)
    int8 = kinds["DequantizeLinear"] - kinds["QuantizeLinear"]  # weights are rounded already
    return {"convolutions": kinds["Conv"], "quantizers": kinds["QuantizeLinear"], "int8 weights": int8}


def _census(openvino: Any, converted: Any) -> Counter[str]:
    """Q and DQ of an activation become one FakeQuantize; an int8 constant stays one."""
    found: Counter[str] = Counter()
    for op in converted.get_ops():
        kind = op.get_type_name()
        found["convolutions"] += kind in ("Convolution", "GroupConvolution")
        found["quantizers"] += kind == "FakeQuantize"
        shape, dtype = op.get_output_partial_shape(0), op.get_output_element_type(0)
        found["int8 weights"] += kind == "Constant" and dtype == openvino.Type.i8 and len(shape) > 1
    return found


def _openvino() -> Any:
    # Without this its import is reported and leaves an identifier in the home folder.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise DependencyError("openvino is not installed", why=str(error), next=PACKAGES) from None
    return openvino
