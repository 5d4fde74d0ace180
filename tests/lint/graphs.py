"""Small ONNX graphs in onnx's own text form, with constants given as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

CHANNELS = 16


def graph(body: str, *, opset: int = 17, shape: str = "1,16,8,8", domain: str = "", **constants: Any) -> Any:
    """A model with input `x`, float32 of `shape`, and output `y`.

    Constants that every body may use: scale 0.1 (s) and 0.2 (t), int8 zero (z), uint8 zero (u0) and 128 (u128); an int8
    weight w [16, 16, 1, 1] with 16 scales (ws) and zero points (wz); a float weight f, a float bias b.
    """
    imports = f'"" : {opset}' + (f', "{domain}" : 1' if domain else "")
    text = f"<ir_version: 8, opset_import: [{imports}]>\nsmall (float[{shape}] x) => (float[n, c, h, w] y) {{{body}}}"
    model = onnx.parser.parse_model(text)
    used = {name for node in model.graph.node for name in node.input}
    for name, value in {**_common(), **constants}.items():
        if name in used:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return model


def _common() -> dict[str, np.ndarray]:
    levels = np.random.default_rng(0).integers(-127, 128, (CHANNELS, CHANNELS, 1, 1))
    return {
        "s": np.array(0.1, np.float32),
        "t": np.array(0.2, np.float32),
        "z": np.array(0, np.int8),
        "u0": np.array(0, np.uint8),
        "u128": np.array(128, np.uint8),
        "w": levels.astype(np.int8),
        "w32": np.array([[5]], np.int32),
        "ws": np.full(CHANNELS, 0.01, np.float32),
        "wz": np.zeros(CHANNELS, np.int8),
        "f": (levels * 0.01).astype(np.float32),
        "b": np.ones(CHANNELS, np.float32),
    }


def pair(source: str, result: str, scale: str = "s", zero: str = "z") -> str:
    """Q -> DQ as text."""
    return (
        f"{result}_q = QuantizeLinear({source}, {scale}, {zero}) "
        f"{result} = DequantizeLinear({result}_q, {scale}, {zero})\n"
    )


def conv(source: str, result: str) -> str:
    """A 1x1 convolution with an int8 weight behind DequantizeLinear."""
    return f"{result}_w = DequantizeLinear <axis = 0> (w, ws, wz) {result} = Conv({source}, {result}_w)\n"
