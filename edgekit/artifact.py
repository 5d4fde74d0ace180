"""Artifact: an exported file. Candidate: an artifact in a runtime with options, the unit that is measured."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. A shape entry is a number, or a name where the dimension is free (`batch`)."""

    name: str
    dtype: str
    shape: Tuple[Any, ...]


@dataclass(frozen=True)
class Artifact:
    """An exported file and what is known of it.

    format:     the exporter that wrote it (`onnx`, `openvino`, `tensorrt`).
    sha256:     of the file at `path`; bytes: its size, together with `companions` (an IR's .bin).
    preprocess: the preprocessing the inputs went through (Preprocess.as_dict), None for a bare file.
    parent:     sha256 of what it was made from, None for an original.
    precision:  what its weights and activations are: float32, float16, int8.
    """

    path: Path
    format: str
    sha256: str
    bytes: int
    inputs: Tuple[TensorSpec, ...]
    outputs: Tuple[TensorSpec, ...]
    precision: str = "float32"
    preprocess: Optional[Mapping[str, Any]] = None
    parent: Optional[str] = None
    companions: Tuple[Path, ...] = ()

    @property
    def size_kb(self) -> float:
        return self.bytes / 1000

    def as_dict(self) -> Dict[str, Any]:
        """JSON form; the path is only the file's name."""
        record = asdict(self)
        record["path"] = self.path.name
        record["companions"] = [path.name for path in self.companions]
        return record


@dataclass(frozen=True)
class Candidate:
    """An artifact in a runtime with options (`{"precision": "bf16"}`): the unit of ledger, verdict and manifest.

    label: the step it came from (`teacher`, `prune`, `quantize`).
    """

    label: str
    artifact: Artifact
    runtime: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """What is asked of the runtime: the option where there is one, else the artifact's own."""
        return str(self.options.get("precision", self.artifact.precision))

    @property
    def name(self) -> str:
        return f"{self.label} {self.precision} {self.runtime}"


def sha256_of(path: Path) -> str:
    """Hash of a file's bytes as 64 hex digits, read in chunks."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()
