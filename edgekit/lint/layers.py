"""What TensorRT says it built: reformats and layers that fell back to float, counted by type.

Reads --exportLayerInfo and the engine inspector's JSON. A reformat is known by its layer type, not by its name: in a
quantized network many of them carry a quantizer's (`QuantizeLinear_2`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import InputError
from edgekit.trtexec import Layer, Tensor, read_layers

INT8 = ("Int8", "INT8")
REFORMAT = ("Reformat", "reformat")
MATRIX = ("Convolution", "Conv", "Gemm", "MatrixMultiply", "MatMul", "FullyConnected")


@dataclass(frozen=True)
class LayerReport:
    """layers: how many. unknown: those without a type (exported with names only), of which nothing can be said.

    int8: layers that take int8. reformats: names; dtype_changes: of those that change the type. half_int8: names of
    convolutions with int8 in and float out. float_layers: layer type -> how many take float only, in an engine that
    has int8 layers.
    """

    layers: int
    unknown: int
    int8: int
    reformats: tuple[str, ...]
    dtype_changes: tuple[str, ...]
    half_int8: tuple[str, ...]
    float_layers: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def lint_layers(path: str | Path) -> LayerReport:
    """Counts what slows an int8 engine down.

    Raises:
        InputError: the file cannot be read, or is no layer information.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read", why=str(error)) from None
    return count(read_layers(text))


def count(layers: tuple[Layer, ...]) -> LayerReport:
    """The same, of layers that were read."""
    typed = [layer for layer in layers if layer.type is not None]
    reformats = [layer for layer in typed if layer.type in REFORMAT]
    work = [layer for layer in typed if layer.type not in REFORMAT]
    any_int8 = any(_int8(layer.inputs) for layer in work)
    return LayerReport(
        layers=len(layers),
        unknown=len(layers) - len(typed),
        int8=sum(_int8(layer.inputs) for layer in work),
        reformats=tuple(layer.name for layer in reformats),
        dtype_changes=tuple(layer.name for layer in reformats if _types(layer.inputs) != _types(layer.outputs)),
        half_int8=tuple(one.name for one in work if _matrix(one) and _int8(one.inputs) and _float(one.outputs)),
        float_layers=dict(Counter(str(one.type) for one in work if any_int8 and _float(one.inputs))),
    )


def _types(tensors: tuple[Tensor, ...]) -> set[str | None]:
    return {tensor.dtype for tensor in tensors}


def _int8(tensors: tuple[Tensor, ...]) -> bool:
    return any(tensor.dtype in INT8 for tensor in tensors)


def _float(tensors: tuple[Tensor, ...]) -> bool:
    """Whether all of a layer's tensors are float, as far as is known; no tensor is not float."""
    known = [tensor.dtype for tensor in tensors if tensor.dtype is not None]
    return bool(known) and all(dtype.upper().startswith(("FP", "BF", "FLOAT", "HALF")) for dtype in known)


def _matrix(layer: Layer) -> bool:
    return layer.type is not None and any(word in layer.type for word in MATRIX)
