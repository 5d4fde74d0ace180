"""Weights files: read without running their code, and fitted to a network tensor by tensor."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edgekit.errors import InputError

WRAPPERS = ("state_dict", "model", "net")  # where checkpoints of other tools keep the network


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a `.pt` read with weights_only=True.

    A dict under `state_dict`, `model` or `net` is understood, and `module.` before every name (DataParallel's).

    Raises:
        InputError: the file is missing, broken, holds code, or holds something else than tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file", next="correct model.weights in the recipe")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has its own errors for a broken file
        raise InputError(
            f"{path}: cannot be read as weights",
            why=_reason(error),
            next="save model.state_dict() as safetensors, or torch.save it alone",
        ) from None
    for key in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not (isinstance(loaded, dict) and loaded and all(isinstance(value, Tensor) for value in loaded.values())):
        raise InputError(f"{path}: holds no dict of tensors", next="save model.state_dict() as safetensors")
    prefix = "module." if all(name.startswith("module.") for name in loaded) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in loaded.items()}


def fit(net: nn.Module, tensors: Mapping[str, Tensor], where: str, *, classes: int | None = None) -> tuple[str, ...]:
    """Puts tensors into a network; every name and shape must fit. Returns what a reader of the report should know.

    classes: heads of another width than this are left as the network was initialized; None allows none.

    Raises:
        InputError: lists the first few tensors that do not fit, and how many there are.
    """
    own = net.state_dict()
    heads = [name for name in own if name in tensors and classes and _head(own[name], tensors[name], classes)]
    fitting = {name: tensor for name, tensor in tensors.items() if name not in heads}
    problems = _problems(own, fitting, {name for name in own if name in heads or name.endswith("num_batches_tracked")})
    if problems:
        raise InputError(
            f"{where}: the weights do not fit the network",
            why="; ".join(problems),
            next="give the checkpoint of this very network, or correct model.source and model.classes",
        )
    net.load_state_dict(fitting, strict=False)
    if not heads:
        return ()
    layers = ", ".join(dict.fromkeys(name.rpartition(".")[0] for name in heads))
    given = tensors[heads[0]].shape[0]
    return (f"the head ({layers}) has {given} classes in {where}; it begins untrained with {classes}",)


def _head(own: Tensor, given: Tensor, classes: int) -> bool:
    """Whether a tensor differs in its number of outputs alone, of which the network has `classes`."""
    return bool(own.dim() and own.shape != given.shape and own.shape[0] == classes and own.shape[1:] == given.shape[1:])


def _problems(own: Mapping[str, Tensor], given: Mapping[str, Tensor], optional: set[str]) -> list[str]:
    missing = [name for name in own if name not in given and name not in optional]
    foreign = [name for name in given if name not in own]
    shapes = [
        f"{name} is {list(given[name].shape)}, the network has {list(own[name].shape)}"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    return [
        f"{len(found)} {label}: {', '.join(found[:3])}{' ...' if len(found) > 3 else ''}"
        for label, found in (("missing", missing), ("not in the network", foreign), ("of another shape", shapes))
        if found
    ]


def _reason(error: Exception) -> str:
    """One line; torch's own for a pickle that holds code is a page."""
    code = re.search(r"GLOBAL (\S+)", str(error))
    if isinstance(error, pickle.UnpicklingError) and code:
        return f"it holds code or objects ({code[1]}), not only tensors"
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else ''}"
