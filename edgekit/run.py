"""The run folder of it all: step keys, commit, resume.

    runs/<name>-<time>/
        recipe.yaml          as given
        resolved.yaml        with every default
        steps/<key>/         weights.safetensors, edits.json, and stage.json, written last
        artifacts/           the exported file of every step
        ledger.json  report.html|md|json  bundle/

A step's folder is named by its key (edgekit/keys.py), the sha256 of all that could change its result. A folder of
that name that verifies is a finished step, in this run or in one beside it; anything doubtful is a miss, never a crash.
A step is written in a folder of another name, flushed to disk and renamed, so that a killed run leaves either the whole
step or nothing.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edgekit.artifact import sha256_of
from edgekit.errors import EdgekitError, GateError, LockedError, ResourceError

if TYPE_CHECKING:
    from edgekit.keys import Key
    from edgekit.model import Model
    from edgekit.recipe import Recipe
    from edgekit.stages import Outcome, Stage

SCHEMA = "edgekit.step/1"
CHECKPOINTS = "checkpoints"  # in a step's folder, while it trains


@dataclass(frozen=True)
class Step:
    """A finished step. cached: it was found, not made. seconds: the work when it was made."""

    name: str
    kind: str
    key: Key
    model: Model
    metrics: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    cached: bool = False


class Run:
    """One run's folder, locked while it is open. Use as a context manager."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        from filelock import FileLock

        self.folder = folder
        self.recipe = recipe
        self._lock = FileLock(folder / ".lock", blocking=False)

    @classmethod
    def open(cls, recipe: Recipe, runs: Path) -> Run:
        """Goes on with the newest unfinished run of this very recipe, or begins a new one.

        Raises:
            ResourceError: the folder cannot be written.
        """
        resolved = _yaml(recipe.resolved())
        try:
            for folder in sorted(runs.glob(f"{recipe.name}-*"), reverse=True):
                same = _text(folder / "resolved.yaml") == resolved
                if same and not (folder / "report.json").exists():
                    return cls(folder, recipe)
            folder = _new_folder(runs, str(recipe.name))
            (folder / "steps").mkdir()
            (folder / "artifacts").mkdir()
            (folder / "recipe.yaml").write_text(recipe.text)
            (folder / "resolved.yaml").write_text(resolved)
        except OSError as error:
            raise ResourceError(f"{runs}: cannot be written", why=str(error), next="give another --runs DIR") from None
        return cls(folder, recipe)

    def __enter__(self) -> Run:
        from filelock import Timeout

        try:
            self._lock.acquire()
        except Timeout:
            raise LockedError(
                f"{self.folder}: another process is at work here",
                next="wait until it ends, or give another --runs DIR",
            ) from None
        self._sweep()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def once(self, stage: Stage, *, key: Key, after: Model, make: Callable[[Path], Outcome]) -> Step:
        """The finished step of that key, or what `make` gives when called with a folder of its own.

        Raises:
            GateError: the stage changed nothing.
            ResourceError: the step could not be written.
        """
        found = self._find(key)
        if found is not None:
            return self._read(found, stage, key)
        work = self.folder / "steps" / f".{key.digest[:16]}"  # one writer: the folder is locked
        work.mkdir(exist_ok=True)
        try:
            started = time.monotonic()
            outcome = make(work)
            if _same(outcome.model, after):
                raise GateError(
                    f"{stage.step}: the stage changed nothing", next="drop it from the recipe, or ask it for more"
                )
            seconds = time.monotonic() - started
            step = Step(stage.step, stage.kind, key, outcome.model, outcome.metrics, outcome.notes, seconds)
            self._commit(step, work)
        except OSError as error:
            raise _full(error, self.folder) from error
        finally:
            _drop_unless_resumable(work)
        return step

    def failed(self, error: EdgekitError) -> None:
        """Leaves failure.json, so that a person who comes later sees how the run ended."""
        if self.folder.is_dir():
            (self.folder / "failure.json").write_text(json.dumps(error.as_dict(), indent=1))

    def _commit(self, step: Step, work: Path) -> None:
        """Weights and edits, flushed; then stage.json with their hashes, flushed; then the name."""
        step.model.save(work)
        files = {path.name: path for path in sorted(work.iterdir()) if path.is_file()}
        record = {
            "schema": SCHEMA,
            "step": step.name,
            "kind": step.kind,
            "key": step.key.digest,
            "parts": dict(step.key.parts),
            "seconds": step.seconds,
            "metrics": dict(step.metrics),
            "notes": list(step.notes),
            "files": {n: {"sha256": sha256_of(path), "bytes": path.stat().st_size} for n, path in files.items()},
        }
        for path in files.values():
            _flush(path)
        (work / "stage.json").write_text(json.dumps(record, indent=1))
        _flush(work / "stage.json")
        finished = self.folder / "steps" / step.key.digest
        work.rename(finished)
        _flush(self.folder / "steps")
        shutil.rmtree(finished / CHECKPOINTS, ignore_errors=True)

    def _find(self, key: Key) -> Path | None:
        """A verified folder of that key: here, else brought here from a run beside this one."""
        own = self.folder / "steps" / key.digest
        if _verified(own):
            return own
        shutil.rmtree(own, ignore_errors=True)
        other = finished(self.folder.parent, key)
        if other is None:
            return None
        # A hard link costs no space; a step's files are never written again.
        shutil.copytree(other, own, copy_function=_link)
        return own

    def _read(self, folder: Path, stage: Stage, key: Key) -> Step:
        from edgekit.model import restore

        record = json.loads((folder / "stage.json").read_text())
        model = restore(folder, source_folder=self.recipe.folder)
        notes = tuple(record["notes"])
        return Step(stage.step, stage.kind, key, model, record["metrics"], notes, record["seconds"], True)

    def _sweep(self) -> None:
        """Removes what a killed process left behind, but for trainings that go on."""
        for path in (self.folder / "steps").glob(".*"):
            _drop_unless_resumable(path)
        (self.folder / "failure.json").unlink(missing_ok=True)


