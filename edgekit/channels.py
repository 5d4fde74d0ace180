"""Channel groups and cutting: which channels must leave together, how much each matters, and their physical removal.

torch-pruning's dependency graph (Fang et al., arXiv 2301.12900) follows a channel through residuals, concats and
depthwise convolutions. What it cannot follow is frozen and listed with the reason, never guessed: every group is tried
on a copy.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import InputError

LEAST_KEPT = 0.1  # no group loses more than 90 % of its channels: thinner layers rarely recover


@dataclass(frozen=True)
class Group:
    """Channels that leave together, named by the layer whose outputs they are. width: how many there are."""

    layer: str
    width: int


@dataclass(frozen=True)
class Frozen:
    """A layer whose channels stay, and why."""

    layer: str
    reason: str


@dataclass(frozen=True)
class Cut:
    """removed: indices of the channels that leave the group of `layer`, ascending."""

    layer: str
    width: int
    removed: tuple[int, ...]

    @property
    def kept(self) -> int:
        return self.width - len(self.removed)


def find_groups(net: nn.Module, example: Tensor) -> tuple[tuple[Group, ...], tuple[Frozen, ...]]:
    """The groups that can shrink, and those that cannot with the reason. example: [1, channels, height, width].

    Every group loses one channel on a copy, which must then still run and give outputs of the same shapes.
    """
    prunable: list[Group] = []
    frozen: list[Frozen] = []
    trial, graph = _graph(net, example)
    before = _shapes(trial, example)
    for group in _roots(trial, graph):
        reason = _refusal(trial, graph, group) or _try(trial, graph, group, example, before)
        if reason is None:
            prunable.append(group)
        else:
            frozen.append(Frozen(group.layer, reason))
            trial, graph = _graph(net, example)  # the copy may be broken: start again with what worked
            for good in prunable:
                _remove(trial, graph, Cut(good.layer, good.width, (0,)))
    return tuple(prunable), tuple(frozen)


def importance(net: nn.Module, example: Tensor, groups: Sequence[Group], score: str) -> dict[str, Tensor]:
    """Importance of every channel, by layer: shape [width], mean 1 within a group; larger is better.

    `taylor` reads the gradients that stand in the parameters of `net`.
    """
    graph = _dependencies(net, example)
    measure = SCORES[score](_tp().importance)
    modules = dict(net.named_modules())
    scores = {}
    for group in groups:
        values = measure(_members(graph, modules[group.layer], range(group.width)))
        if values is None:
            raise InputError(f"prune.score '{score}': says nothing about the channels of '{group.layer}'")
        values = values.detach().float()
        scores[group.layer] = values / values.mean().clamp_min(1e-12)
    return scores


def choose(scores: Mapping[str, Tensor], share: float, align: int, *, uniform: bool = False) -> list[Cut]:
    """Which channels leave when `share` of all channels (0 to 1) is asked to leave, the least important first.

    uniform: the same share of every group; otherwise one threshold for all. Kept counts are multiples of `align`,
    rounded up; a group keeps at least LEAST_KEPT of its channels.
    """
    threshold = torch.cat(list(scores.values())).quantile(share).item()
    cuts = []
    for layer, values in scores.items():
        width = len(values)
        wanted = width - (round(share * width) if uniform else int((values <= threshold).sum()))
        least = max(align, math.ceil(width * LEAST_KEPT))
        kept = min(width, math.ceil(max(wanted, least) / align) * align)
        order = values.argsort()[: width - kept]
        if kept < width:
            cuts.append(Cut(layer, width, tuple(sorted(order.tolist()))))
    return cuts


def cut(net: nn.Module, example: Tensor, cuts: Sequence[Cut]) -> nn.Module:
    """A copy of the network without the channels."""
    pruned, graph = _graph(net, example)
    for one in cuts:
        _remove(pruned, graph, one)
    return pruned.eval()


def as_edit(cuts: Sequence[Cut]) -> dict[str, Any]:
    """The plan as JSON: what `replay` does again on the original network."""
    return {"kind": "prune", "cuts": [{"layer": c.layer, "width": c.width, "removed": list(c.removed)} for c in cuts]}


def replay(net: nn.Module, example: Tensor, edit: Mapping[str, Any]) -> nn.Module:
    """Cuts a network as a saved plan says."""
    return cut(net, example, [Cut(c["layer"], c["width"], tuple(c["removed"])) for c in edit["cuts"]])


def _tp() -> Any:
    """torch-pruning, imported late: it pulls in half of torch's vision helpers."""
    import torch_pruning

    return torch_pruning


