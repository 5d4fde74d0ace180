"""What a path given to `edgekit profile` stands for: candidates, and what to feed them. Needs no recipe and no torch.

model.onnx   any ONNX file, in every runtime of the board that reads it; random values, unless data are given
BUNDLE/      the candidate that was shipped; the images of its golden vectors
RUN/         every candidate the run measured on the board; the test set of its recipe
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import lookup, report
from edgekit.artifact import Artifact, Candidate, TensorSpec
from edgekit.bundle import open_bundle
from edgekit.device import Board, open_board
from edgekit.errors import DependencyError, InputError, IntegrityError, UsageError, did_you_mean
from edgekit.exporters import onnx
from edgekit.ledger import Final
from edgekit.profile import Inputs, Profile, profile
from edgekit.profile.boards import missing
from edgekit.settings import DataSettings
from edgekit.yaml_reader import read_yaml

SCHEMA = "edgekit.profiles/1"
RANDOM_SAMPLES = 16
LABELS = "labels"  # the array of a data file that is no input


@dataclass(frozen=True)
class Load:
    """How everything is loaded: arguments of `edgekit.profile.profile`."""

    scenario: str = "single-stream"
    scope: str = "host"
    seconds: float = 30.0
    soak: bool = False
    threads: int = 1
    cores: Sequence[int] | None = None


@dataclass(frozen=True)
class Subject:
    """What is measured where; notes: what was left out, and why."""

    candidates: tuple[Candidate, ...]
    board: Board
    inputs: Inputs
    notes: tuple[str, ...] = ()


def open_subject(
    path: Path,
    *,
    device: str | None = None,
    runtimes: Sequence[str] = (),
    data: Path | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> Subject:
    """Reads what stands at `path`.

    device:   the board's name; by default this machine, of a run its goal's.
    runtimes: the only ones to measure in; by default those of the board, of a bundle or run those it names.
    data:     .npz with an array for each input (first axis the sample), and `labels` where they are known.
    shapes:   sizes by input of an ONNX file, where the file leaves some free and random values are to be made.

    Raises:
        InputError: nothing of ours stands there, a name is unknown, or a size is left open; says what to write.
        IntegrityError: a file is not the one that was recorded.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder", next="give an ONNX file, a bundle or a run folder")
    if shapes and (path.is_dir() or data is not None):
        raise UsageError("--shape is for random values: a bundle, a run and --data bring inputs of their own.")
    if path.is_file():
        found = _of_file(path, open_board(device or "x86-cpu"), runtimes, shapes or {})
    elif (path / "manifest.json").is_file():
        found = _of_bundle(path, open_board(device or "x86-cpu"), runtimes)
    elif (path / "report.json").is_file():
        found = _of_run(path, device, runtimes)
    else:
        raise InputError(
            f"{path}: this folder is neither a bundle (manifest.json) nor a finished run (report.json)",
            next="give an ONNX file, a bundle or a run folder",
        )
    inputs = found.usual_inputs() if data is None else _from_file(data, found.preprocess)
    return Subject(found.candidates, found.board, inputs, found.notes)


@dataclass(frozen=True)
class _Found:
    """A subject whose inputs are not read yet. preprocess: what its images go through, where that is known."""

    candidates: tuple[Candidate, ...]
    board: Board
    usual_inputs: Callable[[], Inputs]
    preprocess: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()


def measure(
    subject: Subject, load: Load, *, out: Path | None = None, report: Callable[[str], None] | None = None
) -> list[Profile]:
    """The rows; accuracy too where there are labels. out: keeps them, and all samples in OUT.samples.jsonl beside it.

    Raises:
        InputError: `out` cannot be written, known before time is spent.
    """
    samples = None if out is None else out.with_suffix(".samples.jsonl")
    for path in filter(None, (out, samples)):
        _writable(path)
    rows = profile(
        subject.candidates,
        subject.board,
        subject.inputs,
        accuracy=subject.inputs.labels is not None,
        report=report,
        **vars(load),
    )
    if out is not None and samples is not None:
        out.write_text(json.dumps(as_dict(rows, subject.notes), indent=1), encoding="utf-8")
        samples.write_text("".join(f"{line}\n" for row in rows for line in row.sample_lines()), encoding="utf-8")
    return rows


