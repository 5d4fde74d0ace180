"""An ONNX graph as the rules read it: who makes a tensor, who reads it, what is constant, what is quantized."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.errors import InputError

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
CONVOLUTIONS = ("Conv", "ConvTranspose")
CLAMPS = ("Relu", "Clip")  # what a runtime folds into the operator before, or into the quantizer behind
# Operators that move values and do not change them: a quantizer before them serves what comes behind.
MOVES = ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Pad", "Identity", "Split")
POOLS = ("AveragePool", "GlobalAveragePool")
FLOATS = (1, 10, 11, 16)  # onnx.TensorProto: FLOAT, FLOAT16, DOUBLE, BFLOAT16


class Graph:
    """The main graph of a model; subgraphs (If, Loop) are not looked into."""

    def __init__(self, proto: Any):
        self.proto = proto
        self.nodes = list(proto.graph.node)
        self.outputs = [value.name for value in proto.graph.output]
        self._tensors = {one.name: one for one in proto.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self._tensors[node.output[0]] = node.attribute[0].t
        self.inputs = [value for value in proto.graph.input if value.name not in self._tensors]

    @cached_property
    def _makers(self) -> dict[str, Any]:
        return {name: node for node in self.nodes for name in node.output if name}

    @cached_property
    def _readers(self) -> dict[str, list[Any]]:
        readers: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in filter(None, node.input):
                readers.setdefault(name, []).append(node)
        return readers

    @property
    def opset(self) -> int:
        """Version of the standard operators; 0 where the file names none."""
        return max((one.version for one in self.proto.opset_import if one.domain in ("", "ai.onnx")), default=0)

    @cached_property
    def quantized(self) -> bool:
        return any(is_quantizer(node) for node in self.nodes)

    def of_type(self, *kinds: str) -> list[Any]:
        return [node for node in self.nodes if node.op_type in kinds and node.domain in ("", "ai.onnx")]

    def maker(self, name: str) -> Any | None:
        """The node that makes a tensor; None for inputs and initializers."""
        return self._makers.get(name)

    def readers(self, name: str) -> list[Any]:
        return self._readers.get(name, [])

    def is_constant(self, name: str) -> bool:
        return name in self._tensors

    def tensor_type(self, name: str) -> int | None:
        """onnx.TensorProto's number of a constant's type, None for what is computed."""
        return self._tensors[name].data_type if name in self._tensors else None

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a constant, None for what is computed."""
        return tuple(self._tensors[name].dims) if name in self._tensors else None

    def value(self, name: str) -> np.ndarray | None:
        """A constant's numbers; None for what is computed, what is no number, and weights in a file beside the model.

        Raises:
            InputError: it is stored wrongly.
        """
        from onnx import TensorProto, numpy_helper

        tensor = self._tensors.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        try:
            value = np.asarray(numpy_helper.to_array(tensor))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"the constant '{name}' is broken", why=str(error)) from None
        return value if value.size and value.dtype.kind not in "OSU" else None

    def dequantizer(self, name: str) -> Any | None:
        """The DequantizeLinear that makes a tensor, or None."""
        node = self.maker(name)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def quantized_weight(self, dequantizer: Any) -> bool:
        """Whether a DequantizeLinear gives a constant: an int8 constant, or a float one behind a QuantizeLinear."""
        name = dequantizer.input[0]
        maker = self.maker(name)
        if maker is not None and maker.op_type == "QuantizeLinear":
            name = maker.input[0]
        return self.is_constant(name)

    def constant_weight(self, name: str) -> bool:
        """Whether a tensor is constant, behind Q/DQ or not."""
        dequantizer = self.dequantizer(name)
        return self.is_constant(name) if dequantizer is None else self.quantized_weight(dequantizer)

    def moved(self, name: str) -> str:
        """The tensor whose values stand in this one: operators that only move values skipped on the way back."""
        while (maker := self.maker(name)) is not None and maker.op_type in MOVES:
            name = maker.input[0]
        return name

    def before_clamps(self, name: str) -> Any | None:
        """The node that makes a tensor, Relu and Clip skipped on the way back."""
        node = self.maker(name)
        while node is not None and node.op_type in CLAMPS:
            node = self.maker(node.input[0])
        return node

    def after_clamps(self, name: str) -> list[Any]:
        """The nodes that read a tensor, a single Relu or Clip skipped on the way."""
        readers = self.readers(name)
        while len(readers) == 1 and readers[0].op_type in CLAMPS and name not in self.outputs:
            name = readers[0].output[0]
            readers = self.readers(name)
        return readers


def read(source: str | Path | Any) -> Graph:
    """A graph from a file, or from a ModelProto.

    Raises:
        InputError: the file cannot be read, or is no ONNX model.
    """
    import onnx

    if isinstance(source, onnx.ModelProto):
        return Graph(_sound(source, "the model", source))
    try:
        proto = onnx.load(str(source), load_external_data=False)
    except OSError as error:
        raise InputError(f"{source}: cannot be read", why=str(error.strerror or error)) from None
    except Exception as error:  # protobuf's own exceptions share no public base class
        raise InputError(f"{source}: is not an ONNX model", why=str(error).splitlines()[0]) from None
    return Graph(_sound(proto, str(source), str(source)))


def _sound(proto: Any, name: str, checked: Any) -> Any:
    """The model, once onnx's checker found every operator with its inputs and no cycle: the rules walk along them.

    checked: the path where there is one, because only then weights in a file beside it are found.
    """
    import onnx

    try:
        onnx.checker.check_model(checked)
    except Exception as error:  # the checker's errors share no base class with protobuf's
        raise InputError(f"{name}: is not an ONNX model", why=str(error).splitlines()[0]) from None
    if not proto.graph.node:
        raise InputError(f"{name}: is not an ONNX model", why="it holds no operator")
    return proto


def is_quantizer(node: Any) -> bool:
    return node.op_type in ("QuantizeLinear", "DequantizeLinear")


def attribute(node: Any, name: str, default: int) -> int:
    """An integer attribute of a node."""
    return next((int(one.i) for one in node.attribute if one.name == name), default)


def label(node: Any) -> str:
    """How a finding names a node: its name, or what it makes."""
    return str(node.name) or f"{node.op_type} -> {node.output[0]}"
