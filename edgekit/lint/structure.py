"""Rules about the rest of the graph: operators, opsets, BatchNorm, biases, stored weights, channel counts."""

from __future__ import annotations

from edgekit.lint.graph import FLOATS, Graph, attribute
from edgekit.lint.numbers import EVERYWHERE
from edgekit.lint.operators import INTEGER, TENSORRT_8_5, TENSORRT_8_6, TENSORRT_10_1
from edgekit.lint.rule import Check, Found, Rule

INT32 = 6  # onnx.TensorProto.INT32
FLOAT16 = 10
ALIGNMENT = {"int8": 16, "float": 8}  # channels of a tensor core's tile (Torch-Pruning#38)
STANDARD = ("", "ai.onnx")
# Domains whose operators onnxruntime ships.
ONNXRUNTIME = (*STANDARD, "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc")


def batchnorm(graph: Graph) -> Found:
    for node in graph.of_type("BatchNormalization"):
        if graph.quantized:
            yield node, "a BatchNormalization in a quantized network"


def int32_bias(graph: Graph) -> Found:
    for node in graph.of_type("DequantizeLinear"):
        if graph.tensor_type(node.input[0]) == INT32:
            yield node, "an int32 constant behind DequantizeLinear (a quantized bias)"


def float_weights(graph: Graph) -> Found:
    for node in graph.of_type("QuantizeLinear"):
        if graph.tensor_type(node.input[0]) in FLOATS:
            yield node, f"the weight {node.input[0]} stands in the file as float and is quantized when it is loaded"


def integer_operator(graph: Graph) -> Found:
    for node in graph.of_type(*INTEGER):
        yield node, f"{node.op_type} carries its own scales"


def domain_of(allowed: tuple[str, ...]) -> Check:
    def check(graph: Graph) -> Found:
        for node in graph.nodes:
            if node.domain not in allowed:
                yield node, f"{node.op_type} of the private domain '{node.domain}'"

    return check


def opset_above(limit: int) -> Check:
    def check(graph: Graph) -> Found:
        if graph.opset > limit:
            yield None, f"opset {graph.opset}, the parser reads up to {limit}"

    return check


def operator_outside(known: frozenset[str]) -> Check:
    def check(graph: Graph) -> Found:
        for node in graph.nodes:
            if node.domain in STANDARD and node.op_type not in known | INTEGER:
                yield node, f"{node.op_type} is not in the parser's table"

    return check


def alignment(graph: Graph) -> Found:
    for node in graph.of_type("Conv"):
        if attribute(node, "group", 1) > 1:
            continue
        weight = graph.dequantizer(node.input[1])
        shape = graph.shape(node.input[1] if weight is None else weight.input[0])
        multiple = ALIGNMENT["float" if weight is None else "int8"]
        if shape is not None and shape[0] % multiple:
            yield node, f"{shape[0]} output channels, not a multiple of {multiple}"


def float32_remainder(graph: Graph) -> Found:
    """A strongly typed network runs its float operators in the type that stands in the file."""
    if not graph.quantized:
        return
    types = {graph.tensor_type(node.input[1]) for node in graph.of_type("DequantizeLinear")}
    if types and FLOAT16 not in types:
        yield None, "what is not quantized is float32"


def free_shape(graph: Graph) -> Found:
    for value in graph.inputs:
        sizes = value.type.tensor_type.shape.dim
        if any(not size.HasField("dim_value") for size in sizes):
            yield None, f"input {value.name} has a free size"


RULES = {
    "batchnorm": Rule(
        batchnorm,
        "error",
        EVERYWHERE,
        "it keeps the convolution before it from being fused: 2.29 ms instead of 0.60 (ResNet-20, onnxruntime, x86)",
        "fold BatchNorm into the convolution before quantizing",
    ),
    "int32-bias": Rule(
        int32_bias,
        "error",
        {"tensorrt": ""},
        "the parser refuses the file",
        "leave the bias in float; it costs no time",
    ),
    "float-weights": Rule(
        float_weights,
        "warning",
        EVERYWHERE,
        "the file is four times as large (resnet18: 46.8 MB instead of 11.8), at the same speed",
        "store the rounded int8 weight behind one DequantizeLinear",
    ),
    "integer-operator": Rule(
        integer_operator,
        "error",
        {"tensorrt": ""},
        "the parser refuses the file",
        "export QuantizeLinear and DequantizeLinear (QDQ), not the QOperator form",
    ),
    "private-domain": Rule(
        domain_of(STANDARD),
        "error",
        {"tensorrt": "", "openvino": ""},
        "the file is refused",
        "export with standard operators only",
    ),
    "unknown-domain": Rule(
        domain_of(ONNXRUNTIME),
        "error",
        {"onnxruntime": ""},
        "the file is refused unless a library of custom operators is loaded",
        "export with standard operators only",
    ),
    "opset-17": Rule(
        opset_above(17),
        "error",
        {"tensorrt": "<10"},
        "the parser refuses the file",
        "export for TensorRT 8: opset 17",
    ),
    "opset-20": Rule(
        opset_above(20),
        "error",
        {"tensorrt": ">=10,<10.2"},
        "the parser refuses the file",
        "export with opset 20 or lower",
    ),
    "operator-8.5": Rule(
        operator_outside(TENSORRT_8_5),
        "error",
        {"tensorrt": "<8.6"},
        "the parser refuses the file",
        "write it with operators of the table (docs/operators.md of onnx-tensorrt 8.5)",
    ),
    "operator-8.6": Rule(
        operator_outside(TENSORRT_8_6),
        "error",
        {"tensorrt": ">=8.6,<10"},
        "the parser refuses the file",
        "write it with operators of the table (docs/operators.md of onnx-tensorrt 8.6)",
    ),
    "operator-10.1": Rule(
        operator_outside(TENSORRT_10_1),
        "error",
        {"tensorrt": ">=10,<10.2"},
        "the parser refuses the file",
        "write it with operators of the table (docs/operators.md of onnx-tensorrt 10.1)",
    ),
    "operator-newer": Rule(
        operator_outside(TENSORRT_10_1),
        "warning",
        {"tensorrt": ">=10.2"},
        "the parser of 10.1 refuses the file; the tables of later parsers are not known to edgekit",
        "try it in TensorRT-RTX: `export: [tensorrt_rtx]` parses and builds it without a GPU",
    ),
    "alignment": Rule(
        alignment,
        "warning",
        {"tensorrt": ""},
        "tensor cores work on whole tiles, so the last one is partly empty and the tensor may be reformatted",
        "prune to multiples of 16 for int8 and of 8 for float16",
    ),
    "float32-remainder": Rule(
        float32_remainder,
        "warning",
        {"tensorrt": ">=10"},
        "the float operators run in float32: 0.900 ms instead of 0.742 with float16 (TensorRT 10.13)",
        "export for TensorRT 10 and later, where the remainder is float16",
    ),
    "free-shape": Rule(
        free_shape,
        "error",
        {"tensorrt": ""},
        "no engine is built without an optimization profile, and edgekit gives none",
        "export with the size that will run",
    ),
}