# name -> torch-pruning's measure, given its module `importance`
SCORES: dict[str, Callable[[Any], Any]] = {
    "l1": lambda importance: importance.GroupMagnitudeImportance(p=1),
    "l2": lambda importance: importance.GroupMagnitudeImportance(p=2),
    "taylor": lambda importance: importance.GroupTaylorImportance(),
    "bn_scale": lambda importance: importance.BNScaleImportance(),
    "geometric_median": lambda importance: importance.FPGMImportance(),
    "random": lambda importance: importance.RandomImportance(),
}


def _graph(net: nn.Module, example: Tensor) -> tuple[nn.Module, Any]:
    trial = copy.deepcopy(net).eval()
    return trial, _dependencies(trial, example)


def _dependencies(net: nn.Module, example: Tensor) -> Any:
    with warnings.catch_warnings(), _gradients_on(net):
        warnings.simplefilter("ignore")
        return _tp().DependencyGraph().build_dependency(net, example_inputs=example)


@contextmanager
def _gradients_on(net: nn.Module) -> Iterator[None]:
    """The dependency graph is read from autograd, so every parameter must ask for a gradient."""
    asked = {name: p.requires_grad for name, p in net.named_parameters()}
    for parameter in net.parameters():
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(asked[name])


def _roots(net: nn.Module, graph: Any) -> list[Group]:
    """One entry a group, in the order of the network: its first layer whose outputs these channels are."""
    order = {module: at for at, module in enumerate(net.modules())}
    names = {module: name for name, module in net.named_modules()}
    found = {}
    for group in graph.get_all_groups():
        root = group[0]
        makers = [
            member.dep.target.module
            for member in group
            if member.idxs == root.idxs and graph.is_out_channel_pruning_fn(member.dep.handler)
        ]
        layers = [m for m in makers if isinstance(m, nn.modules.conv._ConvNd | nn.Linear)]
        first = min(layers or [root.dep.target.module], key=order.__getitem__)
        found[order[first]] = Group(names[first], graph.get_out_channels(first))
    return [found[at] for at in sorted(found)]


def _members(graph: Any, module: nn.Module, channels: Sequence[int]) -> Any:
    return graph.get_pruning_group(module, graph.get_pruner_of_module(module).prune_out_channels, idxs=list(channels))


def _refusal(net: nn.Module, graph: Any, group: Group) -> str | None:
    """Why a group must not be touched, as far as that shows without trying."""
    module = net.get_submodule(group.layer)
    for member in _members(graph, module, range(group.width)):
        layer = member.dep.target.module
        groups = getattr(layer, "groups", 1)
        if isinstance(layer, nn.Conv2d) and 1 < groups < layer.out_channels:
            name = member.dep.target.name.partition(" ")[0]
            return f"'{name}' is a convolution in {groups} groups, whose channels cannot leave one by one"
    return None


def _try(net: nn.Module, graph: Any, group: Group, example: Tensor, before: Any) -> str | None:
    """Why the network does not survive losing one channel of the group; None when it does."""
    if group.width < 2:
        return "has a single channel"
    try:
        _remove(net, graph, Cut(group.layer, group.width, (0,)))
        after = _shapes(net, example)
    except Exception as error:  # torch-pruning and the network raise whatever they like
        return f"the network does not run without one of its channels ({str(error).splitlines()[0][:120]})"
    return None if after == before else "its channels are outputs of the network"


def _remove(net: nn.Module, graph: Any, one: Cut) -> None:
    module = net.get_submodule(one.layer)
    width = graph.get_out_channels(module)
    if width != one.width:
        raise InputError(f"pruning plan: '{one.layer}' has {width} channels, the plan was made for {one.width}")
    _members(graph, module, one.removed).prune()


def _shapes(net: nn.Module, example: Tensor) -> list[tuple[int, ...]]:
    from torch.utils._pytree import tree_leaves

    with torch.no_grad():
        return [tuple(leaf.shape) for leaf in tree_leaves(net(example)) if isinstance(leaf, Tensor)]
