"""Model: a network, an example input, and the edits that rebuild it. Where models come from; saving and loading.

A saved model is `weights.safetensors` and `edits.json`: the source builds the original network, the edits change its
structure again (channels cut, BatchNorm folded, quantizers placed), then the weights load. No pickle anywhere.
"""

from __future__ import annotations

import copy
import hashlib
import json
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
from edgekit.errors import InputError, IntegrityError
from edgekit.model import sources
from edgekit.model.weights import fit, read_weights
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
    """net: in eval mode between stages. example: float32 [1, channels, height, width]. edits: JSON, oldest first.

    notes: what was done on loading that a reader of the report should know.
    """

    settings: ModelSettings
    folder: Path
    net: nn.Module
    example: Tensor
    edits: tuple[Edit, ...] = ()
    notes: tuple[str, ...] = ()

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

    @property
    def outputs(self) -> tuple[int, ...]:
        """Shape of the first output for one image, without the batch: (classes,) of a classifier."""
        from torch.utils._pytree import tree_leaves

        with torch.no_grad():
            return tuple(tree_leaves(self.net.eval()(self.example))[0].shape[1:])

    def save(self, folder: Path) -> None:
        """Writes weights.safetensors and edits.json."""
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in self.net.state_dict().items()}
        save_file(tensors, folder / "weights.safetensors")
        record = {"model": self.settings.model_dump(), "example": list(self.example.shape), "edits": list(self.edits)}
        (folder / "edits.json").write_text(json.dumps(record, indent=1))


def load_model(settings: ModelSettings, *, folder: Path, shape: Sequence[int], seed: int) -> Model:
    """The network of a recipe's `model:`; what has no weights is initialized by the seed.

    folder: what relative paths are relative to. shape: of one input, [channels, height, width].

    Raises:
        InputError: the source, its function or the weights are wrong.
        DependencyError: the source's library, or its published weights, are not here.
    """
    net = sources.build(settings, folder, seed)
    model = Model(settings, folder, net.eval(), torch.zeros(1, *shape), notes=_load_weights(net, settings, folder))
    _check_output(model)
    return model


def _load_weights(net: nn.Module, settings: ModelSettings, folder: Path) -> tuple[str, ...]:
    """Weights from a file or as published, if the recipe names any. A library's network may get another head."""
    if settings.weights and settings.pretrained:
        raise InputError("model: weights and pretrained contradict each other", next="keep one of the two")
    resized = settings.classes if settings.source.partition(":")[0] in sources.LIBRARIES else None
    if settings.pretrained:
        where = f"model.pretrained '{settings.pretrained}'"
        return fit(net, sources.pretrained(settings), where, classes=resized)
    if settings.weights:
        path = folder / settings.weights
        return fit(net, read_weights(path), str(path), classes=resized)
    return ()


def restore(folder: Path, *, source_folder: Path) -> Model:
    """A saved model, rebuilt from its source, its edits and its weights.

    Raises:
        IntegrityError: the weights do not fit the rebuilt network.
    """
    record = json.loads((folder / "edits.json").read_text())
    settings = ModelSettings.model_validate(record["model"])
    example = torch.zeros(record["example"])
    net = sources.build(settings, source_folder, seed=0).eval()
    for edit in record["edits"]:
        net = REPLAY[edit["kind"]](net, example, edit)
    try:
        net.load_state_dict(load_file(folder / "weights.safetensors"))
    except (RuntimeError, SafetensorError) as error:
        raise IntegrityError(f"{folder}: the weights do not fit the network", why=str(error)) from None
    return Model(settings, source_folder, net.eval(), example, tuple(record["edits"]))


def source_hash(source: str, folder: Path) -> str:
    """What a source stands for, as a hash: the name, and the user's file or the library's version."""
    kind, _, rest = source.partition(":")
    path = folder / rest.rpartition(":")[0] if kind == "python" else None
    code = sha256_of(path) if path and path.is_file() else sources.version(source)
    return hashlib.sha256(f"{source}\n{code}".encode()).hexdigest()


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
