"""Rules about the numbers of quantizers: zero points, integer types, scales, axes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgekit.lint.graph import CLAMPS, Graph, attribute, is_quantizer
from edgekit.lint.rule import Found, Rule

INT8_TYPES = {3: "int8", 2: "uint8"}
EVERYWHERE = {"tensorrt": "", "onnxruntime": "", "openvino": ""}


def zero_point(graph: Graph) -> Found:
    for node, zero in _zero_points(graph):
        if np.any(zero != 0):
            yield node, f"zero point {_range(zero)}, TensorRT takes 0 only"


def unsigned(graph: Graph) -> Found:
    for node in _pairs(graph):
        named = graph.tensor_type(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        # Without a zero point QuantizeLinear makes uint8: the default of the standard.
        if named == 2 or (named is None and node.op_type == "QuantizeLinear" and not _says_int8(node)):
            yield node, "quantized to uint8, TensorRT takes int8 only"


def scale_positive(graph: Graph) -> Found:
    for node in _pairs(graph):
        scale = graph.value(node.input[1])
        if scale is not None and not np.all(np.isfinite(scale) & (scale > 0)):
            yield node, f"scale {_range(scale)} is not a positive number"


def scale_constant(graph: Graph) -> Found:
    for node in _quantizers(graph):
        if any(name and not graph.is_constant(name) for name in node.input[1:3]):
            yield node, "its scale or zero point is computed while the network runs"


def activation_per_channel(graph: Graph) -> Found:
    for node in graph.of_type("QuantizeLinear"):
        if not graph.is_constant(node.input[0]) and _count(graph, node.input[1]) > 1:
            yield node, f"an activation with {_count(graph, node.input[1])} scales, one for each channel"


def weight_per_tensor(graph: Graph) -> Found:
    for node, weight, _ in _weights(graph):
        shape = graph.shape(weight.input[0]) or graph.shape(_origin(graph, weight))
        if _count(graph, weight.input[1]) == 1 and shape is not None and max(shape) > 1:
            yield node, "one scale for the whole weight"


def weight_axis(graph: Graph) -> Found:
    for node, weight, axis in _weights(graph):
        found = attribute(weight, "axis", 1)
        rank = len(graph.shape(_origin(graph, weight)) or ())
        if _count(graph, weight.input[1]) > 1 and rank and found % rank != axis % rank:
            yield node, f"weight scales along axis {found}, the output channels are axis {axis % rank}"


def pair_disagrees(graph: Graph) -> Found:
    for quantize in graph.of_type("QuantizeLinear"):
        for node in graph.readers(quantize.output[0]):
            if node.op_type == "DequantizeLinear" and not _same_numbers(graph, quantize, node):
                yield node, "its scale, zero point or axis is not that of the QuantizeLinear before it"


def clamp_zero_point(graph: Graph) -> Found:
    for node, zero in _zero_points(graph):
        if node.op_type != "QuantizeLinear":
            continue
        before = graph.maker(node.input[0])
        lowest = np.iinfo(zero.dtype).min if zero.dtype.kind in "iu" else 0
        if before is not None and before.op_type in CLAMPS and np.any(zero != lowest):
            yield node, f"zero point {_range(zero)} after {before.op_type}, the smallest of {zero.dtype} is {lowest}"


def _quantizers(graph: Graph) -> list[Any]:
    return [node for node in graph.nodes if is_quantizer(node)]


def _pairs(graph: Graph) -> list[Any]:
    """Every QuantizeLinear, and every DequantizeLinear without one: a pair is named once."""
    pairs = []
    for node in _quantizers(graph):
        before = graph.maker(node.input[0])
        if node.op_type == "QuantizeLinear" or before is None or before.op_type != "QuantizeLinear":
            pairs.append(node)
    return pairs


def _zero_points(graph: Graph) -> Iterator[tuple[Any, np.ndarray]]:
    for node in _pairs(graph):
        zero = graph.value(node.input[2]) if len(node.input) > 2 else None
        if zero is not None:
            yield node, zero


def _says_int8(node: Any) -> bool:
    return attribute(node, "output_dtype", 0) == 3


def _count(graph: Graph, scale: str) -> int:
    return int(np.prod(graph.shape(scale) or (1,)))


def _range(values: np.ndarray) -> str:
    low, high = values.min(), values.max()
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _weights(graph: Graph) -> Iterator[tuple[Any, Any, int]]:
    """(weighted operator, DequantizeLinear of its weight, axis of its output channels)."""
    for node in graph.of_type("Conv", "ConvTranspose", "Gemm", "MatMul"):
        weight = graph.dequantizer(node.input[1])
        if weight is None or not graph.quantized_weight(weight):
            continue
        if node.op_type == "Gemm":
            axis = 0 if attribute(node, "transB", 0) else 1
        else:
            axis = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}[node.op_type]
        yield node, weight, axis


def _origin(graph: Graph, dequantizer: Any) -> str:
    """Name of the constant behind a DequantizeLinear."""
    maker = graph.maker(dequantizer.input[0])
    return str(dequantizer.input[0] if maker is None else maker.input[0])


def _same_numbers(graph: Graph, one: Any, other: Any) -> bool:
    for index in (1, 2):
        names = [str(node.input[index]) if len(node.input) > index else "" for node in (one, other)]
        if names[0] == names[1]:
            continue
        values = [graph.value(name) if name else np.zeros((), np.int64) for name in names]
        if values[0] is None or values[1] is None or not np.array_equal(values[0], values[1]):
            return False
    per_channel = _count(graph, one.input[1]) > 1
    return not per_channel or attribute(one, "axis", 1) == attribute(other, "axis", 1)


RULES = {
    "zero-point": Rule(
        zero_point,
        "error",
        {"tensorrt": ""},
        "the parser refuses the file",
        "quantize with the tensorrt scheme: every zero point 0",
    ),
    "unsigned": Rule(
        unsigned,
        "error",
        {"tensorrt": ""},
        "refused by old parsers; newer ones read uint8 as int8 behind a warning, and every value above 127 is lost",
        "quantize with the tensorrt scheme: int8 everywhere, after ReLU too",
    ),
    "scale-positive": Rule(
        scale_positive,
        "error",
        EVERYWHERE,
        "the tensor becomes NaN, infinite or zero",
        "calibrate again with images of the task; leave out a quantizer that saw only zeros",
    ),
    "scale-constant": Rule(
        scale_constant,
        "error",
        EVERYWHERE,
        "no fusion: a kernel is chosen for constant scales, the operators around it run in float",
        "quantize statically: write the calibrated scale as an initializer",
    ),
    "activation-per-channel": Rule(
        activation_per_channel,
        "error",
        EVERYWHERE,
        "no int8 kernel takes activations with a scale for each channel; the operators behind it run in float",
        "quantize activations with one scale for the tensor",
    ),
    "weight-per-tensor": Rule(
        weight_per_tensor,
        "warning",
        EVERYWHERE,
        "accuracy: a channel of small weights shares the steps of the largest",
        "quantize weights for each output channel; it costs no time",
    ),
    "weight-axis": Rule(
        weight_axis,
        "error",
        EVERYWHERE,
        "the kernel scales output channels, so the weight is dequantized and multiplied in float",
        "set axis to the output channels: 0 for Conv, 1 for ConvTranspose, 0 for Gemm with transB=1",
    ),
    "pair-disagrees": Rule(
        pair_disagrees,
        "error",
        EVERYWHERE,
        "every value is scaled by the ratio of the two scales: wrong numbers, or a rescaling that stops the fusion",
        "give both the same scale, zero point and axis",
    ),
    "clamp-zero-point": Rule(
        clamp_zero_point,
        "error",
        {"onnxruntime": ""},
        "ReLU is not folded and the convolution before it stays in float: resnet18 25 ms instead of 8.6",
        "quantize with the onnxruntime scheme: uint8 with zero point 0 after ReLU and ReLU6",
    ),
}