def as_dict(rows: Sequence[Profile], notes: Sequence[str] = ()) -> dict[str, Any]:
    return {"schema": SCHEMA, "profiles": [row.as_dict() for row in rows], "notes": list(notes)}


def _writable(path: Path) -> None:
    try:
        path.open("a").close()
    except OSError as error:
        raise InputError(f"--out {path}: cannot be written", why=str(error)) from error


def _of_file(path: Path, board: Board, runtimes: Sequence[str], shapes: Mapping[str, Sequence[int]]) -> _Found:
    artifact = _describe(path)
    chosen, notes = _runtimes(board, runtimes)
    candidates = tuple(Candidate(path.stem, artifact, runtime) for runtime in chosen)
    return _Found(candidates, board, lambda: _random(artifact.inputs, shapes), notes=notes)


def _of_bundle(folder: Path, board: Board, runtimes: Sequence[str]) -> _Found:
    candidate, golden = open_bundle(folder)
    chosen, notes = _runtimes(board, runtimes or [candidate.runtime])
    candidates = tuple(replace(candidate, runtime=runtime) for runtime in chosen)
    return _Found(candidates, board, lambda: golden, golden.preprocess, notes)


def _of_run(folder: Path, device: str | None, runtimes: Sequence[str]) -> _Found:
    known = report.read(folder)
    board = open_board(device or str(known.facts["goal"]["device"]))
    finals = {final.name: final for final in known.ledger.finals if final.board == board.name}
    chosen = [final for final in finals.values() if not runtimes or final.runtime in runtimes]
    if not chosen:
        measured = sorted({f"{final.board} in {final.runtime}" for final in known.ledger.finals})
        raise InputError(f"{folder}: nothing was measured there on {board.name}", why=f"it has {', '.join(measured)}")
    bundle = folder / "bundle"
    preprocess = open_bundle(bundle)[1].preprocess if bundle.is_dir() else None
    return _Found(tuple(_candidate(folder, final) for final in chosen), board, lambda: _test_set(folder), preprocess)


def _candidate(run: Path, final: Final) -> Candidate:
    artifact = _describe(run / "artifacts" / final.file)
    if artifact.sha256 != final.sha256:
        raise IntegrityError(f"{artifact.path}: is not the file that the run measured", next="run the recipe again")
    options = {} if final.precision == artifact.precision else {"precision": final.precision}
    return Candidate(final.step, artifact, final.runtime, options)


