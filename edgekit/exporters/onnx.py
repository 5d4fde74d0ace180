"""Model -> standard ONNX: Q/DQ in the ai.onnx domain only, int8 weights behind one DequantizeLinear, float biases.

torch's exporter turns torch's fake quantization into QuantizeLinear and DequantizeLinear by a translation table; then
the weights are rounded once and for all, which makes the file a quarter of the size. A census of the result must equal
the plan.
"""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.artifact import Artifact, TensorSpec, sha256_of
from edgekit.errors import GateError, ResourceError

if TYPE_CHECKING:
    from edgekit.model import Model

runtimes = ("onnxruntime", "openvino")
OPSET = 18
UINT8, INT8 = 2, 3  # onnx.TensorProto's numbers


def export(
    model: Model, path: Path, *, preprocess: Mapping[str, Any] | None = None, parent: str | None = None
) -> Artifact:
    """Writes the model as ONNX with batch 1 and checks what was written.

    Raises:
        GateError: the file is not what the model is (operators of another domain, lost quantizers or weights).
        ResourceError: the disk is full.
    """

    proto = _translate(model)
    _round_weights(proto)
    _pool_globally(proto)
    _name_nodes(proto)
    _strip(proto)
    _check(proto, model, path)
    _write(proto.SerializeToString(), path)
    return describe(path, preprocess=preprocess, parent=parent)


def describe(path: Path, *, preprocess: Mapping[str, Any] | None = None, parent: str | None = None) -> Artifact:
    """What an ONNX file is, read from the file: inputs, outputs, precision, size."""
    import onnx

    proto = onnx.load(str(path), load_external_data=False)
    weights = {one.name for one in proto.graph.initializer}
    quantized = any(node.op_type == "DequantizeLinear" for node in proto.graph.node)
    return Artifact(
        path=path,
        format="onnx",
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        inputs=tuple(_spec(value) for value in proto.graph.input if value.name not in weights),
        outputs=tuple(_spec(value) for value in proto.graph.output),
        precision="int8" if quantized else "float32",
        preprocess=preprocess,
        parent=parent,
    )


def _translate(model: Model) -> Any:
    """The graph as torch's exporter gives it, fake quantization spelled as Q/DQ."""
    import torch

    table: dict[Any, Any] = {
        torch.ops.aten.fake_quantize_per_tensor_affine.tensor_qparams: _per_tensor,
        torch.ops.aten.fake_quantize_per_channel_affine.default: _per_channel,
    }
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            model.net.eval(),
            (model.example,),
            dynamo=True,
            opset_version=OPSET,
            custom_translation_table=table,
            input_names=["input"],
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _per_tensor(x: Any, scale: Any, zero_point: Any, quant_min: int, quant_max: int) -> Any:
    from onnxscript import opset18 as op

    zero = op.Squeeze(op.Cast(zero_point, to=UINT8 if quant_min == 0 else INT8))
    scale = op.Squeeze(scale)
    return op.DequantizeLinear(op.QuantizeLinear(x, scale, zero), scale, zero)


def _per_channel(x: Any, scale: Any, zero_point: Any, axis: int, quant_min: int, quant_max: int) -> Any:
    from onnxscript import opset18 as op

    zero = op.Cast(zero_point, to=INT8)
    return op.DequantizeLinear(op.QuantizeLinear(x, scale, zero, axis=axis), scale, zero, axis=axis)


def _round_weights(proto: Any) -> None:
    """Replaces every QuantizeLinear of a constant by the int8 constant it gives."""
    import numpy as np
    from onnx import numpy_helper

    graph = proto.graph
    constants = {one.name: one for one in graph.initializer}
    for node in [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] in constants]:
        weight, scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input)
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
        shape = [-1 if d == axis else 1 for d in range(weight.ndim)]
        # times the inverse, as torch's fake quantization does it: a quotient would round some halves the other way
        levels = np.rint(weight * (np.float32(1) / scale).reshape(shape)) + zero.reshape(shape)
        limit = np.iinfo(zero.dtype).max  # weights end at -127, as in training; QuantizeLinear itself would go to -128
        rounded = np.clip(levels, -limit, limit).astype(zero.dtype)
        graph.initializer.append(numpy_helper.from_array(rounded, node.output[0]))
        graph.node.remove(node)


