"""Checkpoints inside a training: `<number>.safetensors` and `<number>.json`, which holds its hash and is written last.

Both appear whole or not at all; the newest two are kept. One that does not verify, or is of another training, is passed
over for the one before it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from edgekit.artifact import sha256_of
from edgekit.settings import TrainSettings

if TYPE_CHECKING:
    from edgekit.data import Data
    from edgekit.progress import Progress

KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """record: JSON values. tensors: by name, on the CPU."""

    record: dict[str, Any]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoints:
    """Those of one training in one folder; without a folder none are kept. training: what they belong to, a hash."""

    folder: Path | None
    training: str

    def save(self, record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        records = sorted(self.folder.glob("*.json"))
        number = int(records[-1].stem) + 1 if records else 1
        # contiguous copies: safetensors takes no strides, and no two names for one memory
        flat = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        weights = self.folder / f"{number:06}.safetensors"
        _write(weights, save(flat))
        whole = {**record, "training": self.training, "sha256": sha256_of(weights)}
        _write(weights.with_suffix(".json"), json.dumps(whole).encode())
        for old in records[: len(records) + 1 - KEPT]:
            old.unlink()
            old.with_suffix(".safetensors").unlink(missing_ok=True)

    def newest(self, progress: Progress) -> Checkpoint | None:
        """The newest that is whole and belongs to this training."""
        if self.folder is None:
            return None
        for path in sorted(self.folder.glob("*.json"), reverse=True):
            try:
                record = json.loads(path.read_text())
                weights = path.with_suffix(".safetensors")
                if record["sha256"] == sha256_of(weights) and record["training"] == self.training:
                    return Checkpoint(record, load_file(weights))
                reason = "is not whole" if record["training"] == self.training else "is of another training"
            except (OSError, ValueError, KeyError, TypeError) as error:
                reason = f"cannot be read ({type(error).__name__})"
            progress.note(f"checkpoint {path.name} {reason} and is passed over")
        return None


def fingerprint(net: nn.Module, data: Data, settings: TrainSettings, seed: int) -> str:
    """What a checkpoint must belong to: the weights training began from, the data, the settings, the seed."""
    begun = json.dumps([settings.model_dump(mode="json"), data.fingerprint, seed], sort_keys=True)
    digest = hashlib.sha256(begun.encode())
    for name, tensor in net.state_dict().items():
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing, on the disk when this returns."""
    partial = path.with_suffix(path.suffix + ".part")
    try:
        with open(partial, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
