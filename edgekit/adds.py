"""Which modules feed the two inputs of every Add of a network, found by data flow: skip branches and what they meet."""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

ADDS = (torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__)
M = TypeVar("M", bound=nn.Module)


def beside_skips(net: nn.Module, kind: type[M], probe: Tensor) -> list[M]:
    """Of every Add both of whose inputs come straight from a module of `kind`, the one that is not the skip branch's.

    That is the module which nothing but the Add reads. Where both are so (a convolution in the skip branch), it is the
    first input's: TensorRT fuses the Add with either convolution.
    """
    watch = _Watch()
    handles = [module.register_forward_hook(watch.ran) for module in net.modules() if isinstance(module, kind)]
    with torch.no_grad(), watch:
        net(probe)
    for handle in handles:
        handle.remove()
    lonely = [[module for module in pair if watch.readers[module] == 1] for pair in watch.adds]
    return [modules[0] for modules in lonely if modules]


class _Watch(TorchFunctionMode):
    """Sees which operators read what a module gave. adds: of Adds with two such inputs, the modules of both."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, Any] = {}
        self.held: list[Tensor] = []  # so that no id is used twice
        self.readers: Counter[Any] = Counter()
        self.adds: list[tuple[Any, Any]] = []

    def ran(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.made[id(output)] = module
        self.held.append(output)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = [self.made[id(one)] for one in args if isinstance(one, Tensor) and id(one) in self.made]
        output = func(*args, **(kwargs or {}))
        if isinstance(output, Tensor):  # a question for its shape is no reading
            self.readers.update(read)
            self.made.pop(id(output), None)  # written in place: no longer what the module gave
        if func in ADDS and len(read) == 2:
            self.adds.append((read[0], read[1]))
        return output
