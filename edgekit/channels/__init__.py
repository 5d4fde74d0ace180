"""Channel groups and cutting: which channels must leave together, how much each matters, and their physical removal.

torch-pruning's dependency graph (graph.py) follows a channel through residuals, concats and depthwise convolutions.
What it cannot follow is frozen and listed with the reason, never guessed: every group is cut on a copy, and what is
left must give the outputs of the whole network with those channels at zero (proof.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.channels.graph import copied, dependencies, members, remove
from edgekit.channels.proof import objection
from edgekit.channels.records import Cut, Frozen, Group
from edgekit.errors import InputError

__all__ = ["Cut", "Frozen", "Group", "as_edit", "choose", "cut", "find_groups", "importance", "replay"]

LEAST_KEPT = 0.1  # no group loses more than 90 % of its channels: thinner layers rarely recover
FIND_S = 300.0  # all groups of a network; swin_t takes 40 s on one core, most take 2 s
GRAPH_ERROR = "torch-pruning cannot follow this network"


def find_groups(net: nn.Module, example: Tensor) -> tuple[tuple[Group, ...], tuple[Frozen, ...]]:
    """The groups that can shrink, and those that cannot with the reason. example: [1, channels, height, width].

    Every group that can shrink has been cut to half its width on a copy, all of them together.
    """
    until_s = time.monotonic() + FIND_S
    try:
        trial, graph = copied(net, example)
    except Exception as error:  # torch-pruning raises whatever it likes
        return (), (Frozen("", f"{GRAPH_ERROR} ({type(error).__name__}: {error})"),)
    order = {name: at for at, (name, _) in enumerate(net.named_modules())}
    candidates, frozen = _candidates(trial, graph, order, until_s)
    prunable: list[Group] = []
    frozen += _sift(net, example, candidates, prunable, until_s)
    return tuple(prunable), tuple(sorted(frozen, key=lambda one: order[one.layer]))


def importance(net: nn.Module, example: Tensor, groups: Sequence[Group], score: str) -> dict[str, Tensor]:
    """Importance of every channel, by layer: shape [width], mean 1 within a group; larger is better.

    `taylor` reads the gradients that stand in the parameters of `net`.
    """
    graph = dependencies(net, example)
    measure = SCORES[score](_measures())
    modules = dict(net.named_modules())
    scores = {}
    for group in groups:
        values = measure(members(graph, modules[group.layer], range(group.width)))
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
    pruned, graph = copied(net, example)
    for one in cuts:
        remove(pruned, graph, one)
    return pruned.eval()


def as_edit(cuts: Sequence[Cut]) -> dict[str, Any]:
    """The plan as JSON: what `replay` does again on the original network."""
    return {"kind": "prune", "cuts": [{"layer": c.layer, "width": c.width, "removed": list(c.removed)} for c in cuts]}


def replay(net: nn.Module, example: Tensor, edit: Mapping[str, Any]) -> nn.Module:
    """Cuts a network as a saved plan says."""
    return cut(net, example, [Cut(c["layer"], c["width"], tuple(c["removed"])) for c in edit["cuts"]])


def _measures() -> Any:
    """torch-pruning's scores, imported late."""
    import torch_pruning

    return torch_pruning.importance


# name -> torch-pruning's measure, given its module `importance`
SCORES: dict[str, Callable[[Any], Any]] = {
    "l1": lambda importance: importance.GroupMagnitudeImportance(p=1),
    "l2": lambda importance: importance.GroupMagnitudeImportance(p=2),
    "taylor": lambda importance: importance.GroupTaylorImportance(),
    "bn_scale": lambda importance: importance.BNScaleImportance(),
    "geometric_median": lambda importance: importance.FPGMImportance(),
    "random": lambda importance: importance.RandomImportance(),
}


def _candidates(
    net: nn.Module, graph: Any, order: Mapping[str, int], until_s: float
) -> tuple[list[Group], list[Frozen]]:
    """One entry a group, in the order of the network: its first layer whose outputs these channels are."""
    names = {module: name for name, module in net.named_modules()}
    layers = [m for m in graph.module2node if isinstance(m, nn.modules.conv._ConvNd | nn.Linear) and m in names]
    groups, frozen, seen = [], [], set[nn.Module]()
    for layer in sorted(layers, key=lambda m: order[names[m]]):
        if layer in seen:
            continue
        group = Group(names[layer], graph.get_out_channels(layer))
        try:
            if time.monotonic() > until_s:
                raise TimeoutError(_late())
            reason = _refusal(graph, group, together := members(graph, layer, range(group.width)))
            reason = reason or _tied(members(graph, layer, [0]))
            seen.update(_makers(graph, together))
        except Exception as error:  # torch-pruning raises whatever it likes
            reason = f"{GRAPH_ERROR} here ({type(error).__name__}: {error})"
        if reason is None:
            groups.append(group)
        else:
            frozen.append(Frozen(group.layer, reason))
    return groups, frozen


def _makers(graph: Any, together: Any) -> Iterator[nn.Module]:
    """The layers of a group whose outputs its channels are."""
    for member in together:
        if graph.is_out_channel_pruning_fn(member.dep.handler):
            yield member.dep.target.module


def _refusal(graph: Any, group: Group, together: Any) -> str | None:
    """Why a group must not be touched, as far as that shows without trying."""
    if group.width < 2:
        return "has a single channel"
    for member in together:
        layer = member.dep.target.module
        groups = getattr(layer, "groups", 1)
        if isinstance(layer, nn.modules.conv._ConvNd) and 1 < groups < layer.out_channels:
            name = member.dep.target.name.partition(" ")[0]
            return f"'{name}' is a convolution in {groups} groups, whose channels cannot leave one by one"
        if not member.dep.target.outputs and graph.is_out_channel_pruning_fn(member.dep.handler):
            return "its channels are outputs of the network"
    return None


def _tied(together: Any) -> str | None:
    """Whether one channel takes others of its own layer along, as the halves of a gate do."""
    leave = len(together[0].idxs)
    return f"its channels are tied to one another: {leave} leave where 1 should" if leave > 1 else None


def _sift(
    net: nn.Module, example: Tensor, candidates: Sequence[Group], good: list[Group], until_s: float
) -> list[Frozen]:
    """Adds to `good` what can be cut together with it, and returns the rest: halves what has an objection."""
    if not candidates:
        return []
    late = time.monotonic() > until_s
    reason = _late() if late else objection(net, example, [*good, *candidates])
    if reason is None:
        good += candidates
        return []
    if late or len(candidates) == 1:
        return [Frozen(one.layer, reason) for one in candidates]
    middle = len(candidates) // 2
    first = _sift(net, example, candidates[:middle], good, until_s)
    return first + _sift(net, example, candidates[middle:], good, until_s)


def _late() -> str:
    return f"the groups of this network were not all tried within {FIND_S:g} s"
