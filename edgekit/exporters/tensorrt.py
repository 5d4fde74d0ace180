"""Model -> the ONNX files that TensorRT builds its engines from: one for 10 and later, one for 8.5 and 8.6.

From 11 on TensorRT takes precision from the graph alone, so the file for 10 and later (opset 19) is typed: int8 by
Q/DQ, everything else in float16. The file for 8 (its companion, opset 17) is typed in float32; there, float16 is a flag
of the builder. Inputs and outputs are float32 in both. Engines are built on the board (edgekit/engine.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.artifact import Artifact
from edgekit.errors import GateError
from edgekit.exporters import onnx as plain

if TYPE_CHECKING:
    from edgekit.model import Model

runtimes = ("tensorrt",)
OPSET_8, OPSET_10 = 17, 19
FLOAT, FLOAT16 = 1, 10  # onnx.TensorProto's numbers
SMALLEST = 2.0**-17  # float16 has steps of 2**-24 there and moves a scale by up to 2**-8: half a step of int8
STAYS_FLOAT = {("Resize", 1), ("Resize", 2)}  # region and scales: float32 by the standard, whatever the tensor is


def export(
    model: Model, path: Path, *, preprocess: Mapping[str, Any] | None = None, parent: str | None = None
) -> Artifact:
    """Writes `path` for TensorRT 10 and later, and beside it the file for 8 (`companions`).

    Raises:
        GateError: the network cannot be written for TensorRT; the message names the operator or the quantizer.
        ResourceError: the disk is full.
    """
    import onnx

    artifact = plain.export(model, path, preprocess=preprocess, parent=parent)
    proto = onnx.load(path)
    for_8 = path.with_suffix(".trt8.onnx")
    plain._write(with_opset(proto, OPSET_8, path.name).SerializeToString(), for_8)
    plain._write(half(with_opset(proto, OPSET_10, path.name), path.name).SerializeToString(), path)
    written = plain.describe(path, preprocess=preprocess, parent=parent)
    precision = "float16" if artifact.precision == "float32" else artifact.precision
    # bytes stays that of `path`: a board reads one of the two files.
    return replace(written, format="tensorrt", precision=precision, companions=(for_8,))


def with_opset(proto: Any, opset: int, name: str) -> Any:
    """The same graph in another opset; operators whose definition changed in between are converted.

    Raises:
        GateError: one of them cannot be.
    """
    import onnx

    now = next(one.version for one in proto.opset_import if one.domain in ("", "ai.onnx"))
    changed = sorted({node.op_type for node in proto.graph.node if _changed(node.op_type, now, opset)})
    result = type(proto)()
    result.CopyFrom(proto)
    try:
        if changed:
            result = onnx.version_converter.convert_version(proto, opset)
        for one in result.opset_import:
            one.version = opset if one.domain in ("", "ai.onnx") else one.version
        result.ir_version = min(result.ir_version, 9)  # 10 and later are unknown to TensorRT 8 and early 10
        onnx.checker.check_model(result, full_check=True)
    except Exception as error:  # onnx raises RuntimeError and its own classes, which share no base
        what = f"{name}: cannot be written in opset {opset}"
        raise GateError(what, why=f"{', '.join(changed) or 'the file'}: {str(error).splitlines()[0]}") from None
    return result


def half(proto: Any, name: str) -> Any:
    """The graph with float16 in place of float32, between float32 inputs and outputs.

    Raises:
        GateError: a number does not fit.
    """
    import onnx

    result = type(proto)()
    result.CopyFrom(proto)
    _normal_scales(result, name)
    _halve_constants(result, name)
    for node in result.graph.node:
        for one in node.attribute:
            if node.op_type == "Cast" and one.name == "to" and one.i == FLOAT:
                one.i = FLOAT16
    _cast_ends(result.graph)
    onnx.checker.check_model(result, full_check=True)
    return result


def _changed(kind: str, one: int, other: int) -> bool:
    """Whether an operator's definition differs; a later one that only allows more types counts only going down."""
    import onnx

    low, high = sorted((one, other))
    if other > one:
        return False  # every change up to 19 is an addition
    return bool(onnx.defs.get_schema(kind, high).since_version > low)


def _halve_constants(proto: Any, name: str) -> None:
    from onnx import numpy_helper

    graph = proto.graph
    kept = {node.input[at] for node in graph.node for at in range(len(node.input)) if (node.op_type, at) in STAYS_FLOAT}
    nodes = [
        (n.attribute[0].t, n.output[0])
        for n in graph.node
        if n.op_type == "Constant" and n.attribute[0].name == "value"
    ]
    for tensor, used_as in [(one, one.name) for one in graph.initializer] + nodes:
        if tensor.data_type != FLOAT or used_as in kept:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            halved = values.astype(np.float16)
        if not np.isfinite(halved).all():
            largest = float(np.abs(values).max())
            raise GateError(f"{name}: {used_as} holds {largest:g}, more than float16 can (65504)")
        tensor.CopyFrom(numpy_helper.from_array(halved, tensor.name))


def _normal_scales(proto: Any, name: str) -> None:
    """Raises the weight scales that are too small for float16, and rounds those weights again.

    Such a channel's largest weight is below 127 * 2**-17 = 0.001.
    """
    from onnx import numpy_helper

    constants = {one.name: one for one in proto.graph.initializer}
    for node in proto.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.input[1] not in constants:
            continue
        scale = numpy_helper.to_array(constants[node.input[1]])
        if (scale >= SMALLEST).all():
            continue
        if node.input[0] not in constants:
            raise GateError(
                f"{name}: {node.name} has the scale {float(scale.min()):g}, too small for float16 ({SMALLEST:g})",
                why="the activation it quantizes is almost always zero",
                next="leave that module in float: quantize.keep_float",
            )
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        levels = numpy_helper.to_array(constants[node.input[0]])
        raised = np.maximum(scale, np.float32(SMALLEST))
        ratio = (scale / raised).reshape([-1 if d == axis else 1 for d in range(levels.ndim)])
        rounded = np.rint(levels * ratio).astype(levels.dtype)
        constants[node.input[0]].CopyFrom(numpy_helper.from_array(rounded, node.input[0]))
        constants[node.input[1]].CopyFrom(numpy_helper.from_array(raised, node.input[1]))


def _cast_ends(graph: Any) -> None:
    from onnx import helper

    weights = {one.name for one in graph.initializer}
    ends = {
        value.name for value in graph.input if value.name not in weights and value.type.tensor_type.elem_type == FLOAT
    }
    ends_out = {value.name for value in graph.output if value.type.tensor_type.elem_type == FLOAT}
    for node in graph.node:
        node.input[:] = [f"{one}_float16" if one in ends | ends_out else one for one in node.input]
        node.output[:] = [f"{one}_float16" if one in ends_out else one for one in node.output]
    for name in sorted(ends, reverse=True):
        graph.node.insert(0, helper.make_node("Cast", [name], [f"{name}_float16"], name=f"{name}_cast", to=FLOAT16))
    for name in sorted(ends_out):
        graph.node.append(helper.make_node("Cast", [f"{name}_float16"], [name], name=f"{name}_cast", to=FLOAT))
