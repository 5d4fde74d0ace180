"""Where networks come from: the user's function, torchvision, timm. Nothing here reads the user's weights files."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from edgekit import user_code
from edgekit.errors import DependencyError, InputError, did_you_mean
from edgekit.quantizers import HOOKS
from edgekit.settings import ModelSettings

# Libraries of networks, whose source is `library:name`; each is an extra of edgekit by the same name.
LIBRARIES = ("torchvision", "timm")


def build(settings: ModelSettings, folder: Path, seed: int) -> nn.Module:
    """The network of a source, initialized by the seed.

    Raises:
        InputError: the source names nothing, or what it names does not build.
        DependencyError: the source's library is not installed.
    """
    kind = settings.source.partition(":")[0]
    if kind not in SOURCES:
        raise InputError(f"model.source '{settings.source}': unknown kind of source." + did_you_mean(kind, SOURCES))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SOURCES[kind](settings, folder)
    return Chain(OrderedDict(net.named_children())) if type(net) is nn.Sequential else net


class Chain(nn.Sequential):
    """A Sequential that does not call the quantizers' hooks, which NNCF hangs into a network as one more child."""

    def forward(self, x: Any) -> Any:
        for name, module in self.named_children():
            x = x if name == HOOKS else module(x)
        return x


def pretrained(settings: ModelSettings) -> Mapping[str, Tensor]:
    """The published weights that `model.pretrained` names, by the names of the network's tensors.

    They are downloaded once, by the library, which says so and keeps them.

    Raises:
        InputError: the source publishes no such weights.
        DependencyError: they are not on this machine, and cannot be downloaded.
    """
    kind, _, name = settings.source.partition(":")
    if kind not in PRETRAINED:
        raise InputError(
            f"model.pretrained: '{settings.source}' publishes no weights",
            next="give a file in model.weights, or set pretrained: null",
        )
    assert settings.pretrained is not None
    return PRETRAINED[kind](_library(kind), name, settings.pretrained)


def version(source: str) -> str:
    """The version of the library a source comes from; empty for the user's own."""
    kind = source.partition(":")[0]
    return importlib.metadata.version(kind) if kind in LIBRARIES and _installed(kind) else ""


def _python(settings: ModelSettings, folder: Path) -> nn.Module:
    offered = {"classes": settings.classes} if settings.classes else {}
    net = user_code.call(settings.source, folder, field="model.source", **offered)
    if not isinstance(net, nn.Module):
        raise InputError(f"model.source: {settings.source} returned {type(net).__name__}, not a torch.nn.Module")
    return net


def _torchvision(settings: ModelSettings, folder: Path) -> nn.Module:
    models = _library("torchvision").models
    return _made(settings, models.list_models(module=models), models.get_model)


def _timm(settings: ModelSettings, folder: Path) -> nn.Module:
    timm = _library("timm")
    return _made(settings, timm.list_models(), timm.create_model)


def _made(settings: ModelSettings, known: list[str], make: Callable[..., Any]) -> nn.Module:
    """A library's network with a head of the recipe's width, or of the library's."""
    kind, _, name = settings.source.partition(":")
    if name not in known:
        near = did_you_mean(name, get_close_matches(name, known))  # a library has hundreds: only near ones are named
        raise InputError(f"model.source '{settings.source}': {kind} has no such classifier." + near)
    width = {"num_classes": settings.classes} if settings.classes else {}
    try:
        net: nn.Module = make(name, **width)
    except Exception as error:  # each network has its own demands
        raise InputError(f"model.source '{settings.source}': cannot be built", why=str(error)) from error
    return net


def _torchvision_weights(torchvision: ModuleType, name: str, tag: str) -> Mapping[str, Tensor]:
    published = {one.name: one for one in torchvision.models.get_model_weights(name)}
    if tag not in published:
        raise InputError(f"model.pretrained: torchvision:{name} has no weights '{tag}'." + did_you_mean(tag, published))
    weights = published[tag]
    # weights_only: a pickle must not run code, not even one of a known address
    return _fetched(f"torchvision:{name} {tag}", lambda: weights.get_state_dict(check_hash=True, weights_only=True))


def _timm_weights(timm: ModuleType, name: str, tag: str) -> Mapping[str, Tensor]:
    published = [one.partition(".")[2] for one in timm.list_pretrained(f"{name}.*")]
    if tag not in published:
        raise InputError(f"model.pretrained: timm:{name} has no weights '{tag}'." + did_you_mean(tag, published))
    logging.getLogger("timm").setLevel(logging.INFO)  # says where it loads from
    return _fetched(f"timm:{name} {tag}", lambda: timm.create_model(f"{name}.{tag}", pretrained=True).state_dict())


def _fetched(what: str, fetch: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    try:
        return fetch()
    except Exception as error:  # no network, a proxy, a full disk, a wrong hash: each library has its own errors
        raise DependencyError(
            f"model.pretrained: the weights of {what} are not on this machine and could not be downloaded",
            why=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            next="connect to the network for one run, or name a file in model.weights instead",
        ) from error


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise DependencyError(f"model.source: {name} cannot be imported", why=str(error)) from error
        raise DependencyError(f"model.source: {name} is not installed", next=f"pip install 'edgekit[{name}]'") from None
    except Exception as error:  # a torchvision built for another torch fails on import
        raise DependencyError(
            f"model.source: {name} does not fit the installed torch {torch.__version__}",
            why=str(error),
            next=f"install torch and {name} from the same index, in versions that belong together",
        ) from error


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


SOURCES: dict[str, Callable[[ModelSettings, Path], nn.Module]] = {
    "python": _python,
    "torchvision": _torchvision,
    "timm": _timm,
}
PRETRAINED: dict[str, Callable[[ModuleType, str, str], Mapping[str, Tensor]]] = {
    "torchvision": _torchvision_weights,
    "timm": _timm_weights,
}