def _describe(path: Path) -> Artifact:
    """What an ONNX file says of itself.

    Raises:
        InputError: it cannot be read, is no ONNX model, or has inputs that are no tensors.
    """
    try:
        artifact = onnx.describe(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read", why=str(error)) from error
    except Exception as error:  # protobuf and numpy have their own ways of saying that this is something else
        raise InputError(f"{path}: is no ONNX model", why=f"{type(error).__name__}: {error}"[:200]) from error
    if not artifact.outputs:
        raise InputError(f"{path}: is no ONNX model", why="it names no outputs")
    return artifact


def _runtimes(board: Board, asked: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """The runtimes to measure in, and which of the board's own were left out."""
    for runtime in asked:
        lookup.find("runtimes", runtime)
        board.device.precisions(runtime)  # refuses what this kind of device does not have
    if asked:
        return list(dict.fromkeys(asked)), ()
    readers = [name for name in board.device.runtimes if name in onnx.runtimes]
    absent = {name: reason for name in readers if (reason := missing(board, name))}
    if len(absent) == len(readers):
        raise DependencyError(f"{board.name} has no runtime that reads ONNX", why="; ".join(absent.values()) or None)
    notes = tuple(f"not measured in {name}: {reason}" for name, reason in absent.items())
    return [name for name in readers if name not in absent], notes


def _test_set(run: Path) -> Inputs:
    """The test set of a run's recipe, as the run itself fed it."""
    from edgekit.data import open_data  # brings torch

    root = read_yaml(run / "resolved.yaml").root.plain()
    try:
        # Relative paths are relative to the recipe, of which a run keeps a copy alone; absolute ones open.
        data = open_data(DataSettings.model_validate(root["data"]), folder=run, seed=root["seed"])
    except InputError as error:
        error.next = "give the inputs: --data FILE.npz"
        raise
    return Inputs(data.test.images(np.arange(len(data.test))), data.test.labels, data.preprocess.as_dict())


def _from_file(path: Path, preprocess: Mapping[str, Any] | None) -> Inputs:
    """The arrays of an .npz; images (uint8 [n, h, w, c]) go through the file's preprocessing where it is known."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: is no .npz of plain arrays", why=str(error)) from error
    labels = arrays.pop(LABELS, None)
    images = preprocess is not None and all(array.dtype == np.uint8 and array.ndim == 4 for array in arrays.values())
    values = next(iter(arrays.values())) if len(arrays) == 1 else arrays
    return Inputs(values, labels, preprocess if images else None, kind=path.name)


def _random(specs: Sequence[TensorSpec], shapes: Mapping[str, Sequence[int]]) -> Inputs:
    """Normal floats, integers 0 and 1, bytes of every value; a free batch is 1."""
    names = [spec.name for spec in specs]
    for name in shapes:
        if name not in names:
            raise InputError(f"--shape: the file has no input '{name}'." + did_you_mean(name, names))
    generator = np.random.default_rng(0)
    arrays = {spec.name: _values(generator, spec.dtype, _sizes(spec, shapes.get(spec.name))) for spec in specs}
    return Inputs(arrays, kind="random")


def _sizes(spec: TensorSpec, given: Sequence[int] | None) -> list[int]:
    """All sizes of an input, the batch first."""
    flag = f"--shape {spec.name}={','.join(str(size) if isinstance(size, int) else 'N' for size in spec.shape)}"
    if not spec.shape:
        raise InputError(f"input '{spec.name}' is a single number, without a batch: edgekit cannot feed it")
    if given is None:
        given = [1 if k == 0 and isinstance(size, str) else size for k, size in enumerate(spec.shape)]
    open_sizes = [size for size in given if not isinstance(size, int)]
    if open_sizes:
        where = f"input '{spec.name}' has sizes that the file leaves open: {', '.join(map(str, open_sizes))}"
        raise InputError(where, next=f"give numbers for N: {flag}, or real inputs: --data FILE.npz")
    fits = [size == wanted or isinstance(wanted, str) for size, wanted in zip(given, spec.shape, strict=False)]
    if len(given) != len(spec.shape) or not all(fits):
        raise InputError(f"--shape {spec.name}: {list(given)} does not fit the file's {list(spec.shape)}")
    if isinstance(spec.shape[0], str) and given[0] != 1:
        raise InputError(f"--shape {spec.name}: a free batch is 1 here", next="--scenario offline finds the best batch")
    return list(given)


def _values(generator: np.random.Generator, dtype: str, sizes: Sequence[int]) -> np.ndarray:
    shape = (sizes[0] * RANDOM_SAMPLES, *sizes[1:])
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return generator.standard_normal(shape, np.float32).astype(kind)
    if kind.kind in "iub":
        most = 256 if dtype == "uint8" else 2  # 0 and 1 are in every vocabulary
        return generator.integers(0, most, shape).astype(kind)
    raise InputError(f"an input of type {dtype} cannot be made up", next="give real inputs: --data FILE.npz")
