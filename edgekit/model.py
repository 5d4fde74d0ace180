"""Model: a network, an example input, and the edits that rebuild it. Where models come from; saving and loading.

A saved model is `weights.safetensors` and `edits.json`: the source builds the original network, the edits change its
structure again (channels cut, BatchNorm folded, quantizers placed), then the weights load. No pickle anywhere.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgekit import channels, quantizers
from edgekit.artifact import sha256_of
from edgekit.errors import InputError, IntegrityError, did_you_mean
from edgekit.settings import ModelSettings

Edit = Mapping[str, Any]

# How each kind of edit is made again on a fresh network.
REPLAY: dict[str, Callable[[nn.Module, Tensor, Edit], nn.Module]] = {
    "prune": channels.replay,
    "fold_batchnorm": quantizers.replay_fold,
    "quantize": quantizers.replay,
}


@dataclass(frozen=True)
class Model:
    """net: in eval mode between stages. example: float32 [1, channels, height, width]. edits: JSON, oldest first."""

    settings: ModelSettings
    folder: Path
    net: nn.Module
    example: Tensor
    edits: tuple[Edit, ...] = ()

    def copy(self) -> Model:
        """A model of its own: training it leaves this one unchanged."""
        return replace(self, net=copy.deepcopy(self.net))

    def edited(self, net: nn.Module, *edits: Edit) -> Model:
        """This model with another network and the edits that led to it."""
        return replace(self, net=net, edits=(*self.edits, *edits))

    @property
    def parameters(self) -> int:
        """Weights of the network itself; thresholds of quantizers do not count."""
        return sum(p.numel() for name, p in self.net.named_parameters() if not quantizers.is_quantizer(name))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference: convolutions and matrix products, half of torch's FLOP count."""
        from torch.utils.flop_counter import FlopCounterMode

        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.net.eval()(self.example)
        return int(counter.get_total_flops()) // 2

    def save(self, folder: Path) -> None:
        """Writes weights.safetensors and edits.json."""
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in self.net.state_dict().items()}
        save_file(tensors, folder / "weights.safetensors")
        record = {"model": self.settings.model_dump(), "example": list(self.example.shape), "edits": list(self.edits)}
        (folder / "edits.json").write_text(json.dumps(record, indent=1))


def load_model(settings: ModelSettings, *, folder: Path, shape: Sequence[int], seed: int) -> Model:
    """The network of a recipe's `model:`; a fresh network is initialized by the seed.

    folder: what relative paths are relative to. shape: of one input, [channels, height, width].

    Raises:
        InputError: the source, its function or the weights file is wrong.
    """
    net = _build(settings, folder, seed)
    if settings.weights:
        _load_weights(net, folder / settings.weights)
    model = Model(settings, folder, net.eval(), torch.zeros(1, *shape))
    _check_output(model)
    return model


def restore(folder: Path, *, source_folder: Path) -> Model:
    """A saved model, rebuilt from its source, its edits and its weights.

    Raises:
        IntegrityError: the weights do not fit the rebuilt network.
    """
    record = json.loads((folder / "edits.json").read_text())
    settings = ModelSettings.model_validate(record["model"])
    example = torch.zeros(record["example"])
    net = _build(settings, source_folder, seed=0).eval()
    for edit in record["edits"]:
        net = REPLAY[edit["kind"]](net, example, edit)
    try:
        net.load_state_dict(load_file(folder / "weights.safetensors"))
    except (RuntimeError, SafetensorError) as error:
        raise IntegrityError(f"{folder}: the weights do not fit the network", why=str(error)) from None
    return Model(settings, source_folder, net.eval(), example, tuple(record["edits"]))


def source_hash(source: str, folder: Path) -> str:
    """What a source stands for, as a hash: the name, and the bytes of the user's file where it names one."""
    kind, _, rest = source.partition(":")
    path = folder / rest.rpartition(":")[0] if kind == "python" else None
    code = sha256_of(path) if path and path.is_file() else ""
    return hashlib.sha256(f"{source}\n{code}".encode()).hexdigest()


def _build(settings: ModelSettings, folder: Path, seed: int) -> nn.Module:
    kind, _, rest = settings.source.partition(":")
    if kind not in SOURCES:
        raise InputError(f"model.source '{settings.source}': unknown kind of source." + did_you_mean(kind, SOURCES))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SOURCES[kind](rest, settings, folder)


def _from_python(rest: str, settings: ModelSettings, folder: Path) -> nn.Module:
    """`python:file.py:function`: the user's function builds the network; `classes` is passed where it takes it."""
    name, _, function = rest.rpartition(":")
    path = folder / name
    if not path.is_file():
        raise InputError(f"{path}: no such file", next=f"correct the source 'python:{rest}' in the recipe")
    build = getattr(_import(path), function, None)
    if not callable(build):
        raise InputError(f"{path}: has no function '{function}'", next=f"define {function}(classes) in {path.name}")
    wants = inspect.signature(build).parameters
    net = build(classes=settings.classes) if "classes" in wants and settings.classes else build()
    if not isinstance(net, nn.Module):
        raise InputError(f"{path}: {function} returned {type(net).__name__}, not a torch.nn.Module")
    return net


SOURCES: dict[str, Callable[[str, ModelSettings, Path], nn.Module]] = {"python": _from_python}


def _import(path: Path) -> Any:
    """The user's file as a module, under a name that shadows no other."""
    name = "edgekit_user_" + hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path}: does not import: {type(error).__name__}: {error}") from error
    return module


def _load_weights(net: nn.Module, path: Path) -> None:
    """Reads weights into the network; every name and shape must fit.

    `.pt` is read with weights_only=True; a dict under `state_dict`, `model` or `net` is understood, `module.` before
    names too.
    """
    tensors = {name.removeprefix("module."): tensor for name, tensor in _read_weights(path).items()}
    own = net.state_dict()
    missing = [name for name in own if name not in tensors and not name.endswith("num_batches_tracked")]
    foreign = [name for name in tensors if name not in own]
    shapes = [
        f"{name} is {list(tensors[name].shape)}, the network has {list(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    problems = [
        f"{len(found)} {label}: {', '.join(found[:3])}{' ...' if len(found) > 3 else ''}"
        for label, found in (("missing", missing), ("not in the network", foreign), ("of another shape", shapes))
        if found
    ]
    if problems:
        raise InputError(
            f"{path}: the weights do not fit the network",
            why="; ".join(problems),
            next="give the checkpoint of this very network, or correct model.source and model.classes",
        )
    net.load_state_dict(tensors, strict=False)


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path}: no such weights file", next="correct model.weights in the recipe")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has its own errors for a broken file
        raise InputError(f"{path}: cannot be read as weights", why=f"{type(error).__name__}: {error}") from None
    for key in ("state_dict", "model", "net"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not (isinstance(loaded, dict) and all(isinstance(value, Tensor) for value in loaded.values())):
        raise InputError(f"{path}: holds no dict of tensors", next="save model.state_dict() as safetensors")
    return loaded


def _check_output(model: Model) -> None:
    """Runs the example once: a network that cannot take it is found before time is spent."""
    try:
        with torch.no_grad():
            output = model.net(model.example)
    except Exception as error:
        shape = list(model.example.shape)
        raise InputError(f"model.source '{model.settings.source}': does not run on {shape}", why=str(error)) from error
    wanted = model.settings.classes
    if wanted and isinstance(output, Tensor) and output.shape[-1] != wanted:
        raise InputError(
            f"model.source '{model.settings.source}': has {output.shape[-1]} outputs, the recipe says classes: {wanted}"
        )
