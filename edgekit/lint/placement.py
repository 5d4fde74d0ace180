"""Rules about where quantizers stand: at Adds, concats and pools, between layers, and alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgekit.lint.graph import CLAMPS, CONVOLUTIONS, MOVES, POOLS, WEIGHTED, Graph, is_quantizer
from edgekit.lint.numbers import EVERYWHERE
from edgekit.lint.rule import Found, Rule

INT8_OPERATORS = (*WEIGHTED, *POOLS, "Add", "Mul", "Concat", "MaxPool", "Resize", "Softmax", "Sigmoid", "LeakyRelu")


def add_both_inputs(graph: Graph) -> Found:
    """The path from a convolution to a residual Add is quantized although the skip branch is too."""
    for node, inputs in _adds(graph):
        if all(inputs) and any(_from_convolution(graph, one) and _read_once(graph, one) for one in inputs):
            yield node, "both inputs are quantized, the path from the convolution too"


def add_skip_float(graph: Graph) -> Found:
    for node, inputs in _adds(graph):
        makers = [graph.before_clamps(name) for name in node.input]
        if not any(inputs) and any(maker is not None and _is_int8(graph, maker) for maker in makers):
            yield node, "neither input is quantized, although an int8 convolution feeds it"


def add_one_input(graph: Graph) -> Found:
    for node, inputs in _adds(graph):
        if any(inputs) and not all(inputs):
            yield node, "one input is quantized, the other is float"


def convolution_output_float(graph: Graph) -> Found:
    """onnxruntime builds QLinearConv only from DQ -> Conv -> Q."""
    for node in graph.of_type(*CONVOLUTIONS):
        if _is_int8(graph, node):
            after = graph.after_clamps(node.output[0])
            if not after or any(one.op_type != "QuantizeLinear" for one in after):
                yield node, "its inputs are quantized, its output is not"


def float_activation(graph: Graph) -> Found:
    for node in graph.of_type(*WEIGHTED):
        activation, weight = (graph.dequantizer(graph.moved(name)) for name in node.input[:2])
        if activation is None and weight is not None:
            yield node, "its weight is quantized, its activation is float"


def float_weight(graph: Graph) -> Found:
    for node in graph.of_type(*WEIGHTED):
        activation, weight = (graph.dequantizer(graph.moved(name)) for name in node.input[:2])
        if activation is not None and weight is None:
            yield node, "its activation is quantized, its weight is float"


def float_layer(graph: Graph) -> Found:
    """A weighted operator without any quantizer, between int8 neighbours."""
    for node in graph.of_type(*WEIGHTED):
        if graph.quantized and not any(graph.dequantizer(graph.moved(name)) for name in node.input[:2]):
            yield node, "runs in float in a quantized network"


def quantizer_before_clamp(graph: Graph) -> Found:
    for node in graph.of_type(*CLAMPS):
        quantizer = graph.dequantizer(node.input[0])
        if quantizer is not None and _from_convolution(graph, quantizer):
            yield node, "quantized between the convolution and this activation"


def concat_scales(graph: Graph) -> Found:
    for node in graph.of_type("Concat"):
        scales = [graph.value(one.input[1]) for name in node.input if (one := graph.dequantizer(name)) is not None]
        known = [scale for scale in scales if scale is not None]
        if len(known) > 1 and any(not np.array_equal(known[0], scale) for scale in known[1:]):
            yield node, f"its inputs have {len({float(scale.flat[0]) for scale in known})} different scales"


def pool_input(graph: Graph) -> Found:
    for node in graph.of_type(*POOLS):
        behind = graph.after_clamps(node.output[0])
        if graph.dequantizer(node.input[0]) is None and any(one.op_type == "QuantizeLinear" for one in behind):
            yield node, "its output is quantized, its input is float"


def dangling_quantize(graph: Graph) -> Found:
    for node in graph.of_type("QuantizeLinear"):
        readers = graph.readers(node.output[0])
        others = sorted(
            {one.op_type for one in readers if one.op_type != "DequantizeLinear" and not _moves(graph, one)}
        )
        if others:
            yield node, f"int8 goes straight into {', '.join(others)}, without a DequantizeLinear"
        elif not readers and node.output[0] not in graph.outputs:
            yield node, "nothing reads what it makes"


def dangling_dequantize(graph: Graph) -> Found:
    inputs = {value.name for value in graph.inputs}
    for node in graph.of_type("DequantizeLinear"):
        maker = graph.maker(node.input[0])
        while maker is not None and maker.op_type in MOVES:
            maker = graph.maker(maker.input[0])
        known = graph.is_constant(node.input[0]) or node.input[0] in inputs
        if not known and maker is not None and maker.op_type != "QuantizeLinear":
            yield node, f"dequantizes what {maker.op_type} makes, no QuantizeLinear stands before it"


def island(graph: Graph) -> Found:
    """Quantized and dequantized for operators that run in float anyway."""
    for node in graph.of_type("DequantizeLinear"):
        if graph.quantized_weight(node) or node.output[0] in graph.outputs:
            continue
        readers = list(_served(graph, node.output[0]))
        if readers and not any(one.op_type in INT8_OPERATORS or is_quantizer(one) for one in readers):
            kinds = ", ".join(sorted({one.op_type for one in readers}))
            yield node, f"only {kinds} reads it, which runs in float"


def quantized_twice(graph: Graph) -> Found:
    for node in graph.of_type("QuantizeLinear"):
        if graph.dequantizer(node.input[0]) is not None:
            yield node, "quantizes what was just dequantized"


def _adds(graph: Graph) -> Iterator[tuple[Any, list[Any | None]]]:
    """Adds of two computed tensors in a quantized network, with the DequantizeLinear before each input."""
    for node in graph.of_type("Add"):
        if graph.quantized and not any(graph.constant_weight(name) for name in node.input):
            yield node, [graph.dequantizer(name) for name in node.input]


def _from_convolution(graph: Graph, dequantizer: Any) -> bool:
    """Convolution -> Q -> this DQ, with no activation in between."""
    quantize = graph.maker(dequantizer.input[0])
    maker = graph.maker(quantize.input[0]) if quantize is not None and quantize.input else None
    return maker is not None and maker.op_type in CONVOLUTIONS


def _read_once(graph: Graph, dequantizer: Any) -> bool:
    return all(len(graph.readers(name)) == 1 for name in (dequantizer.input[0], dequantizer.output[0]))


def _is_int8(graph: Graph, node: Any) -> bool:
    return node.op_type in CONVOLUTIONS and all(graph.dequantizer(name) is not None for name in node.input[:2])


def _moves(graph: Graph, node: Any) -> bool:
    """Moves int8 values to a DequantizeLinear: Q -> MaxPool -> DQ, Q -> Flatten -> DQ."""
    behind = graph.readers(node.output[0])
    return node.op_type in MOVES and bool(behind) and all(one.op_type in ("DequantizeLinear", *MOVES) for one in behind)


def _served(graph: Graph, name: str) -> Iterator[Any]:
    """What reads a tensor's values, operators that only move or clamp them looked through."""
    for node in graph.readers(name):
        if node.op_type in (*MOVES, *CLAMPS):
            yield from _served(graph, node.output[0])
        else:
            yield node


