"""Quantizers: how a runtime wants its int8 (Scheme), and the modules that imitate it in training (FakeQuant).

NNCF decides where quantizers stand and calibrates their ranges; its hooks then hold plain torch modules of ours,
because its own quantizers compile a C++ extension and do not export. A quantizer maps x to (q - zero_point) * scale,
with q = clamp(round(x / scale) + zero_point, low, high). The scale is learned (LSQ, Esser et al., arXiv 1902.08153).
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.adds import beside_skips
from edgekit.errors import InputError

HOOKS = "__nncf_hooks"
EPSILON = 1e-8  # smallest scale: a threshold that trains towards 0 must not divide by it


@dataclass(frozen=True)
class Scheme:
    """How a runtime wants its quantization; the reasons are measured, see docs/architecture.md.

    unsigned: activations are uint8: zero point 0 where they cannot be negative, else 128. Otherwise int8, zero point 0.
    both_adds: quantize both inputs of an Add; otherwise the skip input only.
    """

    name: str
    unsigned: bool
    both_adds: bool


SCHEMES = {
    # ONNX Runtime folds ReLU into a quantizer only when its zero point is the type's minimum.
    "onnxruntime": Scheme("onnxruntime", unsigned=True, both_adds=True),
    "openvino": Scheme("openvino", unsigned=True, both_adds=True),
    # TensorRT takes no zero point but 0, and fuses a convolution with an Add when nothing is rounded between them.
    "tensorrt": Scheme("tensorrt", unsigned=False, both_adds=False),
    "tensorrt_rtx": Scheme("tensorrt", unsigned=False, both_adds=False),
}


@dataclass(frozen=True)
class Placement:
    """Where a quantizer stands and its integer range.

    side: `pre` is an input of the operator, `post` its output; port: which one. axis: None is one scale for the whole
    tensor; a number is one scale for each of the `channels` along it (weights).
    """

    side: str
    op: str
    port: int
    low: int
    high: int
    zero_point: int
    axis: int | None
    channels: int = 1


class FakeQuant(nn.Module):
    """Rounds a tensor to the values that int8 can hold; `scale` is learned.

    Training uses LSQ's gradient, scaled by 1 / sqrt(count * high); evaluation and export call torch's own
    fake-quantization, which becomes QuantizeLinear and DequantizeLinear.
    """

    def __init__(self, scale: Tensor, place: Placement) -> None:
        super().__init__()
        self.place = place
        self.scale = nn.Parameter(scale.detach().clone().float().flatten())
        self.zero_point: Tensor
        self.register_buffer("zero_point", torch.full_like(self.scale, place.zero_point, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale.abs().clamp_min(EPSILON)
        if self.training and torch.is_grad_enabled():
            return self._learn(x, scale)
        low, high = self.place.low, self.place.high
        if self.place.axis is None:
            return torch.fake_quantize_per_tensor_affine(x, scale.detach(), self.zero_point, low, high)
        return torch.fake_quantize_per_channel_affine(x, scale.detach(), self.zero_point, self.place.axis, low, high)

    def _learn(self, x: Tensor, scale: Tensor) -> Tensor:
        low, high = self.place.low - self.place.zero_point, self.place.high - self.place.zero_point
        weight = (x.numel() / scale.numel() * high) ** -0.5
        scale = scale * weight + (scale * (1 - weight)).detach()
        if self.place.axis is not None:
            scale = scale.view([-1 if axis == self.place.axis else 1 for axis in range(x.dim())])
        levels = (x / scale).clamp(low, high)
        levels = levels + (levels.round() - levels).detach()  # straight through the rounding
        return levels * scale


def is_quantizer(parameter: str) -> bool:
    """Whether a parameter's name is that of a quantizer, not of the network."""
    return parameter.startswith(f"{HOOKS}.")


def fold_batchnorm(net: nn.Module, example: Tensor) -> tuple[nn.Module, dict[str, Any]]:
    """A copy with every BatchNorm that directly follows a convolution or linear layer folded into it, and the edit.

    A pair is found by data flow: the BatchNorm's input is the very tensor the layer gave. Folded networks must give the
    same outputs; a pair after which they do not (the layer's output is used elsewhere too) stays as it is.
    """
    folded = copy.deepcopy(net).eval()
    pairs = []
    with torch.no_grad():
        probe = torch.rand(example.shape, generator=torch.Generator().manual_seed(0))
        expected = folded(probe)
        for layer, norm in _layer_then_norm(folded, probe):
            before = (folded.get_submodule(layer), folded.get_submodule(norm))
            _fold(folded, layer, norm)
            if _close(folded(probe), expected):
                pairs.append([layer, norm])
            else:
                folded.set_submodule(layer, before[0])
                folded.set_submodule(norm, before[1])
    return folded, {"kind": "fold_batchnorm", "pairs": pairs}


def replay_fold(net: nn.Module, example: Tensor, edit: Mapping[str, Any]) -> nn.Module:
    """Folds the pairs that a saved edit names."""
    net = net.eval()
    for layer, norm in edit["pairs"]:
        _fold(net, layer, norm)
    return net