def finished(runs: Path, key: Key) -> Path | None:
    """The newest whole folder of that step, in any run."""
    found = sorted(runs.glob(f"*/steps/{key.digest}"), reverse=True)
    return next((folder for folder in found if _verified(folder)), None)


def last_parts(runs: Path, stage: Stage) -> Mapping[str, Any] | None:
    """The parts of the key under which a step of that name (else of that stage) was last made; None where none was."""
    records = [_record(path.parent) for path in _newest(runs.glob("*/steps/*/stage.json"))]
    alike = [one for one in records if one.get("kind") == stage.kind and isinstance(one.get("parts"), dict)]
    named = [one for one in alike if one.get("step") == stage.step]
    return next((one["parts"] for one in (*named, *alike)), None)


def _record(folder: Path) -> dict[str, Any]:
    """A step's stage.json; empty where it cannot be read."""
    try:
        record = json.loads((folder / "stage.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _verified(folder: Path) -> bool:
    """Whether a step's folder is whole: stage.json reads, every file has its size and hash."""
    try:
        record = json.loads((folder / "stage.json").read_text())
        return bool(record["schema"] == SCHEMA and record["key"] == folder.name) and all(
            (folder / name).stat().st_size == file["bytes"] and sha256_of(folder / name) == file["sha256"]
            for name, file in record["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _drop_unless_resumable(work: Path) -> None:
    """Removes the folder of a step that is not finished; one with checkpoints stays for the next run of the step."""
    if not any(work.glob(f"{CHECKPOINTS}/*.json")):
        shutil.rmtree(work, ignore_errors=True)


def _same(one: Model, other: Model) -> bool:
    """Whether two models have the same edits and bit-equal weights."""
    import torch

    a, b = one.net.state_dict(), other.net.state_dict()
    return one.edits == other.edits and a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def _new_folder(runs: Path, name: str) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        folder = runs / f"{name}-{stamp}{suffix}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(errno.EEXIST, f"{runs} holds a hundred runs of this second")


def _yaml(record: Mapping[str, Any]) -> str:
    import io

    from ruamel.yaml import YAML

    stream = io.StringIO()
    YAML(typ="safe", pure=True).dump(dict(record), stream)
    return stream.getvalue()


def _newest(paths: Iterable[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return None


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)


def _flush(path: Path) -> None:
    """Waits until a file or folder has reached the disk: a rename may otherwise arrive before what it names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _full(error: OSError, folder: Path) -> Exception:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
        return error
    return ResourceError(
        f"{folder}: cannot be written",
        why=str(error),
        kept="every finished step",
        next="free some disk (or give another --runs DIR) and run the same command again",
    )
