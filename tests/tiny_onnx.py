"""A network of two convolutions, written node by node: the first quantized so that it can be fused, the second float.

input `x` float32 [batch, 1, 4, 4] -> Q/DQ -> 1x1 convolution (weight 2) -> ReLU -> Q/DQ -> 1x1 convolution (weights 1
and 3) -> mean over the image -> output `y` float32 [batch, 2]: for a constant image c >= 0 it is [2 c, 6 c].
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekit.artifact import Artifact, TensorSpec, sha256_of


def write(path: Path, batch: int | str = "batch") -> Path:
    """The network as an ONNX file; batch: the first dimension, a name where it is free."""
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "scale", "middle"], ["x_q"]),
        node("DequantizeLinear", ["x_q", "scale", "middle"], ["x_dq"]),
        node("DequantizeLinear", ["weight1", "weight_scale", "zero"], ["weight1_dq"]),
        node("Conv", ["x_dq", "weight1_dq"], ["c1"], name="quantized"),
        node("Relu", ["c1"], ["r"]),
        node("QuantizeLinear", ["r", "scale", "lowest"], ["r_q"]),
        node("DequantizeLinear", ["r_q", "scale", "lowest"], ["r_dq"]),
        node("Conv", ["r_dq", "weight2"], ["c2"], name="float"),
        node("GlobalAveragePool", ["c2"], ["pooled"]),
        node("Flatten", ["pooled"], ["y"]),
    ]
    constants = {
        "scale": np.array(1 / 16, np.float32),
        "middle": np.array(128, np.uint8),
        "lowest": np.array(0, np.uint8),
        "zero": np.array(0, np.int8),
        "weight_scale": np.array(1 / 32, np.float32),
        "weight1": np.full((1, 1, 1, 1), 64, np.int8),  # 64 / 32 = 2
        "weight2": np.array([1, 3], np.float32).reshape(2, 1, 1, 1),
    }
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 1, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def artifact(path: Path, **fields: Any) -> Artifact:
    """The record of a file that `write` wrote."""
    inputs, outputs = (TensorSpec("x", "float32", ("batch", 1, 4, 4)),), (TensorSpec("y", "float32", ("batch", 2)),)
    return Artifact(path, "onnx", sha256_of(path), path.stat().st_size, inputs, outputs, precision="int8", **fields)


def images(*values: float) -> np.ndarray:
    """Constant images, float32 [n, 1, 4, 4]."""
    return np.stack([np.full((1, 4, 4), value, np.float32) for value in values])
