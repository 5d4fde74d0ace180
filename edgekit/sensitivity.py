"""How much int8 disturbs each layer: its signal-to-quantization-noise ratio (SQNR) against the float network.

SQNR = 10 log10(sum y^2 / sum (y - y')^2) in dB, with y what the layer gives in float and y' in int8. Every layer is fed
what the float network gives before it, so that its number is its own noise (of its weights and of the activations it
reads), not that of the layers before.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def layer_sqnr(
    net: nn.Module, quantized: nn.Module, layers: Sequence[str], batches: Iterable[Tensor]
) -> dict[str, float]:
    """SQNR of the named layers in dB, worst first; infinite where nothing is lost.

    net: float, with the same module paths as `quantized` (BatchNorm folded in both).
    """
    signal: dict[str, float] = defaultdict(float)
    noise: dict[str, float] = defaultdict(float)
    given: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> None:
            given.setdefault(name, []).append(output.clone())  # what follows may write into it

        return hook

    def compare(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            wanted = given[name].pop(0)  # a layer that runs twice is compared in the order it runs
            signal[name] += float(wanted.double().square().sum())
            noise[name] += float((wanted - output).double().square().sum())
            return wanted  # what follows is fed with what float gives

        return hook

    handles = [net.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    handles += [quantized.get_submodule(name).register_forward_hook(compare(name)) for name in layers]
    try:
        with torch.no_grad():
            for images in batches:
                net.eval()(images)
                quantized.eval()(images)
    finally:
        for handle in handles:
            handle.remove()
    found = {name: _db(signal[name], noise[name]) for name in layers if name in signal}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def quantized_layers(edit: Mapping[str, Any], net: nn.Module) -> list[str]:
    """Paths of the modules whose weights the edit of a quantization rounds, in the order of the edit."""
    modules = dict(net.named_modules())
    paths = [_module(place["op"]) for place in edit["quantizers"] if place["axis"] is not None]
    return [path for path in dict.fromkeys(paths) if path in modules]


def _module(op: str) -> str:
    """`stem/0/conv2d/0` (module, operator, which call of it) -> `stem.0`."""
    return ".".join(op.split("/")[:-2])


def _db(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf
