"""Which machine and builder an engine belongs to, and the sidecar that says so (`model.engine.json`).

An engine runs code, so only one that edgekit built on this very machine is loaded: its hash and its key stand in the
sidecar, never inside the engine, and both are compared before TensorRT sees a byte of it.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Optional

from edgekit.artifact import sha256_of
from edgekit.errors import IntegrityError

SCHEMA = "edgekit.engine/1"
MODEL = Path("/proc/device-tree/model")


@dataclass(frozen=True)
class EngineKey:
    """What an engine depends on; any difference means another engine.

    tensorrt: the full version. compute_capability: `8.7`. board, power_mode: as the machine names them, None where it
    does not. settings: what the builder was told, one word each.
    """

    onnx_sha256: str
    tensorrt: str
    compute_capability: str
    board: Optional[str]
    power_mode: Optional[str]
    settings: str


def board() -> Optional[str]:
    """What a Jetson calls itself, None elsewhere."""
    try:
        return MODEL.read_text().strip("\0\n") or None
    except OSError:
        return None


def power_mode() -> Optional[str]:
    """The power mode's name (`MAXN_SUPER`), None where there are none. Names, because ids differ between boards."""
    try:
        answer = subprocess.run(["nvpmodel", "-q"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S607
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"NV Power Mode: *(\S+)", answer.stdout)
    return found.group(1) if found else None


def sidecar(engine: Path) -> Path:
    return engine.with_name(engine.name + ".json")


def seal(engine: Path, key: EngineKey, facts: Dict[str, Any]) -> None:
    """Writes the sidecar of an engine that was just built. facts: what else is worth knowing (workspace, retries)."""
    record = {
        "schema": SCHEMA,
        "sha256": sha256_of(engine),
        "bytes": engine.stat().st_size,
        "key": asdict(key),
        "facts": facts,
    }
    sidecar(engine).write_text(json.dumps(record, indent=1))


def key_of(engine: Path) -> EngineKey:
    """What an engine's sidecar says it was built for.

    Raises:
        IntegrityError: it has no sidecar, or one that cannot be read.
    """
    try:
        return EngineKey(**_read(engine)["key"])
    except TypeError as error:
        raise _foreign(engine, f"its sidecar has another key: {error}") from None


def unseal(engine: Path, key: EngineKey) -> bytes:
    """The bytes of an engine that was built here.

    Raises:
        IntegrityError: it has no sidecar, is not the file that was built, or was built for something else.
    """
    record = _read(engine)
    for name, wanted in asdict(key).items():
        found = record["key"].get(name)
        if found != wanted:
            raise IntegrityError(
                f"{engine.name}: this engine was built for another {name.replace('_', ' ')}",
                why=f"built for {found}, here it is {wanted}",
                next="build it again from its ONNX file on this machine",
            )
    if not engine.is_file() or sha256_of(engine) != record["sha256"]:
        raise IntegrityError(
            f"{engine.name}: this is not the engine that was built here",
            why="its sha256 differs from the one in its sidecar",
            next="build it again from its ONNX file",
        )
    return engine.read_bytes()


def _read(engine: Path) -> Dict[str, Any]:
    path = sidecar(engine)
    try:
        record = json.loads(path.read_text())
        if record["schema"] == SCHEMA and isinstance(record["key"], dict) and isinstance(record["sha256"], str):
            return dict(record)
        why = f"schema {record['schema']!r}, this edgekit reads {SCHEMA!r}"
    except OSError:
        why = f"there is no {path.name} beside it"
    except (ValueError, KeyError, TypeError) as error:
        why = f"{path.name} cannot be read: {type(error).__name__}: {error}"
    raise _foreign(engine, why)


def _foreign(engine: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"{engine.name}: only engines that edgekit built are loaded",
        why=why,
        next="build it from its ONNX file: an engine of another origin can run any code",
    )
