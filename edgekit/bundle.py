"""The bundle: what a C++ app gets. manifest.json, model.onnx, and golden vectors that tell whether it runs right.

golden/images.npy holds test images as decoded, resized pixels (uint8 [n, height, width, channels]); golden/outputs.npy
what the shipped file gave for them. `verify` replays them: every file has its hash, and the outputs come out again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import __version__
from edgekit.artifact import Artifact, Candidate, TensorSpec, sha256_of
from edgekit.device import open_board
from edgekit.errors import GateError, InputError, IntegrityError
from edgekit.profile import Inputs, Profile, profile

SCHEMA = "edgekit.bundle/1"
GOLDEN = 8
TOLERANCE = 1e-3  # of the largest output: another processor may sum in another order
STEP = 0.05  # int8: one rounding step that falls the other way moves an output this much


def write_bundle(folder: Path, shipped: Profile, images: np.ndarray, class_names: Sequence[str]) -> Path:
    """Writes the bundle of one candidate into `folder` (replaced as a whole).

    images: uint8 [n, height, width, channels], the first of the inputs that shipped.outputs belong to.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "golden").mkdir(parents=True)
    artifact = shipped.candidate.artifact
    names = {artifact.path.name: f"model{artifact.path.suffix}"}
    names |= {path.name: f"model{path.suffix}" for path in artifact.companions}
    for path in (artifact.path, *artifact.companions):
        shutil.copy2(path, folder / names[path.name])
    outputs = next(iter(shipped.outputs.values()))
    np.save(folder / "golden" / "images.npy", images)
    np.save(folder / "golden" / "outputs.npy", outputs[: len(images)])
    record = {
        "schema": SCHEMA,
        "edgekit": __version__,
        "model": {
            "file": names[artifact.path.name],
            "format": artifact.format,
            "precision": shipped.candidate.precision,
            "inputs": [vars(spec) for spec in artifact.inputs],
            "outputs": [vars(spec) for spec in artifact.outputs],
        },
        "runtime": {"name": shipped.candidate.runtime, "options": dict(shipped.candidate.options)},
        "class_names": list(class_names),
        "preprocess": artifact.preprocess,
        "golden": {"images": "golden/images.npy", "outputs": "golden/outputs.npy"},
        "profile": shipped.as_dict(),
        "files": {
            path.relative_to(folder).as_posix(): {"sha256": sha256_of(path), "bytes": path.stat().st_size}
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    }
    (folder / "manifest.json").write_text(json.dumps(record, indent=1))
    return folder


def verify(folder: Path) -> dict[str, Any]:
    """Replays a bundle's golden vectors on this machine; gives the facts it found.

    Raises:
        InputError: there is no bundle in the folder.
        IntegrityError: a file is missing or is not what the manifest says.
        GateError: the outputs are not those that were recorded.
    """
    candidate, inputs = open_bundle(folder)
    expected = np.load(folder / _manifest(folder)["golden"]["outputs"], allow_pickle=False)
    result = profile([candidate], open_board("x86-cpu"), inputs, seconds=0.2, rounds=1)[0]
    got = next(iter(result.outputs.values()))
    error = float(np.abs(got - expected).max() / np.abs(expected).max())
    allowed = STEP if candidate.artifact.precision == "int8" else TOLERANCE
    if not (np.isfinite(error) and error <= allowed):
        raise GateError(
            f"{folder}: the model gives other outputs than those recorded",
            why=f"largest relative difference {error:.3g}, {allowed:g} is allowed",
            next="run it with the runtime version that the manifest names, or build the bundle again",
        )
    return {
        "bundle": str(folder),
        "images": len(expected),
        "largest_relative_difference": error,
        "files": "as recorded",
    }


def open_bundle(folder: Path) -> tuple[Candidate, Inputs]:
    """The candidate that was shipped, its files checked, and the images of its golden vectors.

    Raises:
        InputError: there is no bundle in the folder.
        IntegrityError: a file is missing or is not what the manifest says.
    """
    manifest = _manifest(folder)
    _check_files(folder, manifest)
    images = np.load(folder / manifest["golden"]["images"], allow_pickle=False)
    return _candidate(folder, manifest), Inputs(images, preprocess=manifest["preprocess"], kind="golden vectors")


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        if manifest["schema"] == SCHEMA:
            return manifest
        raise InputError(f"{path}: schema {manifest['schema']!r}, this edgekit reads {SCHEMA!r}")
    except OSError:
        raise InputError(f"{folder}: there is no bundle here (no manifest.json)", next="give RUN/bundle") from None
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{path}: is not a manifest", why=f"{type(error).__name__}: {error}") from None


def _check_files(folder: Path, manifest: Mapping[str, Any]) -> None:
    root = folder.resolve()
    for name, wanted in manifest["files"].items():
        path = (folder / name).resolve()
        if not path.is_relative_to(root):
            raise IntegrityError(f"{folder}: the manifest names '{name}', which lies outside the bundle")
        if not path.is_file() or sha256_of(path) != wanted["sha256"]:
            raise IntegrityError(
                f"{path}: is missing or is not the file that was bundled",
                next="copy the bundle again from its run folder",
            )
    for name in (manifest["model"]["file"], *manifest["golden"].values()):
        if name not in manifest["files"]:
            raise IntegrityError(f"{folder}: '{name}' has no hash in the manifest")


def _candidate(folder: Path, manifest: Mapping[str, Any]) -> Candidate:
    model, path = manifest["model"], folder / manifest["model"]["file"]
    artifact = Artifact(
        path=path,
        format=model["format"],
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        inputs=tuple(TensorSpec(s["name"], s["dtype"], tuple(s["shape"])) for s in model["inputs"]),
        outputs=tuple(TensorSpec(s["name"], s["dtype"], tuple(s["shape"])) for s in model["outputs"]),
        precision=model["precision"],
        preprocess=manifest["preprocess"],
    )
    return Candidate("bundle", artifact, manifest["runtime"]["name"], manifest["runtime"]["options"])
