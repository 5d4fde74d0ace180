"""What torch-pruning's dependency graph says (Fang et al., arXiv 2301.12900), and what it needs to say it.

A walk through the graph has a time limit: a group that it cannot follow raises instead of hanging.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.channels.records import Cut
from edgekit.errors import InputError

WALK_S = 10.0  # one group; swin_t's longest, through 819 nodes, takes 1 s


def copied(net: nn.Module, example: Tensor) -> tuple[nn.Module, Any]:
    """A copy of the network and its dependency graph."""
    trial = copy.deepcopy(net).eval()
    return trial, dependencies(trial, example)


def dependencies(net: nn.Module, example: Tensor) -> Any:
    with warnings.catch_warnings(), _gradients_on(net):
        warnings.simplefilter("ignore")
        graph = _graph_class()().build_dependency(net, example_inputs=example)
    graph.watch = _Watch()
    for node in graph.module2node.values():
        node.dependencies = _Watched(node.dependencies, graph.watch)
        if isinstance(node.grad_fn, SimpleNamespace):
            node.grad_fn._saved_self_sizes = ()  # its mapping stands; derived after every cut, swin_t takes minutes
    return graph


def members(graph: Any, module: nn.Module, channels: Sequence[int]) -> Any:
    """The layers that lose something with these output channels of `module`, and which of their channels."""
    graph.watch.start()
    prune = graph.get_pruner_of_module(module).prune_out_channels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says so when it cannot infer a shape; the proof finds what came of it
        return graph.get_pruning_group(module, prune, idxs=list(channels))


def remove(net: nn.Module, graph: Any, one: Cut) -> None:
    """Cuts in place."""
    module = net.get_submodule(one.layer)
    width = graph.get_out_channels(module)
    if width != one.width:
        raise InputError(f"pruning plan: '{one.layer}' has {width} channels, the plan was made for {one.width}")
    members(graph, module, one.removed).prune()


class _Watch:
    """When the walk under way must have ended."""

    def start(self) -> None:
        self.until_s = time.monotonic() + WALK_S

    def check(self) -> None:
        if time.monotonic() > self.until_s:
            raise TimeoutError(f"its dependency graph was not followed to the end within {WALK_S:g} s")


class _Watched(list[Any]):
    """The dependencies of a node: every step of a walk iterates over one such list."""

    def __init__(self, dependencies: list[Any], watch: _Watch) -> None:
        super().__init__(dependencies)
        self.watch = watch

    def __iter__(self) -> Iterator[Any]:
        self.watch.check()
        return super().__iter__()


def _graph_class() -> Any:
    """torch-pruning's graph, imported late: it pulls in half of torch's vision helpers.

    It follows a reshape by the sizes autograd saved, and reads them by a name that torch no longer uses. Without them
    it guesses: a division by zero on shufflenet_v2, index lists without end on swin_t.
    """
    import torch_pruning

    class Graph(torch_pruning.DependencyGraph):  # type: ignore[misc]
        def _build_dependency(self, module2node: Any) -> None:
            for node in module2node.values():
                sizes = getattr(node.grad_fn, "_saved_self_sym_sizes", None)
                if node.type == torch_pruning.ops.OPTYPE.RESHAPE and sizes is not None:
                    node.grad_fn = SimpleNamespace(_saved_self_sizes=tuple(sizes))
            super()._build_dependency(module2node)

    return Graph


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