def quantize(
    net: nn.Module, batches: Sequence[Tensor], scheme: Scheme, keep_float: Sequence[str] = ()
) -> tuple[nn.Module, dict[str, Any]]:
    """A copy of the network with quantizers placed and calibrated, and the edit. BatchNorm is folded before.

    batches: calibration images as the network takes them, float32 [n, channels, height, width] each.
    keep_float: module paths whose operators stay in float.

    Raises:
        InputError: nothing in the network can be quantized, or keep_float names nothing.
    """
    placed = _place(net, batches, keep_float)
    ranges = list(_ranges(placed))
    if not any(place.axis is not None for place, _ in ranges):
        raise InputError("quantize: the network has no convolution or linear layer that can be quantized")
    scales = {}
    for found, limit in ranges:
        place = _spell(found, scheme)
        scales[place] = limit / (place.high - place.zero_point)
    result = _with(net, scales)
    if not scheme.both_adds:
        beside = [module.place for module in beside_skips(result, FakeQuant, batches[0][:1])]
        scales = {place: scale for place, scale in scales.items() if place not in beside}
        result = _with(net, scales)
    edit = {"kind": "quantize", "scheme": scheme.name, "quantizers": [asdict(place) for place in scales]}
    return result, edit


def replay(net: nn.Module, example: Tensor, edit: Mapping[str, Any]) -> nn.Module:
    """Places the quantizers of a saved edit; their scales come with the weights."""
    for record in edit["quantizers"]:
        place = Placement(**record)
        _insert(net, place, torch.ones(place.channels))
    return net.eval()


def _place(net: nn.Module, batches: Sequence[Tensor], keep_float: Sequence[str]) -> nn.Module:
    nncf = _nncf()
    ignored = [_ignored(net, path) for path in keep_float]
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars go to stdout, which is the result's
        quantized: nn.Module = nncf.quantize(
            copy.deepcopy(net).eval(),
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(patterns=ignored, validate=True) if ignored else None,
            # Bias correction would compile NNCF's C++ extension.
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                disable_bias_correction=True,
                # NNCF may give each channel before a depthwise convolution a scale; no runtime executes that in int8.
                activations_quantization_params=_per_tensor(),
            ),
        )
    return quantized


def _per_tensor() -> Any:
    from nncf.quantization.advanced_parameters import QuantizationParameters

    return QuantizationParameters(per_channel=False)


def _ignored(net: nn.Module, path: str) -> str:
    if path not in dict(net.named_modules()):
        raise InputError(f"quantize.keep_float '{path}': the network has no such module")
    return path.replace(".", "/") + "/.*"


def _nncf() -> Any:
    """NNCF, imported late, without its telemetry, its progress bars and its remarks."""
    os.environ.setdefault("NNCF_CI", "1")  # the switch NNCF's own CI uses: no telemetry is sent
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # NNCF imports OpenVINO, which reports it
    import nncf
    import nncf.torch

    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


def _ranges(placed: nn.Module) -> Iterator[tuple[Placement, Tensor]]:
    """NNCF's quantizers: where each stands, with the largest absolute value it was calibrated for."""
    hooks = placed.get_submodule(HOOKS)
    for side in ("pre", "post"):
        for key, stack in hooks.get_submodule(f"{side}_hooks").named_children():
            op, _, port = key.replace(":", ".").rpartition("__")
            for quantizer in stack.children():
                limit = quantizer.get_parameter("scale").detach().abs()
                low = int(getattr(quantizer, "level_low"))  # noqa: B009 - nn.Module types every attribute as a module
                # Weights have one scale a channel, shaped like the weight ([16, 1, 1, 1]); activations have shape [1].
                axis = max(range(limit.dim()), key=lambda d: limit.shape[d]) if limit.dim() > 1 else None
                yield Placement(side, op, int(port), low, 127, 0, axis, limit.numel()), limit.flatten()


def _spell(found: Placement, scheme: Scheme) -> Placement:
    """The integer range as the scheme writes it; weights are int8 for each output channel everywhere."""
    if found.axis is not None:
        return replace(found, low=-127, high=127, zero_point=0)
    if not scheme.unsigned:
        return replace(found, low=-128, high=127, zero_point=0)  # where QuantizeLinear itself ends
    return replace(found, low=0, high=255, zero_point=0 if found.low == 0 else 128)


def _with(net: nn.Module, scales: Mapping[Placement, Tensor]) -> nn.Module:
    result = copy.deepcopy(net)
    for place, scale in scales.items():
        _insert(result, place, scale)
    return result.eval()


def _insert(net: nn.Module, place: Placement, scale: Tensor) -> None:
    _nncf()
    from nncf.torch.function_hook import (
        is_wrapped,
        register_post_function_hook,
        register_pre_function_hook,
        wrap_model,
    )

    if not is_wrapped(net):
        wrap_model(net)
    register = register_pre_function_hook if place.side == "pre" else register_post_function_hook
    register(net, place.op, place.port, FakeQuant(scale, place))


def _layer_then_norm(net: nn.Module, probe: Tensor) -> list[tuple[str, str]]:
    """Pairs (layer, BatchNorm) where the second takes exactly what the first gave, in the order they run."""
    made: dict[int, tuple[str, Tensor]] = {}  # the tensors are held, so that no id is used twice
    pairs = []

    def after(name: str, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            made[id(output)] = (name, output)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and id(args[0]) in made:
            pairs.append((made[id(args[0])][0], name))

    def hook(name: str) -> Any:
        return lambda module, args, output: after(name, module, args, output)

    handles = [module.register_forward_hook(hook(name)) for name, module in net.named_modules()]
    net(probe)
    for handle in handles:
        handle.remove()
    return pairs


def _fold(net: nn.Module, layer: str, norm: str) -> None:
    from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

    first, second = net.get_submodule(layer), net.get_submodule(norm)
    fuse: Any = fuse_linear_bn_eval if isinstance(first, nn.Linear) else fuse_conv_bn_eval
    net.set_submodule(layer, fuse(first, second))
    net.set_submodule(norm, nn.Identity())


def _close(one: Any, other: Any) -> bool:
    from torch.utils._pytree import tree_leaves

    pairs = zip(tree_leaves(one), tree_leaves(other), strict=True)
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max())) for a, b in pairs)
