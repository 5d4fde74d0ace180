"""The self-check: removing channels gives the same outputs as zeroing them in the network that has them all.

Both get the same random weights, because trained ones can hide a mistake (a BatchNorm scale or a layer scale that
starts at zero mutes its branch). Which weights leave is read off a cut copy whose weights hold their own positions.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from edgekit.channels.graph import copied, remove
from edgekit.channels.records import Cut, Group

TOLERANCE = 1e-6  # of the largest output, in float64; a channel in the wrong place changes outputs by per cents


def objection(net: nn.Module, example: Tensor, groups: Sequence[Group]) -> str | None:
    """Why these groups cannot be cut together, each to half its width; None when they can."""
    generator = torch.Generator().manual_seed(0)
    cuts = [Cut(group.layer, group.width, _half(group.width, generator)) for group in groups]
    try:
        pruned, graph = copied(net, example)
        _number(pruned)
        for one in cuts:
            remove(pruned, graph, one)
        return _width_off(pruned, graph, cuts) or _difference(net, pruned, example)
    except Exception as error:  # torch-pruning and the network raise whatever they like
        return f"the network does not run without half of its channels ({_first_line(error)})"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:120]


def _half(width: int, generator: torch.Generator) -> tuple[int, ...]:
    """Half of the channels without a pattern: evenly spaced ones would hide a channel in the wrong place."""
    return tuple(sorted(torch.randperm(width, generator=generator)[: width // 2].tolist()))


def _width_off(net: nn.Module, graph: Any, cuts: Sequence[Cut]) -> str | None:
    for one in cuts:
        left = graph.get_out_channels(net.get_submodule(one.layer))
        if left != one.kept:
            return f"its channels are tied to other groups': {left} of '{one.layer}' stay, not {one.kept}"
    return None


def _difference(net: nn.Module, pruned: nn.Module, example: Tensor) -> str | None:
    """pruned: with positions for weights; gets the weights of the zeroed network that it is compared with."""
    zeroed = copy.deepcopy(net).eval().double()
    kept = {name: tensor.long() for name, tensor in _tensors(pruned)}
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        whole = {name: _random(name, tensor.shape, generator) for name, tensor in _tensors(zeroed)}
        for name, tensor in _tensors(pruned):
            tensor.data = whole[name].flatten()[kept[name]]
        for name, tensor in _tensors(zeroed):
            where = kept[name].flatten()
            tensor.zero_().view(-1)[where] = whole[name].flatten()[where]
        images = torch.randn(example.shape, generator=generator, dtype=torch.float64)
        with _NormsOverKept({tensor: kept[name] for name, tensor in _tensors(zeroed)}):
            expected = _outputs(zeroed, images)
        got = _outputs(pruned.double(), images)
    return _compared(got, expected)


def _compared(got: Sequence[Tensor], expected: Sequence[Tensor]) -> str | None:
    if [one.shape for one in got] != [one.shape for one in expected]:
        return "its channels are outputs of the network"
    for one, other in zip(got, expected, strict=True):
        error, largest = (one - other).abs().max().item(), other.abs().max().item()
        if not error <= TOLERANCE * largest:  # NaN fails too
            return f"removing its channels is not the same as zeroing them (outputs differ by {error / largest:.1%})"
    return None


def _tensors(net: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Everything that channels are cut out of."""
    yield from net.named_parameters(remove_duplicate=False)
    yield from ((name, b) for name, b in net.named_buffers() if name.endswith(("running_mean", "running_var")))


def _number(net: nn.Module) -> None:
    """Replaces every weight by its position in its tensor; float64 counts exactly up to 2^53."""
    for _, tensor in _tensors(net):
        tensor.data = torch.arange(tensor.numel(), dtype=torch.float64).view(tensor.shape)


def _random(name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Matrices and kernels that keep the size of their inputs, scales near 1, variances near 1, the rest near 0."""
    normal = torch.randn(shape, generator=generator).double()  # drawn in float32: several times faster
    if name.endswith("running_var"):
        return 1 + normal.abs()
    if name.endswith(("bias", "running_mean")):
        return normal / 5
    if len(shape) < 2:
        return 1 + normal / 5
    return normal / math.sqrt(shape[1:].numel())


class _NormsOverKept(TorchFunctionMode):
    """LayerNorm takes mean and variance over its channels; a zeroed one would still count, a removed one does not.

    So in the zeroed network it looks at the channels that stay. kept: by weight, the positions that stay.
    """

    def __init__(self, kept: Mapping[Tensor, Tensor]) -> None:
        super().__init__()
        self.kept = {id(tensor): positions for tensor, positions in kept.items()}

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function is not nn.functional.layer_norm:
            return function(*args, **(kwargs or {}))
        return self._layer_norm(*args, **(kwargs or {}))

    def _layer_norm(
        self,
        x: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:
        kept = self.kept.get(id(weight))
        if weight is None or kept is None or kept.dim() != 1:
            return nn.functional.layer_norm(x, list(normalized_shape), weight, bias, eps)
        normed = torch.zeros_like(x)
        shift = None if bias is None else bias[kept]
        normed[..., kept] = nn.functional.layer_norm(x[..., kept], [len(kept)], weight[kept], shift, eps)
        return normed


def _outputs(net: nn.Module, images: Tensor) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(net(images)) if isinstance(leaf, Tensor)]
