"""The recipes' networks, quantized and exported for a runtime, and what other tools make of the same networks."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from edgekit import quantizers
from edgekit.exporters import onnx as exporter
from edgekit.model import Model
from edgekit.settings import ModelSettings

ROOT = Path(__file__).parent.parent


def recipes() -> ModuleType:
    """recipes/networks.py."""
    spec = importlib.util.spec_from_file_location("recipe_networks", ROOT / "recipes" / "networks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small() -> nn.Module:
    """A residual network with both kinds of skip branch, 16 and 32 channels, 8x8 gray images, BatchNorm not folded."""
    torch.manual_seed(0)
    net: nn.Module = recipes().ResNet(1, 10, 16, [(16, 1), (32, 2)])
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features) * 0.1
            module.running_var = torch.rand(module.num_features) + 0.5
    return net.eval()


def images(shape: tuple[int, ...] = (1, 8, 8), count: int = 16) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


def model(net: nn.Module, example: Tensor) -> Model:
    return Model(ModelSettings(source="python:networks.py:small"), ROOT, net.eval(), example)


def quantized(net: nn.Module, batch: Tensor, scheme: str) -> Model:
    folded, _ = quantizers.fold_batchnorm(net, batch[:1])
    return model(quantizers.quantize(folded, [batch], quantizers.SCHEMES[scheme])[0], batch[:1])


def export_int8(path: Path, scheme: str, net: nn.Module | None = None, batch: Tensor | None = None) -> Path:
    """Our own int8 export in the scheme of a runtime."""
    exporter.export(quantized(net or small(), images() if batch is None else batch, scheme), path)
    return path


def export_float(path: Path, net: nn.Module | None = None, example: Tensor | None = None) -> Path:
    exporter.export(model(net or small(), images()[:1] if example is None else example), path)
    return path


def export_with_batchnorm(path: Path, net: nn.Module | None = None, example: Tensor | None = None) -> Path:
    """The network as an exporter without optimizations writes it: BatchNormalization as nodes of their own."""
    with exporter._quiet(), torch.no_grad():
        given = images()[:1] if example is None else example
        program = torch.onnx.export(
            net or small(),
            (given,),
            dynamo=True,
            optimize=False,
            opset_version=18,
            input_names=["input"],
            verbose=False,
        )
    assert program is not None
    onnx.save(program.model_proto, path)
    return path


def export_nncf(path: Path, export: Callable[[Path], Path] = export_with_batchnorm) -> Path:
    """What NNCF's MIXED preset makes of a float export; by default the naive one, whose BatchNorm is not folded."""
    nncf: Any = quantizers._nncf()
    float_model = onnx.load(export(path))
    data = nncf.Dataset([{"input": image[None].numpy()} for image in images()])
    settings = nncf.AdvancedQuantizationParameters(disable_bias_correction=True)  # it fails where there is no bias
    mixed = nncf.QuantizationPreset.MIXED
    onnx.save(nncf.quantize(float_model, data, preset=mixed, subset_size=16, advanced_parameters=settings), path)
    return path


def export_onnxruntime_default(path: Path) -> Path:
    """What onnxruntime's static quantization makes by default: uint8 or int8, int32 biases behind DequantizeLinear."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(images())

        def get_next(self) -> Any:
            image = next(self.rest, None)
            return None if image is None else {"input": image[None].numpy()}

    plain = export_float(path.with_suffix(".float.onnx"))
    quantize_static(str(plain), str(path), Reader())
    return path


def torchvision_network(name: str) -> nn.Module:
    """A torchvision network with re-estimated BatchNorm: as initialized, some give outputs of 1e-9.

    torchvision beside a CPU build of torch fails at import until its operators are declared.
    """
    library: Any = getattr(torch.library, "Library")("torchvision", "FRAGMENT")  # noqa: B009 - it is untyped
    for signature in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor a, Tensor b, float c) -> Tensor",
    ):
        with contextlib.suppress(RuntimeError):  # declared by a torchvision that fits
            library.define(signature)
    import torchvision

    torch.manual_seed(0)
    net: nn.Module = getattr(torchvision.models, name)(num_classes=10).train()
    with torch.no_grad():
        for _ in range(3):
            net(images((3, 64, 64), 4))
    return net.eval()