def _pool_globally(proto: Any) -> None:
    """ReduceMean over the two image axes becomes GlobalAveragePool, which runtimes execute in int8."""
    from onnx import helper, numpy_helper

    graph = proto.graph
    constants = {one.name: one for one in graph.initializer}
    for at, node in enumerate(graph.node):
        if node.op_type != "ReduceMean" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        axes = sorted(numpy_helper.to_array(constants[node.input[1]]).tolist())
        flags = {a.name: a.i for a in node.attribute}
        if axes in ([-2, -1], [2, 3]) and flags.get("keepdims", 1) == 1:
            pool = helper.make_node("GlobalAveragePool", [node.input[0]], list(node.output), name=node.name)
            pool.metadata_props.extend(node.metadata_props)
            graph.node.remove(node)
            graph.node.insert(at, pool)


def _name_nodes(proto: Any) -> None:
    """Names every node after the module it came from, as `stem.0/Conv`: profiles, lint and parity speak of it so.

    A quantizer counts to the module whose tensor it rounds.
    """
    from edgekit.quantizers import HOOKS

    seen: Counter[str] = Counter()
    for node in proto.graph.node:
        scopes = next((one.value for one in node.metadata_props if one.key.endswith(".name_scopes")), "[]")
        modules = [one for one in ast.literal_eval(scopes)[:-1] if one and not one.startswith(HOOKS)]
        name = "/".join([*modules[-1:], node.op_type])
        node.name = f"{name}_{seen[name]}" if seen[name] else name
        seen[name] += 1


def _strip(proto: Any) -> None:
    """Leaves out what no runtime reads: the exporter's remarks (with paths of this machine), inferred shapes, constants

    that nothing uses any more. A small network's file would be mostly that.
    """
    graph = proto.graph
    del graph.value_info[:]
    used = {name for node in graph.node for name in node.input}
    for one in [i for i in graph.initializer if i.name not in used]:
        graph.initializer.remove(one)
    for part in (proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.ClearField("doc_string")


def _check(proto: Any, model: Model, path: Path) -> None:
    """onnx's own checker, the domain, and the census: quantizers and weights in the file equal those of the model."""
    import onnx

    from edgekit.quantizers import FakeQuant

    problems = []
    try:
        onnx.checker.check_model(proto, full_check=True)
    except onnx.checker.ValidationError as error:
        problems.append(f"onnx.checker: {str(error).splitlines()[0]}")
    foreign = sorted({node.domain for node in proto.graph.node if node.domain not in ("", "ai.onnx")})
    if foreign:
        problems.append(f"operators outside ai.onnx: {', '.join(foreign)}")
    places = [module.place for module in model.net.modules() if isinstance(module, FakeQuant)]
    weights = sum(place.axis is not None for place in places)
    census = Counter(node.op_type for node in proto.graph.node)
    wanted = {"QuantizeLinear": len(places) - weights, "DequantizeLinear": len(places)}
    problems += [f"{census[op]} {op}, the model has {n}" for op, n in wanted.items() if census[op] != n]
    if problems:
        raise GateError(f"{path.name}: the exported file is not the model", why="; ".join(problems))


def _write(content: bytes, path: Path) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise ResourceError(f"{path}: cannot be written", why=str(error), next="free some disk and run again") from None


def _spec(value: Any) -> TensorSpec:
    import numpy as np
    from onnx import helper

    kind = value.type.tensor_type
    shape = tuple(d.dim_param or (d.dim_value if d.HasField("dim_value") else "?") for d in kind.shape.dim)
    return TensorSpec(value.name, np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)).name, shape)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch's exporter prints and warns on its way; its errors still come as exceptions."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(io.StringIO()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logger.setLevel(level)