RULES = {
    "add-both-inputs": Rule(
        add_both_inputs,
        "error",
        {"tensorrt": ""},
        "the convolution and the Add are two kernels, a reformat between: resnet18 on A100 0.883 ms, float16 0.862",
        "quantize the skip branch only (tensorrt scheme): 0.546 ms",
    ),
    "add-skip-float": Rule(
        add_skip_float,
        "error",
        {"tensorrt": "", "onnxruntime": ""},
        "the Add runs in float, with its inputs read and written at four times the bytes",
        "quantize the skip branch (tensorrt scheme) or both inputs (onnxruntime scheme)",
    ),
    "add-one-input": Rule(
        add_one_input,
        "error",
        {"onnxruntime": ""},
        "the convolution before the float input stays in float: resnet18 8 of 20 convolutions, 25.4 ms instead of 8.6",
        "quantize both inputs of every Add (onnxruntime scheme)",
    ),
    "convolution-output-float": Rule(
        convolution_output_float,
        "error",
        {"onnxruntime": ""},
        "onnxruntime runs this convolution in float",
        "quantize its output, after the ReLU where there is one",
    ),
    "float-activation": Rule(
        float_activation,
        "error",
        EVERYWHERE,
        "it runs in float and pays for dequantizing the weight on top",
        "quantize its activation too, or leave its weight in float",
    ),
    "float-weight": Rule(
        float_weight,
        "error",
        {"tensorrt": "", "openvino": ""},  # onnxruntime 1.31 quantizes such a weight by itself (measured)
        "it runs in float and pays for dequantizing the activation on top",
        "quantize its weight too, for each output channel",
    ),
    "float-layer": Rule(
        float_layer,
        "warning",
        EVERYWHERE,
        "float arithmetic, and a conversion on either side",
        "quantize it, unless accuracy is what keeps it in float (keep_float in the recipe)",
    ),
    "quantizer-before-clamp": Rule(
        quantizer_before_clamp,
        "error",
        EVERYWHERE,
        "the activation is a kernel of its own instead of a part of the convolution",
        "move Q/DQ behind the activation",
    ),
    "concat-scales": Rule(
        concat_scales,
        "warning",
        EVERYWHERE,
        "one more rescaling for each input of the Concat, or the Concat runs in float",
        "calibrate the inputs of a Concat together: one scale",
    ),
    "pool-input": Rule(
        pool_input,
        "warning",
        EVERYWHERE,
        "the pooling runs in float, with a reformat before it: resnet18 on A100 0.546 ms, 0.500 with it quantized",
        "quantize the input of the pooling with the scale of its neighbours",
    ),
    "dangling-quantize": Rule(
        dangling_quantize,
        "error",
        EVERYWHERE,
        "the file is refused, or the integers are taken for values",
        "put a DequantizeLinear with the same scale behind it",
    ),
    "dangling-dequantize": Rule(
        dangling_dequantize,
        "error",
        EVERYWHERE,
        "the file is refused, or no int8 operator is built",
        "put a QuantizeLinear with the same scale before it",
    ),
    "island": Rule(
        island,
        "warning",
        EVERYWHERE,
        "values are rounded and two conversions paid for nothing",
        "leave this quantizer out",
    ),
    "quantized-twice": Rule(
        quantized_twice,
        "warning",
        EVERYWHERE,
        "values are rounded twice, and the second pair is a kernel of its own",
        "keep one of the two pairs",
    ),
}
